"""The times of a cron expression by trying every minute: slow and obvious."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def times(expression: str, zone: str, since: datetime, until: datetime) -> list[datetime]:
    """Return the times after ``since`` and not after ``until``, by the rules of Debian's cron.

    If minute or hour begins with ``*``, the expression means every such minute that really passes. Otherwise it means
    times on the wall clock: one that is left out comes right after the gap, and one that is repeated comes once.
    """
    fields = expression.split()
    local = ZoneInfo(zone)
    if fields[0].startswith("*") or fields[1].startswith("*"):
        found = {at for at in _minutes(since, until) if _matches(fields, at.astimezone(local))}
    else:
        found = {_on_the_clock(wall, local) for wall in _walls(since, until) if _matches(fields, wall)}
    return sorted(at for at in found if since < at <= until)


def _minutes(since: datetime, until: datetime) -> Iterator[datetime]:
    at = since.astimezone(UTC).replace(second=0, microsecond=0)
    while at <= until:
        yield at
        at += MINUTE


def _walls(since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield every minute that a wall clock could show, with a margin for its distance from UTC."""
    wall = (since - timedelta(days=1)).replace(tzinfo=None, second=0, microsecond=0)
    while wall <= (until + timedelta(days=1)).replace(tzinfo=None):
        yield wall
        wall += MINUTE


def _on_the_clock(wall: datetime, local: ZoneInfo) -> datetime:
    """Return the first instant at which a clock shows a time, or the first one after the gap that leaves it out."""
    while True:
        instant = wall.replace(tzinfo=local).astimezone(UTC)
        if instant.astimezone(local).replace(tzinfo=None) == wall:
            return instant
        wall += MINUTE


def _matches(fields: list[str], wall: datetime) -> bool:
    minute, hour, day, month, weekday = (_values(field, index) for index, field in enumerate(fields))
    is_day, is_weekday = wall.day in day, wall.isoweekday() in weekday or wall.isoweekday() % 7 in weekday
    both = fields[2].startswith("*") or fields[4].startswith("*")
    is_date = (is_day and is_weekday) if both else (is_day or is_weekday)
    return wall.minute in minute and wall.hour in hour and wall.month in month and is_date


def _values(field: str, index: int) -> set[int]:
    found: set[int] = set()
    low, high = _RANGES[index]
    for part in field.lower().split(","):
        term, _, step = part.partition("/")
        first, _, last = term.partition("-")
        if term == "*":
            values = range(low, high + 1)
        elif last:
            values = range(_number(first, index), _number(last, index) + 1)
        elif step:
            values = range(_number(first, index), high + 1)
        else:
            values = range(_number(first, index), _number(first, index) + 1)
        found |= set(values[:: int(step or 1)])
    return found


def _number(text: str, index: int) -> int:
    names = _MONTHS if index == 3 else _DAYS if index == 4 else ()
    return names.index(text) + (index == 3) if text in names else int(text)
