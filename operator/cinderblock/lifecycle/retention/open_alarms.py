"""Open alarms of a volume: the freeze, and the backups that stay until a person has accepted the alarms.

An alarm says something about the volume, not about the schedule whose backup raised it. So the alarms of all
schedules count, and those of a person's backups, in any store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cinderblock.api.utc import utc
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import data_time, order
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE

FREEZE = timedelta(days=14)
"""Time for which a suspicious backup keeps what was there before it, unless a person accepts it earlier."""

_Order = tuple[datetime, datetime, str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """An open alarm.

    Attributes:
        uid: UID of the backup that shows it: the one with which it began, or the one that keeps it since then.
        order: the place of the suspicious backup among all backups of the volume.
        raised: when it was raised.
    """

    uid: str
    order: _Order
    raised: datetime


@dataclass(frozen=True, slots=True)
class OpenAlarms:
    """The open alarms of one volume.

    Attributes:
        begun: the alarms, each of which a backup began that is the first of a series of suspicious ones, in any order.
        frozen_before: the order of the newest of them that still freezes; None: none does.
    """

    begun: tuple[Alarm, ...] = ()
    frozen_before: _Order | None = None

    def freezes(self, record: BackupRecord) -> bool:
        """Return whether a backup must not expire, because it is older than an alarm that freezes."""
        return self.frozen_before is not None and order(record) < self.frozen_before

    def uids(self) -> frozenset[str]:
        """Return the UIDs of the backups that show the alarms."""
        return frozenset(alarm.uid for alarm in self.begun)

    def uids_before(self, present: Sequence[BackupRecord]) -> frozenset[str]:
        """Return the UIDs of the newest unsuspicious backup before each alarm, in one group.

        Later ones look normal even if data was encrypted once. If none is older, the newest unsuspicious one stays.

        Args:
            present: the group, from new to old.
        """
        calm = [record for record in reversed(present) if not record.is_suspicious]
        if not calm:
            return frozenset()
        times = [order(record) for record in calm]
        older = (bisect_left(times, alarm.order) for alarm in self.begun)
        return frozenset(calm[count - 1 if count else -1].uid for count in older)


def open_alarms(volume: Sequence[BackupRecord], outside: Collection[str], now: datetime) -> OpenAlarms:
    """Return the open alarms of a volume.

    A series begins with a suspicious backup whose predecessor is not suspicious. It freezes for 14 days from its
    beginning, even if later backups look normal: data that was encrypted once does not change much afterwards. A backup
    that could not be compared yet freezes until it is compared, or accepted.

    When a suspicious backup is deleted, another backup of the volume keeps its alarm, which counts as before.

    Args:
        volume: the backups of the volume, those of all schedules and of persons.
        outside: UIDs of those that retention does not judge, because they are being deleted, for example. They can
            begin a series, but not continue one: the next backup takes their place.
        now: the instant of the plan.
    """
    begun = [alarm for record in volume for alarm in _kept(record, now)]
    unknown = [order(record) for record in volume if record.has_unknown_alarm]
    for series in _sequences(volume):
        is_continued = False
        for record in series:
            if record.is_suspicious and not is_continued:
                begun.append(Alarm(record.uid, order(record), _raised(record)))
            if record.uid not in outside:
                is_continued = record.is_suspicious
    freezing = [alarm.order for alarm in begun if now - alarm.raised <= FREEZE]
    return OpenAlarms(tuple(begun), max((*freezing, *unknown), default=None))


def _kept(record: BackupRecord, now: datetime) -> list[Alarm]:
    """Return the alarms of deleted backups that a backup keeps. Those from the future do not count yet."""
    return [
        Alarm(record.uid, (utc(kept.data_time), utc(kept.data_time), kept.backup_id), utc(kept.raised_at))
        for kept in record.kept_alarms
        if utc(kept.data_time) <= now + CLOCK_TOLERANCE
    ]


def has_alarm(record: BackupRecord) -> bool:
    """Return whether a backup shows an alarm, may have one, or keeps that of a deleted backup."""
    return record.is_suspicious or record.has_unknown_alarm or bool(record.kept_alarms)


def relevant_to_others(records: Sequence[BackupRecord]) -> list[BackupRecord]:
    """Return those backups that matter to backups of another schedule: usually hardly any.

    Unfinished ones need their parents. The others matter only if there are alarms among them.
    """
    raised = {(record.namespace, record.volume_id) for record in records if has_alarm(record)}
    return [
        record
        for record in records
        if (record.namespace, record.volume_id) in raised or (record.parent_id and not record.has_ended)
    ]


def _sequences(volume: Iterable[BackupRecord]) -> list[list[BackupRecord]]:
    """Return the backups that were compared with each other: of one schedule in one container, from old to new."""
    found: dict[tuple[str, str, str], list[BackupRecord]] = defaultdict(list)
    for record in volume:
        found[record.schedule, record.store_name, record.container].append(record)
    return [sorted(records, key=order) for records in found.values()]


def _raised(record: BackupRecord) -> datetime:
    """Return when the alarm was raised: the backup may have waited, or taken days."""
    return max(data_time(record), utc(record.ended)) if record.ended is not None else data_time(record)
