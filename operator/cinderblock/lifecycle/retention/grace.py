"""The grace: a backup is removed only if it has been announced for long enough, by rules that have not changed.

``status.expiresAt`` alone does not prove that. The mark may come from other rules, from a wrong clock, from another
cluster, or from a time before the operator paused. So the schedule records since when it applies the present rules
without a pause, and only marks with the whole grace after that time count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from hashlib import blake2b

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.retention import Retention, RetentionStatus
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE, DAY

PAUSE = timedelta(hours=3)
"""Time without a plan after which the grace begins again. A clock that jumps forward looks the same."""
RECORD_INTERVAL = timedelta(hours=1)
"""Time after which the status says again that the rules are applied. It costs one write an hour and schedule."""
REMOVAL_MARGIN = timedelta(minutes=1)
"""Delay from status.expiresAt to the removal.

The deletion is recognized as one of retention by its time, which the API server's clock tells. This is more than clocks
differ that are synchronized.
"""


@dataclass(frozen=True, slots=True)
class Grace:
    """Which marks count, and which ones are new.

    Attributes:
        rules: digest of the rules and their zone.
        since: since when they are applied without a pause.
        now: the instant of the plan.
        length: the grace.
    """

    rules: str
    since: datetime
    now: datetime
    length: timedelta

    @property
    def first_end(self) -> datetime:
        """The earliest new status.expiresAt, in whole seconds."""
        return _whole_seconds(max(self.now, self.since)) + self.length

    @property
    def horizon(self) -> datetime:
        """The latest new status.expiresAt. Removals that must wait longer are not announced yet."""
        return self.first_end + max(DAY - self.length, timedelta(0))

    def counts(self, expires_at: datetime | None) -> bool:
        """Return whether a mark gives the whole grace, and is not one that a wrong clock made for a distant time."""
        if expires_at is None:
            return False
        return self.since + self.length <= utc(expires_at) <= self.horizon + CLOCK_TOLERANCE

    def has_ended(self, expires_at: datetime) -> bool:
        """Return whether a mark that counts is due."""
        return utc(expires_at) <= self.now - REMOVAL_MARGIN

    def record(self, status: RetentionStatus, previous: RetentionStatus | None) -> RetentionStatus:
        """Return a status that also says since when the rules are applied."""
        last = previous.last_applied_time if previous is not None else None
        is_recent = last is not None and timedelta(0) <= self.now - utc(last) < RECORD_INTERVAL
        update = {
            "rules": self.rules,
            "effective_since": self.since,
            "last_applied_time": last if is_recent else self.now.replace(microsecond=0),
        }
        return status.model_copy(update=update)


def grace_of(retention: Retention, zone: tzinfo, previous: RetentionStatus | None, now: datetime) -> Grace:
    """Return the grace of a plan.

    Args:
        retention: the rules.
        zone: the zone in which they are applied.
        previous: status.retention of the schedule; None: it has none yet.
        now: the instant of the plan.
    """
    rules = _digest(retention, zone)
    return Grace(rules, _since(previous, rules, now), now, parse_long_duration(retention.grace))


def _since(previous: RetentionStatus | None, rules: str, now: datetime) -> datetime:
    """Return since when the rules are applied without a pause."""
    begin = _whole_seconds(now)
    if previous is None or previous.rules != rules:
        return begin
    if previous.effective_since is None or previous.last_applied_time is None:
        return begin
    is_continuous = -CLOCK_TOLERANCE <= now - utc(previous.last_applied_time) <= PAUSE
    return min(utc(previous.effective_since), begin) if is_continuous else begin


def _digest(retention: Retention, zone: tzinfo) -> str:
    text = f"{zone}\n{retention.model_dump_json()}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _whole_seconds(time: datetime) -> datetime:
    """Return the time in whole seconds, rounded up."""
    return time if time.microsecond == 0 else time.replace(microsecond=0) + timedelta(seconds=1)
