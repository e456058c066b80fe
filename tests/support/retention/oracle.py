"""The backups that retention keeps, in the slowest and most obvious way: each is compared with all others.

It shares no code with `cinderblock.lifecycle.retention` except the records. It knows nothing about marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.context import RetentionContext

FIVE_MINUTES = timedelta(minutes=5)
WHOLE = ("available", "restoring", "error_restoring")
FORMATS = {"hourly": "%Y-%m-%d %H %z", "daily": "%Y-%m-%d", "weekly": "%G %V", "monthly": "%Y-%m", "yearly": "%Y"}


def kept(
    retention: Retention, zone: tzinfo, backups: Sequence[BackupRecord], context: RetentionContext, now: datetime
) -> set[str]:
    """Return the UIDs of all backups that must not expire."""
    if any(backup.created - now > FIVE_MINUTES for backup in backups):
        return {backup.uid for backup in backups}
    return {b.uid for b in backups if _Case(retention, zone, b, backups, context, now).is_kept()}


def _time(backup: BackupRecord) -> datetime:
    return max(backup.created, backup.data_time) if backup.data_time is not None else backup.created


def _is_newer(one: BackupRecord, other: BackupRecord) -> bool:
    return (_time(one), one.created, one.uid) > (_time(other), other.created, other.uid)


def _is_judged(backup: BackupRecord) -> bool:
    is_left_out = backup.is_being_deleted or backup.is_imported or backup.keeps_data or backup.is_forgotten
    return not is_left_out and str(backup.phase) in (*WHOLE, "error")


@dataclass(frozen=True)
class _Case:
    """One backup among all others."""

    retention: Retention
    zone: tzinfo
    backup: BackupRecord
    backups: Sequence[BackupRecord]
    context: RetentionContext
    now: datetime

    def is_kept(self) -> bool:
        """Return whether any answer keeps the backup, with the exceptions of the last guards."""
        if self._is_untouchable() or self.now - max(_time(self.backup), self.backup.created) < self._min_age():
            return True
        is_gone = _is_gone(self.retention, self.backup, self.backups, self.context, self.now)
        if self.backup.phase == "error":
            newer = [b for b in self._volume() if _is_judged(b) and b.phase == "error" and _is_newer(b, self.backup)]
            return not is_gone and len(newer) < self.retention.failed.last
        group = self._group()
        alarms = _alarms(self.backup, [*self.backups, *self.context.others], self.now)
        is_guarded = _is_last(self.backup, group, self.context) or _is_guarded_by_alarm(self.backup, group, alarms)
        unknown = _unknown(self.backup, [*self.backups, *self.context.others], self.now)
        if unknown or _is_frozen(self.backup, alarms, self.now) or (not is_gone and is_guarded):
            return True
        rivals = [b for b in group if self.backup.is_damaged or not b.is_damaged]
        return not is_gone and not self._is_too_old() and self._fulfills_a_rule(rivals)

    def _is_untouchable(self) -> bool:
        unfinished = [b for b in self.backups if not b.is_being_deleted and str(b.phase) not in (*WHOLE, "error")]
        used = {*self.context.used_ids, *(b.parent_id for b in unfinished)}
        return (
            not _is_judged(self.backup)
            or self.backup.is_held
            or (self.backup.locked_until is not None and self.backup.locked_until > self.now and self._is_whole())
            or self.backup.backup_id in used
            or self.backup.phase == "restoring"
            or _time(self.backup) - self.now > FIVE_MINUTES
            or (self.backup.phase == "error" and self.backup.scheduled_for in self.context.unfinished_runs)
        )

    def _is_whole(self) -> bool:
        return self.backup.phase != "error"

    def _min_age(self) -> timedelta:
        return parse_long_duration(self.retention.min_age)

    def _is_too_old(self) -> bool:
        oldest = self.retention.max_age
        return oldest is not None and self.now - _time(self.backup) > parse_long_duration(oldest)

    def _volume(self) -> list[BackupRecord]:
        own = self.backup
        return [b for b in self.backups if (b.namespace, b.volume_id) == (own.namespace, own.volume_id)]

    def _group(self) -> list[BackupRecord]:
        own = self.backup
        return [
            b
            for b in self._volume()
            if _is_judged(b)
            and b.phase != "error"
            and (b.store_name, b.container) == (own.store_name, own.container)
            and _time(b) - self.now <= FIVE_MINUTES
        ]

    def _fulfills_a_rule(self, group: Sequence[BackupRecord]) -> bool:
        counts = {name: getattr(self.retention, f"keep_{name}") for name in ("last", *FORMATS)}
        if self.retention.keep_within is not None:
            newest = max(_time(b) for b in group)
            if newest - _time(self.backup) <= parse_long_duration(self.retention.keep_within):
                return True
        elif not any(counts.values()):
            return True
        return any(count and self._is_among(count, name, group) for name, count in counts.items())

    def _is_among(self, count: int, name: str, group: Sequence[BackupRecord]) -> bool:
        """Return whether one rule keeps the backup."""
        own = _period(name, self.backup, self.zone)
        is_newest_of_it = not any(_is_newer(b, self.backup) for b in group if _period(name, b, self.zone) == own)
        newer = {_period(name, b, self.zone) for b in group if _is_newer(b, self.backup)} - {own}
        is_oldest = not any(_is_newer(self.backup, b) for b in group)
        all_periods = {_period(name, b, self.zone) for b in group}
        return (is_newest_of_it and len(newer) < count) or (is_oldest and len(all_periods) < count)


def _is_gone(
    retention: Retention,
    backup: BackupRecord,
    fleet: Sequence[BackupRecord],
    context: RetentionContext,
    now: datetime,
) -> bool:
    has_lost_one = any(b.is_forgotten and not b.volume_id and b.namespace == backup.namespace for b in fleet)
    volume = [b for b in fleet if (b.namespace, b.volume_id) == (backup.namespace, backup.volume_id)]
    if retention.gone.after is None or context.volumes is None or not backup.volume_id:
        return False
    newest = max(max(_time(b), b.created) for b in volume)
    is_missing = (backup.namespace, backup.volume_id) not in context.volumes and not has_lost_one
    return is_missing and now - newest > parse_long_duration(retention.gone.after)


def _is_last(backup: BackupRecord, group: Sequence[BackupRecord], context: RetentionContext) -> bool:
    whole = _is_newest(backup, group)
    verified = [b for b in group if b.backup_id in context.verified_at]
    return whole or _is_last_intact(backup, group) or (backup in verified and _is_newest(backup, verified))


def _is_last_intact(backup: BackupRecord, group: Sequence[BackupRecord]) -> bool:
    """Return whether a backup is the newest one without one of three faults, or without all of them."""
    without_gaps = [b for b in group if not b.lacks_files]
    restorable = [b for b in group if b.phase != "error_restoring"]
    sound = [b for b in group if not b.is_damaged]
    groups = (without_gaps, restorable, sound, [b for b in without_gaps if b in restorable and b in sound])
    return any(_is_newest(backup, each) for each in groups)


def _alarms(backup: BackupRecord, fleet: Sequence[BackupRecord], now: datetime) -> list[BackupRecord]:
    """Return the suspicious backups of the volume that follow no suspicious one of the same schedule and container."""
    volume = [
        b
        for b in fleet
        if (b.namespace, b.volume_id) == (backup.namespace, backup.volume_id)
        and (b.phase in WHOLE or b.is_suspicious)
        and _time(b) - now <= FIVE_MINUTES
    ]
    return [b for b in volume if b.is_suspicious and not _follows_another(b, volume)]


def _unknown(backup: BackupRecord, fleet: Sequence[BackupRecord], now: datetime) -> bool:
    """Return whether a newer backup of the volume could not be compared yet."""
    return any(
        b.has_unknown_alarm and (b.phase in WHOLE or b.is_suspicious) and _is_newer(b, backup)
        for b in fleet
        if (b.namespace, b.volume_id) == (backup.namespace, backup.volume_id) and _time(b) - now <= FIVE_MINUTES
    )


def _follows_another(suspicious: BackupRecord, volume: Sequence[BackupRecord]) -> bool:
    older = [
        b
        for b in volume
        if _is_judged(b)
        and _is_newer(suspicious, b)
        and (b.schedule, b.store_name, b.container)
        == (suspicious.schedule, suspicious.store_name, suspicious.container)
    ]
    return any(b.is_suspicious for b in older if _is_newest(b, older))


def _is_guarded_by_alarm(backup: BackupRecord, group: Sequence[BackupRecord], alarms: Sequence[BackupRecord]) -> bool:
    """Return whether a backup is an open alarm, or the newest backup of its group before one."""
    calm = [b for b in group if not b.is_suspicious]
    before = ([b for b in calm if _is_newer(alarm, b)] or calm for alarm in alarms)
    return backup in alarms or any(_is_newest(backup, earlier) for earlier in before)


def _is_newest(backup: BackupRecord, group: Sequence[BackupRecord]) -> bool:
    return backup in group and not any(_is_newer(b, backup) for b in group)


def _is_frozen(backup: BackupRecord, alarms: Sequence[BackupRecord], now: datetime) -> bool:
    raised = [max(_time(b), b.ended or _time(b)) for b in alarms if _is_newer(b, backup)]
    return any(now - time <= timedelta(days=14) for time in raised)


def _period(name: str, backup: BackupRecord, zone: tzinfo) -> str:
    local = _time(backup).astimezone(zone)
    return backup.uid if name == "last" else local.strftime(FORMATS[name])
