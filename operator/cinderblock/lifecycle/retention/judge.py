"""The order of judgement: whether each backup is kept, and by what. The first answer wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import data_time, order
from cinderblock.lifecycle.retention import keep_rules
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.open_alarms import OpenAlarms, has_alarm, open_alarms
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE
from cinderblock.lifecycle.retention.verdict import Judgement

Volume = tuple[str, str]
"""Namespace and UID of a claim."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A backup with its judgement.

    Attributes:
        backup: the backup.
        judgement: the first answer.
        rules: the keep rules that it fulfills.
        witness: another complete backup of its group that is kept; None: there is none.
    """

    backup: BackupRecord
    judgement: Judgement
    rules: tuple[str, ...] = ()
    witness: BackupRecord | None = None


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules with their durations parsed, and what is the same for all backups."""

    retention: Retention
    zone: tzinfo
    context: RetentionContext
    now: datetime
    used_ids: frozenset[str]
    gone: frozenset[Volume]
    min_age: timedelta
    max_age: timedelta | None
    has_keep_rules: bool
    alarms: Mapping[Volume, OpenAlarms]

    def is_future(self, record: BackupRecord) -> bool:
        return data_time(record) > self.now + CLOCK_TOLERANCE

    def is_in_use(self, record: BackupRecord) -> bool:
        return record.phase is BackupPhase.RESTORING or record.backup_id in self.used_ids

    def is_locked(self, record: BackupRecord) -> bool:
        return record.locked_until is not None and utc(record.locked_until) > self.now

    def alarms_of(self, record: BackupRecord) -> OpenAlarms:
        return self.alarms.get(volume_of(record), OpenAlarms())

    def age(self, record: BackupRecord) -> timedelta:
        return self.now - data_time(record)


@dataclass(frozen=True, slots=True)
class _Guards:
    """The backups that a group must keep, whatever the rules say.

    Attributes:
        whole: its newest complete backup.
        intact: its newest backups without known faults: see `_intact`.
        unalarmed: UIDs of its newest unsuspicious backup before each open alarm of the volume.
        alarms: UIDs of the backups that show the open alarms, so that these are not forgotten.
        verified: its newest verified backup.
    """

    whole: BackupRecord | None = None
    intact: tuple[BackupRecord, ...] = ()
    unalarmed: frozenset[str] = frozenset()
    alarms: frozenset[str] = frozenset()
    verified: BackupRecord | None = None

    @property
    def witness(self) -> BackupRecord | None:
        """The best of them, without which no other one may go."""
        return self.intact[0] if self.intact else self.whole


def judge(
    retention: Retention, zone: tzinfo, backups: Sequence[BackupRecord], context: RetentionContext, now: datetime
) -> list[Judged]:
    """Return a judgement for each backup, in the order of namespace and volume, from new to old.

    A backup that is given twice, as a list does that began again, counts once.
    """
    ordered = sorted({record.uid: record for record in backups}.values(), key=order, reverse=True)
    outside = {record.uid: outer for record in ordered if (outer := _outside(record, context)) is not None}
    if any(utc(record.created) > now + CLOCK_TOLERANCE for record in ordered):
        judged = [Judged(record, outside.get(record.uid, Judgement.CLOCK_BEHIND)) for record in ordered]
    else:
        rules = _rules(retention, zone, ordered, context, now)
        judged = [Judged(record, outside[record.uid]) for record in ordered if record.uid in outside]
        for group in _groups(record for record in ordered if record.uid not in outside and record.is_complete):
            judged += _judge_group(rules, group)
        judged += _judge_failed(rules, [r for r in ordered if r.uid not in outside and not r.is_complete])
    judged.sort(key=lambda item: order(item.backup), reverse=True)
    return sorted(judged, key=lambda item: (item.backup.namespace, item.backup.volume_name, item.backup.volume_id))


def volume_of(record: BackupRecord) -> Volume:
    """Return the volume of a backup."""
    return record.namespace, record.volume_id


def has_fault(record: BackupRecord) -> bool:
    """Return whether anything is known that makes a complete backup worse than another one."""
    return any(has_it(record) for has_it in _FAULTS)


def _outside(record: BackupRecord, context: RetentionContext) -> Judgement | None:
    """Return why retention does not judge a backup at all; None: it does."""
    if record.is_being_deleted or record.phase in (BackupPhase.DELETING, BackupPhase.ERROR_DELETING):
        return Judgement.LOCKED if record.is_locked else Judgement.DELETING
    if record.is_imported:
        return Judgement.IMPORTED
    if record.keeps_data:
        return Judgement.RETAINED
    if (record.namespace, record.store_name) in context.read_only:
        return Judgement.READ_ONLY
    if not record.has_ended:
        return Judgement.UNFINISHED
    return Judgement.FORGOTTEN if record.is_forgotten else None


def _rules(
    retention: Retention, zone: tzinfo, ordered: Sequence[BackupRecord], context: RetentionContext, now: datetime
) -> _Rules:
    parents = {record.parent_id for record in ordered if not record.has_ended and not record.is_being_deleted}
    return _Rules(
        retention=retention,
        zone=zone,
        context=context,
        now=now,
        used_ids=(context.used_ids | parents) - {""},
        gone=_gone(retention, ordered, context, now),
        min_age=parse_long_duration(retention.min_age),
        max_age=parse_long_duration(retention.max_age) if retention.max_age is not None else None,
        has_keep_rules=keep_rules.exist(retention),
        alarms=_alarms(ordered, context, now),
    )


def _alarms(ordered: Sequence[BackupRecord], context: RetentionContext, now: datetime) -> dict[Volume, OpenAlarms]:
    """Return the open alarms of each volume that has any. Those of backups from the future do not count yet."""
    records = {record.uid: record for record in (*context.others, *ordered)}
    raised = {volume_of(record) for record in records.values() if has_alarm(record)}
    volumes: dict[Volume, list[BackupRecord]] = defaultdict(list)
    for record in records.values():
        is_known = record.is_complete or record.is_suspicious or bool(record.kept_alarms)
        if is_known and volume_of(record) in raised and data_time(record) <= now + CLOCK_TOLERANCE:
            volumes[volume_of(record)].append(record)
    return {
        volume: open_alarms(found, {record.uid for record in found if _outside(record, context) is not None}, now)
        for volume, found in volumes.items()
    }


def _gone(
    retention: Retention, ordered: Iterable[BackupRecord], context: RetentionContext, now: datetime
) -> frozenset[Volume]:
    """Return the volumes that no longer exist, and whose last backup is older than ``gone.after``."""
    if retention.gone.after is None or context.volumes is None:
        return frozenset()
    after = parse_long_duration(retention.gone.after)
    newest: dict[Volume, datetime] = {}
    for record in ordered:
        volume = volume_of(record)
        newest[volume] = max(newest.get(volume, data_time(record)), data_time(record))
    # One of these may be the last backup of any volume.
    unknown = {record.namespace for record in ordered if record.is_forgotten and not record.volume_id}
    return frozenset(
        volume
        for volume, time in newest.items()
        if volume[1] and volume[0] not in unknown and volume not in context.volumes and now - time > after
    )


def _groups(records: Iterable[BackupRecord]) -> list[list[BackupRecord]]:
    """Return the groups, each from new to old.

    A claim that was made again under the same name has another UID, and is another group: its first, empty backups do
    not push out those of the claim before it. The same holds for a volume that now uses another store or container.
    """
    groups: dict[tuple[str, str, str, str], list[BackupRecord]] = defaultdict(list)
    for record in records:
        groups[*volume_of(record), record.store_name, record.container].append(record)
    return list(groups.values())


def _judge_group(rules: _Rules, group: Sequence[BackupRecord]) -> list[Judged]:
    """Judge the complete backups of one group, from new to old. Those from the future count for no rule."""
    present = [record for record in group if not rules.is_future(record)]
    guards = _guards(rules, present)
    kept = _kept(rules, present)
    judged = []
    for record in group:
        reasons = kept.get(record.uid, ())
        answer = _guarded(rules, guards, record) or _by_rules(rules, record, reasons)
        is_gone = volume_of(record) in rules.gone
        judged.append(Judged(record, answer, reasons, None if answer.keeps or is_gone else guards.witness))
    return judged


def _kept(rules: _Rules, present: Sequence[BackupRecord]) -> dict[str, tuple[str, ...]]:
    """Return the keep rules that each backup fulfills, by UID.

    Backups that are not damaged are counted without the damaged ones, which would otherwise push them out. Damaged ones
    are counted among all, as if nobody had found the damage: a part of their files may still be readable.
    """
    sound = [record for record in present if not record.is_damaged]
    among_all = _reasons(rules, present)
    return among_all if len(sound) == len(present) else among_all | _reasons(rules, sound)


def _reasons(rules: _Rules, backups: Sequence[BackupRecord]) -> dict[str, tuple[str, ...]]:
    found = keep_rules.kept(rules.retention, rules.zone, backups)
    return {record.uid: reasons for record, reasons in zip(backups, found, strict=True)}


def _guards(rules: _Rules, present: Sequence[BackupRecord]) -> _Guards:
    if not present or volume_of(present[0]) in rules.gone:
        return _Guards()
    verified = [r for r in present if r.backup_id in rules.context.verified_at]
    alarms = rules.alarms_of(present[0])
    return _Guards(
        whole=present[0],
        intact=_intact(present),
        unalarmed=alarms.uids_before(present),
        alarms=alarms.uids(),
        verified=verified[0] if verified else None,
    )


def _intact(present: Sequence[BackupRecord]) -> tuple[BackupRecord, ...]:
    """Return the newest backups without known faults. A newer one with faults replaces none of them.

    The first one has no fault at all. The others are the newest ones without one of the faults. Any may be missing.
    """
    found = (
        next((record for record in present if not has_fault(record)), None),
        *(next((record for record in present if not has_it(record)), None) for has_it in _FAULTS),
    )
    return tuple(record for record in found if record is not None)


def _lacks_files(record: BackupRecord) -> bool:
    return record.lacks_files


def _failed_to_restore(record: BackupRecord) -> bool:
    return record.phase is BackupPhase.ERROR_RESTORING


def _is_damaged(record: BackupRecord) -> bool:
    return record.is_damaged


_FAULTS = (_lacks_files, _failed_to_restore, _is_damaged)


def _guarded(rules: _Rules, guards: _Guards, record: BackupRecord) -> Judgement | None:
    """Return the guard that keeps a complete backup, in the order of judgement. None: the rules decide.

    Args:
        rules: the rules.
        guards: what its group must keep.
        record: the backup.
    """
    answers = (
        (Judgement.HELD, record.is_held),
        (Judgement.OBJECT_LOCK, rules.is_locked(record)),
        (Judgement.IN_USE, rules.is_in_use(record)),
        (Judgement.LAST_WHOLE, record is guards.whole),
        (Judgement.LAST_INTACT, record in guards.intact),
        (Judgement.LAST_UNALARMED, record.uid in guards.unalarmed),
        (Judgement.OPEN_ALARM, record.uid in guards.alarms),
        (Judgement.LAST_VERIFIED, record is guards.verified),
        (Judgement.FUTURE, rules.is_future(record)),
        (Judgement.MIN_AGE, rules.age(record) < rules.min_age),
        (Judgement.FROZEN, rules.alarms_of(record).freezes(record)),
    )
    return next((judgement for judgement, applies in answers if applies), None)


def _by_rules(rules: _Rules, record: BackupRecord, reasons: tuple[str, ...]) -> Judgement:
    """Return the judgement of a complete backup that no guard keeps."""
    if volume_of(record) in rules.gone:
        return Judgement.GONE
    if rules.max_age is not None and rules.now - data_time(record) > rules.max_age:
        return Judgement.MAX_AGE
    if not rules.has_keep_rules:
        return Judgement.NO_RULES
    return Judgement.RULES if reasons else Judgement.EXPIRED


def _judge_failed(rules: _Rules, failed: Sequence[BackupRecord]) -> list[Judged]:
    """Judge the failed backups, from new to old. The newest of each volume are kept, and those of unfinished runs."""
    counts: dict[Volume, int] = defaultdict(int)
    judged = []
    for record in failed:
        counts[volume_of(record)] += 1
        answers = (
            (Judgement.HELD, record.is_held),
            (Judgement.IN_USE, rules.is_in_use(record)),
            (Judgement.FUTURE, rules.is_future(record)),
            (Judgement.RETRYING, record.scheduled_for in rules.context.unfinished_runs),
            (Judgement.MIN_AGE, rules.age(record) < rules.min_age),
            (Judgement.GONE, volume_of(record) in rules.gone),
            (Judgement.FAILED_LAST, counts[volume_of(record)] <= rules.retention.failed.last),
        )
        answer = next((judgement for judgement, applies in answers if applies), Judgement.FAILED)
        judged.append(Judged(record, answer))
    return judged
