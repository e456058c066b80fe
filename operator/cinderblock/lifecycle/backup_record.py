"""The part of a VolumeBackup that schedules and retention need, small enough for tens of thousands of backups."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern

from cinderblock.api import labels
from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.lifecycle.backup.checks import is_forgotten
from cinderblock.reasons import Reason


@dataclass(frozen=True, slots=True)
class KeptAlarm:
    """An alarm of a deleted backup of the same volume, which nobody has accepted.

    Attributes:
        backup_id: id of the deleted backup.
        data_time: time of its data.
        raised_at: when the alarm was raised.
    """

    backup_id: str
    data_time: datetime
    raised_at: datetime


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """One backup.

    Attributes:
        namespace, name, uid: identity of the VolumeBackup.
        resource_version: the version that was read, for writes that must not overwrite a change of somebody else.
        backup_id: its id in Cinder and in the store.
        schedule: kind and name of the schedule that made it, as in ``BackupSchedule/daily``; empty: a person made it.
        scheduled_for: the scheduled time.
        volume_id, volume_name: UID and name of the claim; empty if they are not known yet.
        store_name, container: where the backup is; empty if it is not known yet.
        phase: the phase of its own status; None: it has none yet.
        created: when the VolumeBackup was created.
        data_time: time of the data; None: not known yet.
        is_incremental: whether it was made against a parent.
        parent_id: the id of the parent.
        is_held: whether retention must leave it alone (spec.hold).
        keeps_data: whether its data stays when it is deleted.
        is_imported: whether it was imported.
        is_being_deleted: whether it has a deletionTimestamp.
        expires_at: from when retention removes it.
        logical_bytes, transferred_bytes, stored_bytes: its numbers; None: not known.
        fail_reason: the reason of the condition Ready after a failure; empty otherwise.
        is_suspicious: whether its numbers raised an alarm that nobody has accepted.
        is_damaged: whether a verification found that it is damaged.
        verified_at: when it was last verified; None: nothing is known, not enough, or that it is damaged.
        requested_volume: UID or name of the claim that it was requested for; empty for an imported backup.
        full_time: time of the full backup that its lineage began with, as its schedule noted it.
        ended: when it became complete or failed; None: it has not, or that is not known.
        has_unknown_alarm: whether it could not be compared yet, because statuses of the volume were lost.
        lacks_files: whether files are missing from it that could not be read.
        is_forgotten: whether the store may hold its data although its status does not say where.
        is_locked: whether it is being deleted, and Object Lock keeps it in the store.
        locked_until: until when the store refuses to delete its data; None: it is not locked.
        kept_alarms: open alarms of deleted backups of its volume.
        is_read_elsewhere: whether it records restores in other namespaces.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    backup_id: str
    schedule: str
    scheduled_for: datetime | None
    volume_id: str
    volume_name: str
    store_name: str
    container: str
    phase: BackupPhase | None
    created: datetime
    data_time: datetime | None
    is_incremental: bool
    parent_id: str
    is_held: bool
    keeps_data: bool
    is_imported: bool
    is_being_deleted: bool
    expires_at: datetime | None
    logical_bytes: int | None
    transferred_bytes: int | None
    stored_bytes: int | None
    fail_reason: str
    is_suspicious: bool
    requested_volume: str = ""
    full_time: datetime | None = None
    ended: datetime | None = None
    is_damaged: bool = False
    verified_at: datetime | None = None
    has_unknown_alarm: bool = False
    lacks_files: bool = False
    is_forgotten: bool = False
    is_locked: bool = False
    locked_until: datetime | None = None
    kept_alarms: tuple[KeptAlarm, ...] = ()
    is_read_elsewhere: bool = False

    @property
    def is_complete(self) -> bool:
        """Return whether the store holds the complete backup."""
        return self.phase is not None and self.phase.is_complete

    @property
    def has_ended(self) -> bool:
        """Return whether the backup was made, or failed for good."""
        return self.phase is not None and self.phase.is_final


def record_of(backup: VolumeBackup) -> BackupRecord:
    """Return the record of a VolumeBackup. A status that was copied from another object counts as none."""
    status = backup.status if backup.has_own_status else VolumeBackupStatus()
    metadata, spec = backup.metadata, backup.spec
    ready = next((c for c in status.conditions if c.type == ConditionType.READY), None)
    has_failed = status.phase in (BackupPhase.ERROR, BackupPhase.ERROR_DELETING)
    return BackupRecord(
        namespace=intern(backup.namespace),
        name=backup.name,
        uid=backup.uid,
        resource_version=metadata.resource_version,
        backup_id=backup.backup_id,
        schedule=intern(metadata.annotations.get(labels.SCHEDULE_ANNOTATION, "")),
        scheduled_for=_parse_time(metadata.annotations.get(labels.SCHEDULED_FOR_ANNOTATION, "")),
        volume_id=intern(status.volume_id or ""),
        volume_name=intern(status.volume_name or ""),
        store_name=intern(status.store_name or spec.store_name or ""),
        container=intern(status.container or ""),
        phase=status.phase,
        created=metadata.creation_timestamp or datetime.fromtimestamp(0, UTC),
        data_time=status.data_timestamp,
        is_incremental=bool(status.is_incremental),
        parent_id=status.parent_id or "",
        is_held=spec.hold,
        keeps_data=backup.keeps_data,
        is_imported=spec.import_ is not None,
        is_being_deleted=metadata.is_being_deleted,
        expires_at=status.expires_at,
        logical_bytes=status.logical_bytes,
        transferred_bytes=status.transferred_bytes,
        stored_bytes=status.stored_bytes,
        fail_reason=ready.reason if ready is not None and has_failed else "",
        is_suspicious=backup.is_suspicious,
        requested_volume=intern(spec.volume_id or ""),
        full_time=_parse_time(metadata.annotations.get(labels.FULL_TIME_ANNOTATION, "")),
        ended=status.completed_at,
        is_damaged=backup.is_damaged,
        verified_at=backup.verified_at,
        has_unknown_alarm=backup.has_unknown_alarm,
        lacks_files=bool(status.unreadable_files),
        is_forgotten=is_forgotten(backup),
        locked_until=status.locked_until,
        is_locked=metadata.is_being_deleted and _waits_for_lock(status),
        kept_alarms=tuple(KeptAlarm(a.backup_id, a.data_timestamp, a.raised_at) for a in backup.open_deleted_alarms),
        is_read_elsewhere=bool(backup.own_granted_restores),
    )


def _waits_for_lock(status: VolumeBackupStatus) -> bool:
    """Return whether the deletion of a backup waits for a lock, as the last answer of the store says."""
    shown = (c for c in status.conditions if c.type == ConditionType.RECONCILING and c.status == "True")
    return any(condition.reason == Reason.LOCKED for condition in shown)


def _parse_time(text: str) -> datetime | None:
    """Parse an annotation, which anybody can write. Return None if it is not a time with a zone."""
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
