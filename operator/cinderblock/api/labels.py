"""Names that are derived, never chosen: children of our objects, keys in a store, labels and finalizers.

A child's name comes from its owner's UID, so creating it twice is creating it once, and a name that is taken by
somebody else's object is noticed by the owner reference (external-snapshotter names contents the same way).
"""

from __future__ import annotations

GROUP = "cinderblock.io"
VERSION = "v1alpha1"

BACKUP_FINALIZER = "cinderblock.io/backup-data"
"""On a VolumeBackup: stored data has not been dealt with yet."""
RESTORE_FINALIZER = "cinderblock.io/restore-cleanup"
"""On a VolumeRestore: a mover or a hidden volume may still exist."""
STORE_FINALIZER = "cinderblock.io/store-in-use"
"""On a BackupStore: VolumeBackups need it."""
JOB_FINALIZER = "cinderblock.io/mover-result"
"""On a mover Job: its result has not been recorded yet, so no TTL or garbage collector may take it away."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "cinderblock"
OWNER_KIND_LABEL = "cinderblock.io/owner-kind"
OWNER_UID_LABEL = "cinderblock.io/owner-uid"
"""On every child: UID of the VolumeBackup or VolumeRestore that it belongs to."""
OWNER_NAME_ANNOTATION = "cinderblock.io/owner-name"
"""On every child: name of the same (a label is too short for it)."""
ENDED_ANNOTATION = "cinderblock.io/ended"
"""On a VolumeRestore that has ended: its UID and its phase, so that it is not run again if its status is lost."""
VOLUME_ID_ANNOTATION = "cinderblock.io/volume-id"
"""On a PersistentVolumeClaim that a restore has made: Cinder's id of the volume, which is the VolumeRestore's UID.

Cinder tells the id of the new volume when it is asked to restore; the claim and its UID are there only at the end.
"""
CREATED_BY_ANNOTATION = "cinderblock.io/created-by"
"""On what was made through the REST API: the name of the user who asked for it, as the API server knows it."""
RELEASED_ANNOTATION = "cinderblock.io/let-go"
"""On a VolumeBackup in deletion, with the value "leave-data": an administrator gives up the stored data."""

DISPLAY_NAME_ANNOTATION = "cinderblock.io/display-name"
"""On a PersistentVolumeClaim or VolumeSnapshot: its name in the Cinder API, if that is not its own; "": it has none."""
DESCRIPTION_ANNOTATION = "cinderblock.io/description"
"""On the same: its description in the Cinder API."""
METADATA_ANNOTATION = "cinderblock.io/metadata"
"""On the same: the user's own keys and values in the Cinder API, as JSON."""
RECORDED_SIZE_ANNOTATION = "cinderblock.io/recorded-size"
"""On a VolumeBackup that was imported through the Cinder API: GiB of the volume, as the record told it."""
VOLUME_METADATA_ANNOTATION = "cinderblock.io/volume-metadata"
"""On a VolumeBackup: METADATA_ANNOTATION of its volume when the backup was asked for through the Cinder API."""


def child_name(owner_uid: str) -> str:
    """Name of the Job, the PersistentVolumeClaim and the VolumeSnapshot that belong to the object with this UID."""
    return f"cinderblock-{owner_uid}"
