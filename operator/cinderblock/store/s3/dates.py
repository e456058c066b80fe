"""Read the dates in answers of a server."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from botocore.utils import parse_timestamp

MAX_DATE_CHARACTERS: Final = 64
"""Characters of the longest date. dateutil, which reads it, takes quadratic time: 16 s for 200,000 characters, in which
no deadline stops it."""


def parse_date(text: str) -> datetime:
    """Return a date in any of the forms of S3. Raises ValueError, and what `parse_timestamp` raises."""
    if len(text) > MAX_DATE_CHARACTERS:
        raise ValueError("a date is too long")
    date: datetime = parse_timestamp(text)
    return date
