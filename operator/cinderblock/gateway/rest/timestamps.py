"""Instants as Cinder writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def format_timestamp(instant: datetime | None) -> str | None:
    """``2026-11-23T09:00:57.347364``: in UTC, with microseconds and without a time zone."""
    if instant is None:
        return None
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
