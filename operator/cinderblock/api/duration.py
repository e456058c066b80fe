"""Durations in the notation of Kubernetes, such as ``90s``, ``2m`` or ``1h30m`` (Go: time.ParseDuration)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from cinderblock.api.meta import REMEDY

_PATTERN: Final = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"

DURATION_REMEDY: Final = {REMEDY: "write a duration as 90s, 2m or 1h30m"}
Duration = Annotated[str, Field(min_length=2, max_length=24, pattern=_PATTERN, json_schema_extra=DURATION_REMEDY)]
"""Hours, minutes and seconds, each at most once and in this order. Fractions are not supported."""

_LONG_PATTERN: Final = r"^([0-9]{1,5}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"

LongDuration = Annotated[
    str,
    Field(
        min_length=2,
        max_length=32,
        pattern=_LONG_PATTERN,
        json_schema_extra={REMEDY: "write a duration as 90d, 36h, 2m or 1d12h"},
    ),
]
"""A duration that may begin with days of 24 hours, such as ``90d`` or ``1d12h`` (Prometheus: durations)."""


def to_timedelta(text: str) -> timedelta:
    """Parse a duration. Raises ValueError if ``text`` is not one."""
    match = re.fullmatch(_PATTERN, text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a duration: write it as 90s, 2m or 1h30m")
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def parse_long_duration(text: str) -> timedelta:
    """Parse a duration that may begin with days of 24 hours. Raises ValueError if ``text`` is not one."""
    match = re.fullmatch(_LONG_PATTERN, text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a duration: write it as 90d, 36h, 2m or 1d12h")
    days, hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def from_timedelta(duration: timedelta) -> str:
    """Format a duration in whole seconds, rounded down, without units that are zero. A negative one is ``0s``."""
    seconds = max(0, int(duration.total_seconds()))
    units = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in units if count) or "0s"
