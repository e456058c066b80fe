"""The times of a cron expression in a time zone, as instants in UTC.

The rules are those of Debian's cron: a time that a change of clocks leaves out comes right after the gap, and a fixed
time that it repeats comes once. ``cronsim`` knows them when it goes forward; its way back differs from its way forward
around such changes. So this module only goes forward.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
"""Names of expressions that every cron knows. Others, such as ``@reboot``, do not stand for times."""

STEPS: Final = 300
"""Times that are visited one by one, which takes 5 ms. Beyond that, the newest time is searched by halving."""
LEAD: Final = timedelta(hours=3)
"""For so long before an instant the iteration begins: in a repeated hour, the iteration depends on where it begins."""
SAMPLE: Final = 60
"""Times from which the interval is computed."""
_SAMPLE_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""Where the sample begins. It is fixed, so that a schedule does not become invalid as time goes by."""
_SAMPLE_SPAN: Final = timedelta(days=3 * 366)

_TOKEN: Final = re.compile(
    r"\*|[0-9]{1,2}|(?i:sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)
_EXAMPLE: Final = 'Write five fields: minute, hour, day of month, month, day of week, as in "30 2 * * *".'


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone.

    Attributes:
        expression: the five fields.
        zone: name of the time zone.
    """

    expression: str
    zone: str = "Etc/UTC"

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the times after an instant, in order. It ends only if there is none within 50 years."""
        previous = instant
        for found in CronSim(self.expression, (instant - LEAD).astimezone(_zone(self.zone))):
            when = found.astimezone(UTC)
            if when > previous:
                previous = when
                yield when

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time after an instant; None if there is none within 50 years."""
        return next(self.after(instant), None)

    def interval(self) -> timedelta:
        """Return the shortest time between two times, apart from changes of clocks."""
        return _interval(self.expression)


@dataclass(frozen=True, slots=True)
class PastTimes:
    """The times between two instants.

    Attributes:
        newest: the newest of them; None: there is none.
        earlier: the first of the others; None: there is none.
        count: number of the others; at least so many if `is_counted` is False.
        is_counted: whether all of them were counted.
    """

    newest: datetime | None = None
    earlier: datetime | None = None
    count: int = 0
    is_counted: bool = True


@lru_cache(maxsize=256)
def parse(expression: str, zone: str, field: str = "spec.schedule") -> Cron:
    """Return a cron expression in a time zone. The same ones are parsed again and again: at each reconciliation.

    Args:
        expression: the five fields, or a nickname.
        zone: name of the time zone.
        field: the field with the expression, for the message.

    Raises:
        InvalidInput: the expression is wrong or never comes (reason InvalidSchedule), or the database has no such zone
            (reason InvalidTimeZone).
    """
    find_zone(zone, "spec.timeZone")
    fields = NICKNAMES.get(expression.strip().lower(), expression)
    if len(fields.split()) != 5 or not fields.isascii() or not all(map(_is_field, fields.split())):
        raise _invalid(field, expression, _EXAMPLE)
    cron = Cron(" ".join(fields.split()), zone)
    try:
        first = cron.next_after(_SAMPLE_START)
    except CronSimError as error:
        raise _invalid(field, expression, f"{error}. {_EXAMPLE}") from None
    if first is None:
        raise _invalid(field, expression, "There is no such date.")
    return cron


def _is_field(text: str) -> bool:
    """Return whether a field consists of numbers, names and ``*`` only: cronsim takes further words, as in ``5L``."""
    return all(_TOKEN.fullmatch(token) for token in re.split(r"[,/-]", text))


def _invalid(field: str, expression: str, hint: str) -> InvalidInput:
    return InvalidInput(f'{field} "{expression}" is not a cron expression. {hint}', reason=Reason.INVALID_SCHEDULE)


def find_zone(name: str, field: str) -> ZoneInfo:
    """Return a time zone of the database.

    Args:
        name: its name.
        field: the field with the name, for the message.

    Raises:
        InvalidInput: the database has no such zone (reason InvalidTimeZone).
    """
    try:
        return _zone(name)
    except (KeyError, OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        message = f'{field} "{name}" is not a known time zone. Use a name such as Europe/Berlin.'
        raise InvalidInput(message, reason=Reason.INVALID_TIME_ZONE) from None


def past_times(cron: Cron, since: datetime, until: datetime) -> PastTimes:
    """Return the times after ``since`` that are not after ``until``.

    A schedule for every minute has half a million times in a year. So only the first ones are visited, and the newest
    one is searched by halving the rest.
    """
    newest: datetime | None = None
    earlier: datetime | None = None
    times = cron.after(since)
    for count in range(STEPS):
        following = next(times, None)
        if following is None or following > until:
            return PastTimes(newest, earlier, max(0, count - 1))
        newest, earlier = following, earlier or newest
    assert newest is not None
    return PastTimes(_newest_between(cron, newest, until), earlier, STEPS, is_counted=False)


def _newest_between(cron: Cron, known: datetime, until: datetime) -> datetime:
    """Return the newest time that is not after ``until``. ``known`` is one of them."""
    low, high = known, until
    while high - low > timedelta(minutes=1):
        middle = low + (high - low) / 2
        found = cron.next_after(middle)
        if found is not None and found <= until:
            low = found
        else:
            high = middle
    found = cron.next_after(low)
    return found if found is not None and found <= until else low


@lru_cache(maxsize=256)
def _interval(expression: str) -> timedelta:
    """Return the shortest distance of the times of some years in UTC, so that no change of clocks shortens it."""
    times: list[datetime] = []
    for when in Cron(expression).after(_SAMPLE_START):
        times.append(when)
        if len(times) >= SAMPLE or (when - _SAMPLE_START > _SAMPLE_SPAN and len(times) > 1):
            break
    return min((b - a for a, b in pairwise(times)), default=timedelta(days=366))


@lru_cache(maxsize=128)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
