"""The brake: how many backups of one volume are removed in 24 hours.

It works on appointments. Each expiring backup gets a status.expiresAt such that any 24 hours contain at most as many as
the limit. So a person sees the real time, and nothing must be remembered about backups that are gone already. With a
grace of 24 hours or more the limit is exact. A shorter one can let through twice the limit in one day, because the
first ones are gone before the others are announced.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import order
from cinderblock.lifecycle.retention.grace import Grace
from cinderblock.lifecycle.retention.times import DAY
from cinderblock.lifecycle.retention.verdict import Step

MIN_LIMIT = 10
"""The smallest default limit."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """When an expiring backup goes.

    Attributes:
        step: what happens now.
        expires_at: its status.expiresAt after the step; None: it has none.
        is_braked: whether it waits because of the limit.
    """

    step: Step
    expires_at: datetime | None
    is_braked: bool = False


def limit_of(retention: Retention, volume: Sequence[BackupRecord], now: datetime) -> int | None:
    """Return how many backups of a volume may go in 24 hours; None: any number.

    Args:
        retention: the rules.
        volume: all backups of the volume that the schedule made. Others can be made by anybody, to raise the limit.
        now: the instant of the plan.
    """
    if retention.max_per_day is not None:
        return retention.max_per_day or None
    made = sum(1 for record in volume if record.is_complete and now - utc(record.created) < DAY)
    return max(MIN_LIMIT, 2 * made)


def appoint(
    expiring: Sequence[BackupRecord], going: Sequence[BackupRecord], limit: int | None, grace: Grace
) -> dict[str, Appointment]:
    """Return the appointment of each expiring backup of one volume, by UID.

    Args:
        expiring: the backups that are not kept.
        going: those that are being deleted already.
        limit: how many may go in 24 hours; None: any number.
        grace: which marks count.
    """
    calendar = _Calendar(limit, grace)
    for record in going:
        if record.expires_at is not None and utc(record.expires_at) <= grace.horizon:
            calendar.add(utc(record.expires_at))
    marked = sorted(
        ((utc(r.expires_at), r) for r in expiring if r.expires_at is not None and grace.counts(r.expires_at)),
        key=lambda pair: (pair[0], order(pair[1])),
    )
    appointments = {}
    for expires_at, record in marked:
        if not grace.has_ended(expires_at):
            calendar.add(expires_at)
            appointments[record.uid] = Appointment(Step.EXPIRING, expires_at)
    for expires_at, record in marked:
        if grace.has_ended(expires_at):
            appointments[record.uid] = calendar.remove(expires_at)
    for record in sorted(expiring, key=order):
        if record.uid not in appointments:
            appointments[record.uid] = calendar.announce(record.expires_at is not None)
    return appointments


class _Calendar:
    """The times at which backups of one volume go, in order."""

    def __init__(self, limit: int | None, grace: Grace) -> None:
        self._limit = limit
        self._grace = grace
        self._times: list[datetime] = []

    def add(self, time: datetime) -> None:
        insort(self._times, time)

    def remove(self, expires_at: datetime) -> Appointment:
        """Return the appointment of a backup that is due: it goes now, or a day later."""
        now = self._grace.now
        recent = bisect_right(self._times, now) - bisect_right(self._times, now - DAY)
        if self._limit is None or recent < self._limit:
            self.add(now)
            return Appointment(Step.REMOVE, expires_at)
        return self._later(now, is_marked=True)

    def announce(self, is_marked: bool) -> Appointment:
        """Return the appointment of a backup without a mark that counts.

        Args:
            is_marked: whether it has one that does not count.
        """
        return self._later(self._grace.first_end, is_marked=is_marked)

    def _later(self, earliest: datetime, *, is_marked: bool) -> Appointment:
        """Return the first appointment from ``earliest`` on."""
        time = earliest
        if self._limit is not None and len(self._times) >= self._limit:
            time = max(earliest, self._times[-self._limit] + DAY)
        if time > self._grace.horizon:
            return Appointment(Step.UNMARK if is_marked else Step.KEEP, None, is_braked=True)
        self.add(time)
        return Appointment(Step.MARK, time, is_braked=time > earliest)
