"""Durations as Kubernetes users write them: ``90s``, ``2m``, ``1h30m`` (Go: time.ParseDuration, whole units only)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

_PATTERN: Final = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"

Duration = Annotated[str, Field(min_length=2, max_length=24, pattern=_PATTERN)]
"""Hours, minutes and seconds, each at most once, in this order."""


def to_timedelta(text: str) -> timedelta:
    """Return the duration that ``text`` names. Raises ValueError if it names none."""
    found = re.fullmatch(_PATTERN, text)
    if found is None or not text:
        raise ValueError(f"{text!r} is no duration: write it as 90s, 2m or 1h30m")
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
