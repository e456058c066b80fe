"""What a person reads: sizes, times and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """Text as one line that does nothing to a terminal: names come from whoever made a backup."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def counted(count: int, thing: str) -> str:
    """``1 pack``, ``2 packs``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def size(count: float) -> str:
    """Bytes in units of 1024, with three digits at least: ``1.50 GiB``."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    if unit == 0:
        return f"{count:.0f} B"
    return f"{count:.{2 if count < 10 else 1 if count < 100 else 0}f} {_UNITS[unit]}"


def moment(time: datetime) -> str:
    """A time in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they must be."""
    lines = [headings, *([printable(text) for text in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, str]) -> None:
    """Names and values, one to a line; those without a value are left out."""
    width = max((len(name) for name, value in fields.items() if value), default=0)
    for name, value in fields.items():
        if value:
            print(f"{name:<{width}}  {printable(value)}")


def print_json(value: Any) -> None:
    """One JSON document on one line, in ASCII: a path need not be text."""
    print(json.dumps(value))


def warn(text: str) -> None:
    """A line that is not the result."""
    print(f"cinderblock: {printable(text)}", file=sys.stderr)
