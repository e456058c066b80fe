"""VolumeBackups in Cinder's form.

Until the operator has written a status, the spec supplies its fields. So a new backup looks the same before and after
the operator has accepted it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.microversions import MINIMUM, Version
from cinderblock.gateway.rest.timestamps import format_timestamp

_DELETING = (BackupPhase.DELETING, BackupPhase.ERROR_DELETING)

UNKNOWN_VOLUME: Final = "00000000-0000-0000-0000-000000000000"
"""Volume id of a backup that is being imported (cinder.backup.api ``IMPORT_VOLUME_ID``)."""


def own_status(backup: VolumeBackup) -> VolumeBackupStatus:
    """Return the status; empty if it was copied from another object."""
    return backup.status if backup.has_own_status else VolumeBackupStatus()


def phase_of(backup: VolumeBackup) -> BackupPhase:
    """Return the phase. A backup with a deletion timestamp is ``deleting`` even before the operator reacts."""
    phase = own_status(backup).phase or BackupPhase.CREATING
    if backup.metadata.is_being_deleted and phase not in _DELETING:
        return BackupPhase.DELETING
    return phase


def status_of(backup: VolumeBackup, version: Version) -> str:
    """Return Cinder's status. A backup can be ``error_restoring`` in v2 only; in v3, the volume has that status.

    (api-ref v2 "Backup statuses"; cinder.objects.fields.BackupStatus)
    """
    phase = phase_of(backup)
    return "available" if version >= MINIMUM and phase is BackupPhase.ERROR_RESTORING else phase.value


def created_at(backup: VolumeBackup) -> datetime | None:
    """Return when the backup was created. An imported one was created before its object."""
    return own_status(backup).created_at or backup.metadata.creation_timestamp


def volume_id_of(backup: VolumeBackup) -> str:
    """Return the id of the volume; until the operator has looked it up, the reference in the spec."""
    return own_status(backup).volume_id or backup.spec.volume_id or UNKNOWN_VOLUME


def size_of(backup: VolumeBackup) -> int | None:
    """Return the volume's size in GiB; during an import, the size in the record."""
    text = backup.metadata.annotations.get(labels.RECORDED_SIZE_ANNOTATION, "")
    recorded = int(text[:10]) if text.isascii() and text.isdecimal() else None
    return recorded if own_status(backup).size is None else own_status(backup).size


def summary(backup: VolumeBackup, links: Links) -> dict[str, Any]:
    """Return the fields for lists without details, and for responses to requests that change a backup."""
    identifier = backup.backup_id
    return {"id": identifier, "name": backup.spec.name, "links": links.of("backups", identifier)}


def detail(backup: VolumeBackup, version: Version, links: Links, *, size: int | None = None) -> dict[str, Any]:
    """Return exactly the fields that Cinder has in this version. Clients reject unknown keys.

    Args:
        backup: the object.
        version: the caller's version.
        links: builds URLs.
        size: GiB of the volume, used while the status has no size.
    """
    spec, status = backup.spec, own_status(backup)
    incremental = spec.incremental if status.is_incremental is None else status.is_incremental
    created = created_at(backup)
    view: dict[str, Any] = {
        **summary(backup, links),
        "status": status_of(backup, version),
        "size": size if status.size is None and size is not None else size_of(backup),
        "object_count": status.object_count or 0,
        "availability_zone": spec.availability_zone,
        "container": status.container or spec.container,
        "created_at": format_timestamp(created),
        "updated_at": format_timestamp(status.updated_at),
        "description": spec.description,
        "fail_reason": status.fail_reason,
        "volume_id": volume_id_of(backup),
        "is_incremental": incremental,
        "has_dependent_backups": bool(status.has_dependent_backups),
        "snapshot_id": status.snapshot_id or spec.snapshot_id,
        "data_timestamp": format_timestamp(status.data_timestamp or created),
    }
    if version >= (3, 18):
        view["os-backup-project-attr:project_id"] = backup.namespace
    if version >= (3, 43):
        view["metadata"] = dict(spec.metadata)
    if version >= (3, 56):
        view["user_id"] = backup.metadata.annotations.get(labels.CREATED_BY_ANNOTATION)
    return view
