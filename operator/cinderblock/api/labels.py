"""Names of our API group, finalizers, labels and annotations, and the derived names of children.

The name of a child contains the UID of its owner, so that creating the child is idempotent. The owner reference shows
whether an object with that name belongs to somebody else (external-snapshotter names contents the same way).
"""

from __future__ import annotations

GROUP = "cinderblock.io"
VERSION = "v1alpha1"

BACKUP_FINALIZER = "cinderblock.io/backup-data"
"""On a VolumeBackup, until its stored data has been deleted, or is to be kept."""
RESTORE_FINALIZER = "cinderblock.io/restore-cleanup"
"""On a VolumeRestore, while a mover or a staging volume of it may exist."""
VERIFICATION_FINALIZER = "cinderblock.io/verification-cleanup"
"""On a BackupVerification, while a mover or another child of it may exist."""
STORE_FINALIZER = "cinderblock.io/store-in-use"
"""On a BackupStore, while VolumeBackups need it, and on a ClusterBackupStore, while BackupStores of it exist."""
JOB_FINALIZER = "cinderblock.io/mover-result"
"""On a mover Job, until its result has been recorded, so that no TTL and no garbage collector removes it."""

STARTED_ANNOTATION = "cinderblock.io/started"
"""On a mover Job that the operator has started. If such a Job is suspended, another controller suspends it."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "cinderblock"
OWNER_KIND_LABEL = "cinderblock.io/owner-kind"
OWNER_UID_LABEL = "cinderblock.io/owner-uid"
"""On every child: UID of the owning VolumeBackup, VolumeRestore or BackupVerification. On a VolumeRestore for a claim
that asks for its content: UID of that claim."""
OWNER_NAME_ANNOTATION = "cinderblock.io/owner-name"
"""On every child: name of the owner, which may be too long for a label."""
ENDED_ANNOTATION = "cinderblock.io/ended"
"""On a VolumeRestore that has ended: its UID and phase, so that it does not run again if its status is lost."""
VOLUME_ID_ANNOTATION = "cinderblock.io/volume-id"
"""On a PersistentVolumeClaim that a restore created: Cinder's id of the volume, which is the UID of the VolumeRestore.

Cinder returns the id of the new volume when it accepts a restore. The PersistentVolumeClaim and its UID exist only when
the restore has ended.
"""
CREATED_BY_ANNOTATION = "cinderblock.io/created-by"
"""On an object that was created through the REST API: the user who requested it, as the API server reports them."""
RELEASED_ANNOTATION = "cinderblock.io/let-go"
"""On a VolumeBackup that is being deleted: with the value "leave-data", the stored data is left in the store."""

ROOT_MOVERS_ANNOTATION = "cinderblock.io/allow-root-movers"
"""On a Namespace, with the value "true": movers may run as root there, if the operator asks for consent."""

DISPLAY_NAME_ANNOTATION = "cinderblock.io/display-name"
"""On a PersistentVolumeClaim or VolumeSnapshot: its name in the Cinder API, empty for no name.

Without the annotation, the Cinder API shows the object's own name.
"""
DESCRIPTION_ANNOTATION = "cinderblock.io/description"
"""On a PersistentVolumeClaim or VolumeSnapshot: its description in the Cinder API."""
METADATA_ANNOTATION = "cinderblock.io/metadata"
"""On a PersistentVolumeClaim or VolumeSnapshot: its metadata in the Cinder API, as JSON."""
RECORDED_SIZE_ANNOTATION = "cinderblock.io/recorded-size"
"""On a VolumeBackup that was imported through the Cinder API: size of the volume in GiB, from the imported record."""
VOLUME_METADATA_ANNOTATION = "cinderblock.io/volume-metadata"
"""On a VolumeBackup that was created through the Cinder API: METADATA_ANNOTATION of its volume at that time."""
SNAPSHOT_ANNOTATION = "cinderblock.io/snapshot-id"
"""On a PersistentVolumeClaim that the gateway created from a snapshot: the snapshot's id."""
READ_ONLY_KEYS_ANNOTATION = "cinderblock.io/read-only-keys"
"""On an encryption Secret: key ids, each with the time after which the key must not have sealed anything."""
DEFAULT_STORE_ANNOTATION = "cinderblock.io/is-default-store"
"""On a BackupStore or a ClusterBackupStore, with the value "true": backups that name no store use it."""
ACTIVE_KEY_ANNOTATION = "cinderblock.io/active-key"
"""On an encryption Secret: the id of the key that seals new backups."""
MOVED_FROM_ANNOTATION = "cinderblock.io/moved-from"
"""On a ClusterBackupStore: values of status.storePlace, separated by commas. All objects of these places were copied to
the present one."""
STORE_LABEL = "cinderblock.io/store"
"""On a mover Job: UID of its BackupStore, so that people can select its movers."""
RESTORE_LABEL = "cinderblock.io/restore-uid"
"""On a PersistentVolume that is being rebound: UID of the VolumeRestore."""
POLICY_ANNOTATION = "cinderblock.io/reclaim-policy"
"""On a PersistentVolume that is being rebound: its original reclaim policy."""
TEMPORARY_ANNOTATION = "cinderblock.io/temporary-volume"
"""On a PersistentVolume that was provisioned for a restore: it is deleted unless it is handed over."""
NUDGED_ANNOTATION = "cinderblock.io/nudged"
"""On a PersistentVolumeClaim that is being bound: it was changed once to complete its binding."""
POPULATED_ANNOTATION = "cinderblock.io/populated-claim"
"""On a PersistentVolume that was handed over to a claim that asked for its content: its UID. It stays there, so no
policy protects it: tools that copy PersistentVolumes must be able to create them with it."""
SOURCE_ANNOTATION = "cinderblock.io/restore-source"
"""On a VolumeRestore for a claim that asks for its content: name of the RestoreSource that the claim names."""
BIND_ANNOTATION = "cinderblock.io/bind"
"""On a PersistentVolumeClaim that asks for its content, with the value "Immediate": fill it before a pod needs it."""
SCHEDULE_LABEL = "cinderblock.io/schedule"
"""On a VolumeBackup that a schedule made: the name of the schedule, or a hash of it if it is too long for a label."""
SCHEDULE_ANNOTATION = "cinderblock.io/schedule-name"
"""On a VolumeBackup that a schedule made: kind and name of the schedule, as in ``BackupSchedule/daily``."""
SCHEDULED_FOR_ANNOTATION = "cinderblock.io/scheduled-for"
"""On a VolumeBackup that a schedule made: the scheduled time (RFC 3339, UTC)."""
FULL_TIME_ANNOTATION = "cinderblock.io/full-time"
"""On an incremental VolumeBackup that a schedule made: the time of the full backup that its lineage began with."""
BACKUP_ANNOTATION = "cinderblock.io/backup"
"""On a PersistentVolumeClaim: "false" leaves it out of all schedules, and "true" puts it into those that ask for it."""
IMPORTED_ANNOTATION = "cinderblock.io/imported-from"
"""On a VolumeBackup that the operator made because its BackupStore asks for imports: the name of that BackupStore. Only
such a VolumeBackup is removed when its manifest is gone."""
ACCEPT_ANNOTATION = "cinderblock.io/accept"
"""On a VolumeBackup: its own id, after a person has checked a suspicious backup and accepts it. After a comma, ids of
deleted backups whose alarms it keeps (status.deletedAlarms)."""


def populate_name(claim_uid: str) -> str:
    """Return the name of the VolumeRestore for the claim with this UID, which asks for its content."""
    return f"populate-{claim_uid}"


def child_name(owner_uid: str) -> str:
    """Return the name of the Job, PersistentVolumeClaim and VolumeSnapshot of the owner with this UID."""
    return f"cinderblock-{owner_uid}"
