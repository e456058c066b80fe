"""A VolumeBackup in Cinder's words.

What the status does not say yet, because the operator has not come to it, follows from the spec: so a backup looks the
same to REST before and after it was accepted.
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
"""Of a backup that is being imported (cinder.backup.api ``IMPORT_VOLUME_ID``)."""


def own_status(backup: VolumeBackup) -> VolumeBackupStatus:
    """The status; empty if it speaks of another object."""
    return backup.status if backup.has_own_status else VolumeBackupStatus()


def phase_of(backup: VolumeBackup) -> BackupPhase:
    """The phase as soon as it is certain: a backup that is to be deleted is ``deleting``, whoever has seen it."""
    phase = own_status(backup).phase or BackupPhase.CREATING
    if backup.metadata.is_being_deleted and phase not in _DELETING:
        return BackupPhase.DELETING
    return phase


def status_of(backup: VolumeBackup, version: Version) -> str:
    """Cinder's status. ``error_restoring`` is a backup's only in v2; in v3 the volume has it, and the backup is whole.

    (api-ref v2 "Backup statuses"; cinder.objects.fields.BackupStatus)
    """
    phase = phase_of(backup)
    return "available" if version >= MINIMUM and phase is BackupPhase.ERROR_RESTORING else phase.value


def created_at(backup: VolumeBackup) -> datetime | None:
    """When the backup was made; of one that was imported, when it was first made, if the status says so."""
    return own_status(backup).created_at or backup.metadata.creation_timestamp


def volume_id_of(backup: VolumeBackup) -> str:
    """Id of the volume; before the operator has looked it up, what the spec calls it, if it calls it anything."""
    return own_status(backup).volume_id or backup.spec.volume_id or UNKNOWN_VOLUME


def size_of(backup: VolumeBackup) -> int | None:
    """GiB of the volume; of one that is being imported, as its record told."""
    told = backup.metadata.annotations.get(labels.RECORDED_SIZE_ANNOTATION, "")
    recorded = int(told[:10]) if told.isascii() and told.isdecimal() else None
    return recorded if own_status(backup).size is None else own_status(backup).size


def summary(backup: VolumeBackup, links: Links) -> dict[str, Any]:
    """In a list without details, and in answers to requests that change something."""
    identifier = backup.backup_id
    return {"id": identifier, "name": backup.spec.name, "links": links.of("backups", identifier)}


def detail(backup: VolumeBackup, version: Version, links: Links, *, size: int | None = None) -> dict[str, Any]:
    """Everything that Cinder tells of a backup in this version, and nothing more: clients refuse unknown keys.

    Args:
        backup: the object.
        version: what the caller speaks.
        links: where the caller reached us.
        size: GiB of the volume, for as long as the status does not tell.
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
