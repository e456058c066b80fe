"""Detect content that differs from the parent's although the timestamps are the same.

Extents alone do not show that: a hole that was filled with zeros moves their borders, but the content stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from cinderblock.format.entries import Entry, Extent
from cinderblock.format.hashing import digest_of
from cinderblock.volume.content import SourceContent
from cinderblock.volume.ranges import is_zero


def has_same_timestamps(opened: Entry, walked: Entry) -> bool:
    """Return whether a file had the timestamps of the walk when it was opened. If not, they show its change."""
    return _timestamps(opened) == _timestamps(walked)


def differs(content: SourceContent, extents: Sequence[Extent], start: int, end: int) -> bool:
    """Read content once more, and return whether it differs from the parent's.

    Call this only for content whose extents differ: there is little of it. Raises SourceError.

    Args:
        content: the file or device.
        extents: all extents of the parent between the two offsets.
        start, end: offsets, at most a chunk apart.
    """
    buffer = memoryview(bytearray(end - start))
    if content.read_into(start, buffer) != len(buffer):
        return True
    position = 0
    for extent in extents:
        first = extent.offset - start
        last = first + extent.length
        if not is_zero(buffer[position:first]) or digest_of(buffer[first:last]) != extent.digest:
            return True
        position = last
    return not is_zero(buffer[position:])


def _timestamps(entry: Entry) -> tuple[int, int, int, int]:
    return entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode
