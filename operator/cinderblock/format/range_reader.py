"""The interface by which the format reads ranges of stored objects."""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.errors import IntegrityError

Buffer = bytes | bytearray | memoryview
"""Bytes in memory."""

RangeReader = Callable[[int, int], bytes]
"""``read(start, length)`` of one object. A negative start counts from the end. Fewer bytes are returned if the object
ends earlier, never more. Raises what the store raises; NotFound for a missing object."""


def read_exactly(read: RangeReader, start: int, length: int, label: str) -> bytes:
    """``length`` bytes from ``start``. Raises IntegrityError naming ``label`` if the object ends earlier."""
    data = read(start, length)
    if len(data) != length:
        raise IntegrityError(f"{label}: cut short, {length} bytes from {start} are not there")
    return data
