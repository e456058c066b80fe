"""Arithmetic of byte ranges, and detection of zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cinderblock.format.entries import ByteRange, Extent

ZERO_BLOCK_BYTES = 1 << 20
"""Bytes of one comparison with zeros. Sizes from 256 KiB to 16 MiB measured the same; 1 MiB stays in the L2 cache."""

_ZEROS = bytearray(ZERO_BLOCK_BYTES)


def holes(extents: Iterable[Extent], start: int, end: int) -> Iterator[ByteRange]:
    """Yield the holes between two offsets: the ranges that no extent covers, in order.

    If the extents of an entry come in several parts, ``start`` of a part is the end of the part before it. Only the
    last part has the size of the entry as ``end``.
    """
    position = start
    for extent in extents:
        if extent.offset > position:
            yield ByteRange(position, extent.offset - position)
        position = max(position, extent.offset + extent.length)
    if position < end:
        yield ByteRange(position, end - position)


def is_zero(view: memoryview) -> bool:
    """Return whether all bytes of a contiguous view are zero; an empty view is zero.

    A bytearray compares itself with any buffer by memcmp, while a memoryview would compare byte by byte. memcmp stops
    at the first difference, so data is distinguished from zeros in less than a microsecond.
    """
    for start in range(0, len(view), ZERO_BLOCK_BYTES):
        part = view[start : start + ZERO_BLOCK_BYTES]
        zeros = _ZEROS if len(part) == ZERO_BLOCK_BYTES else _ZEROS[: len(part)]
        if zeros != part:
            return False
    return True


def nonzero_ranges(view: memoryview, offset: int, grain: int) -> list[tuple[int, int]]:
    """Return start and length of the parts of ``view`` that are not zero, in steps of ``grain`` bytes.

    Args:
        view: content from ``offset`` of a file or device.
        offset: aligns the steps with the file, so that equal content always gives equal ranges.
        grain: bytes of a step.
    """
    if _begins_no_step_with_zero(view, offset, grain):
        return [(0, len(view))]
    found: list[tuple[int, int]] = []
    start, position, end = -1, 0, len(view)
    while position < end:
        stop = min(end, position + grain - (offset + position) % grain)
        if not is_zero(view[position:stop]):
            start = position if start < 0 else start
        elif start >= 0:
            found.append((start, position - start))
            start = -1
        position = stop
    if start >= 0:
        found.append((start, end - start))
    return found


def _begins_no_step_with_zero(view: memoryview, offset: int, grain: int) -> bool:
    """Return whether the first bytes of all steps are not zero. Most files need no more than this one call."""
    return bool(view) and offset % grain == 0 and 0 not in bytes(view[::grain])
