"""Arithmetic of ranges, and the test for zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cinderblock.format.entries import Extent

ZERO_BLOCK = 1 << 20
"""Bytes compared at once with zeros. Measured with 256 KiB to 16 MiB: all the same, 1 MiB stays in the L2 cache."""

_ZEROS = bytearray(ZERO_BLOCK)


class DataRange(NamedTuple):
    """A run of bytes: ``length`` bytes from ``offset``."""

    offset: int
    length: int


def holes(extents: Iterable[Extent], start: int, end: int) -> Iterator[DataRange]:
    """Ranges between two offsets that no extent covers, in order: they read as zeros.

    Of an entry whose extents come in several parts, ``start`` of a part is where the part before it ended, and ``end``
    is the size only of the last one.
    """
    position = start
    for extent in extents:
        if extent.offset > position:
            yield DataRange(position, extent.offset - position)
        position = max(position, extent.offset + extent.length)
    if position < end:
        yield DataRange(position, end - position)


def is_zero(view: memoryview) -> bool:
    """Whether all bytes of a contiguous view of bytes are zero; true of an empty one.

    A bytearray compares itself with any buffer by memcmp (a memoryview would go byte by byte), and memcmp ends at the
    first difference: data is told from zeros in less than a microsecond.
    """
    for start in range(0, len(view), ZERO_BLOCK):
        part = view[start : start + ZERO_BLOCK]
        zeros = _ZEROS if len(part) == ZERO_BLOCK else _ZEROS[: len(part)]
        if zeros != part:
            return False
    return True
