"""Times in Cinder's format."""

from __future__ import annotations

from datetime import UTC, datetime


def format_timestamp(time: datetime | None) -> str | None:
    """Return ``2026-11-23T09:00:57.347364``: in UTC, with microseconds and without a time zone."""
    if time is None:
        return None
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
