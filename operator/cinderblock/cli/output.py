"""Output for people: sizes, times and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def printable(text: str) -> str:
    """Escape control characters. Names in backups come from others, and must not control the terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def pluralize(count: int, noun: str) -> str:
    """Return ``1 pack`` or ``2 packs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_time(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def format_duration(seconds: float) -> str:
    """Return hours, minutes and seconds: ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with columns as wide as their longest value."""
    lines = [headings, *([printable(text) for text in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, str]) -> None:
    """Print one name and value per line. Fields without a value are omitted."""
    width = max((len(name) for name, value in fields.items() if value), default=0)
    for name, value in fields.items():
        if value:
            print(f"{name:<{width}}  {printable(value)}")


def print_json(value: Any) -> None:
    """Print a JSON document on one line, in ASCII because a path need not be UTF-8."""
    print(json.dumps(value))


def warn(text: str) -> None:
    """Print a line to standard error."""
    print(f"cinderblock: {printable(text)}", file=sys.stderr)
