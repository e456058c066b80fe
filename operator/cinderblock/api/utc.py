"""Times in UTC. Others may send them in another zone, without a zone, or at an end of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator


def utc(time: datetime) -> datetime:
    """Return a time in UTC. A time without a zone is one in UTC."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time if time.tzinfo is UTC else _converted(time)


def _converted(time: datetime) -> datetime:
    """Convert a time to UTC, except one in the first or the last hours of the calendar."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)


UtcTime = Annotated[datetime, AfterValidator(utc)]
"""A time that is converted to UTC when it is parsed, so that it can be compared and printed."""
