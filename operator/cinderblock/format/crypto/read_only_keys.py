"""The annotation of the encryption Secret that names its read-only keys."""

from __future__ import annotations

from datetime import UTC, datetime

from cinderblock.errors import InvalidInput


def parse_read_only_keys(text: str, label: str) -> dict[str, datetime]:
    """Parse ``ID=TIME,ID=TIME`` with times as in RFC 3339.

    Args:
        text: the annotation's value; an empty value names no key.
        label: name of the place of the text in messages.

    Returns the instant of each key, with time zone. Raises InvalidInput naming the malformed part.
    """
    marks: dict[str, datetime] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key_id, _, instant = part.partition("=")
        mark = _parse_instant(instant)
        if not key_id or mark is None:
            raise InvalidInput(
                f"Cannot read {label}: {part[:80]!r} is not a read-only key. Write it as ID=TIME, for example"
                " 2025=2026-01-31T12:00:00Z, and separate several by commas."
            )
        if key_id in marks:
            raise InvalidInput(f"Cannot read {label}: it names key id {key_id!r} twice. Name it once.")
        marks[key_id] = mark
    return marks


def _parse_instant(text: str) -> datetime | None:
    """Return the instant in UTC; None if the text is malformed, has no time zone, or is out of range."""
    try:
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo is not None and "T" in text else None
    except (ValueError, OverflowError):
        return None
