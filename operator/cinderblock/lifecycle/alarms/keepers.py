"""Which backup keeps the open alarms of a VolumeBackup that is being deleted.

An alarm is about the volume, and a person may delete the suspicious backup without having seen the alarm. So the alarm
moves to another backup of the volume before the VolumeBackup goes, and counts until somebody accepts it there. If that
one is deleted as well, the alarm moves again. Without another complete backup, there is nothing to keep.
"""

from __future__ import annotations

from cinderblock.api import labels
from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.backup import MAX_DELETED_ALARMS, DeletedAlarm, VolumeBackup
from cinderblock.lifecycle.actions import KeepAlarms
from cinderblock.lifecycle.backup import expiry
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.backup_times import data_time, order


def alarms_of(backup: VolumeBackup) -> list[DeletedAlarm]:
    """Return the open alarms that go with a backup: its own, and those of deleted backups.

    Those of a backup that retention removes have had their time: its volume is gone.
    """
    if expiry.is_expired(backup):
        return []
    kept, record = backup.open_deleted_alarms, record_of(backup)
    return [*kept, _own(backup, record)] if backup.is_suspicious else kept


def _own(backup: VolumeBackup, record: BackupRecord) -> DeletedAlarm:
    raised = max(data_time(record), utc(record.ended)) if record.ended is not None else data_time(record)
    return DeletedAlarm(
        backup_id=backup.backup_id, backup_name=backup.name, data_timestamp=data_time(record), raised_at=raised
    )


class Keepers:
    """Chooses the keeper among the other backups of a volume, one at a time, so that the others need no memory.

    The newest older backup comes first: retention keeps it because of the alarm anyway. One that keeps the alarms
    already comes before all others, so that a crash after the write changes nothing.

    Args:
        backup: the VolumeBackup that is being deleted.
    """

    def __init__(self, backup: VolumeBackup) -> None:
        self._backup = backup
        self._order = order(record_of(backup))
        self._ids = {alarm.backup_id for alarm in alarms_of(backup)}
        self._rank: tuple[bool, bool, bool, float] | None = None
        self.best: VolumeBackup | None = None

    def observe(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if none before is better."""
        is_of_volume = other.status.volume_id == self._backup.status.volume_id
        if other.uid == self._backup.uid or not other.is_complete or other.metadata.is_being_deleted:
            return
        rank = self._rank_of(other)
        if is_of_volume and (self._rank is None or rank > self._rank):
            self.best, self._rank = other, rank

    def _rank_of(self, other: VolumeBackup) -> tuple[bool, bool, bool, float]:
        kept = {alarm.backup_id for alarm in other.status.deleted_alarms}
        other_order = order(record_of(other))
        is_older = other_order < self._order
        time = other_order[0].timestamp()
        has_room = len(kept | self._ids) <= MAX_DELETED_ALARMS
        return self._ids <= kept, has_room, is_older, time if is_older else -time


def keep_alarms(backup: VolumeBackup, keeper: VolumeBackup | None) -> KeepAlarms | None:
    """Return the write that moves the open alarms of a backup to its keeper; None if nothing is left to write."""
    alarms = alarms_of(backup)
    if keeper is None or not alarms:
        return None
    merged = {alarm.backup_id: alarm for alarm in (*keeper.open_deleted_alarms, *alarms)}
    known = {alarm.backup_id for alarm in keeper.status.deleted_alarms}
    if all(alarm.backup_id in known for alarm in alarms):
        return None
    return KeepAlarms(keeper.name, keeper.metadata.resource_version, tuple(_most_important(list(merged.values()))))


def _most_important(alarms: list[DeletedAlarm]) -> list[DeletedAlarm]:
    """Return as many alarms as a status may have: the oldest, before which all was well for sure, and the newest."""
    alarms.sort(key=lambda alarm: (utc(alarm.data_timestamp), alarm.backup_id))
    return alarms if len(alarms) <= MAX_DELETED_ALARMS else [alarms[0], *alarms[1 - MAX_DELETED_ALARMS :]]


def note(backup: VolumeBackup, keeper: VolumeBackup | None) -> str:
    """Return what becomes of the open alarms of a deleted backup, for its last Event; empty if there are none."""
    alarms = alarms_of(backup)
    if keeper is None or not alarms:
        return ""
    return (
        f". Its alarm still counts for retention, and VolumeBackup {keeper.name} keeps it. To accept it, annotate that"
        f" one with {labels.ACCEPT_ANNOTATION}={alarms[-1].backup_id}"
    )
