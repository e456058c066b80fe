"""The annotation of the encryption Secret that names keys which only open what they have sealed already."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cinderblock.errors import InvalidInput

READ_ONLY_KEYS_ANNOTATION: Final = "cinderblock.io/read-only-keys"
"""On an encryption Secret: key ids, each with the time after which it must not have sealed anything."""


def parse_read_only_keys(text: str, holder: str) -> dict[str, datetime]:
    """Read ``ID=TIME,ID=TIME``, where a TIME is that of RFC 3339.

    Args:
        text: the annotation's value; an empty one names no key.
        holder: what messages call the place of the text.

    Returns the instant of each key, with time zone. Raises InvalidInput naming what is malformed.
    """
    marks: dict[str, datetime] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key_id, _, instant = part.partition("=")
        mark = _parse_instant(instant)
        if not key_id or mark is None:
            raise InvalidInput(
                f"Cannot read {holder}: {part[:80]!r} is no read-only key. Write it as ID=TIME, for example"
                " 2025=2026-01-31T12:00:00Z, and separate several by commas."
            )
        if key_id in marks:
            raise InvalidInput(f"Cannot read {holder}: it names key id {key_id!r} twice. Name it once.")
        marks[key_id] = mark
    return marks


def _parse_instant(text: str) -> datetime | None:
    """Return the instant in UTC; None if the text names none, has no time zone, or lies outside the years of UTC."""
    try:
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo is not None and "T" in text else None
    except (ValueError, OverflowError):
        return None
