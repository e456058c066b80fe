"""Read ahead in packs: read adjacent ranges that are needed one after the other in one request.

Small files are restored in batches. A batch needs a few hundred kilobytes of a pack, and the next one the bytes after
them. Without read-ahead, a tree took 1000 requests for each stored GiB.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from cinderblock.errors import IntegrityError

READ_AHEAD_BYTES = 8 << 20
"""Approximate limit of one request that reads ahead."""
SEQUENTIAL_GAP_BYTES = 128 << 10
"""Largest gap between two ranges that count as sequential."""
MAX_CACHED_RANGES = 4
"""Ranges that are kept, one for each worker: at most 32 MiB."""

ReadRange = Callable[[int, int], bytes]
"""Reads bytes of one pack from an offset and a length. The result is shorter if the pack ends earlier."""


@dataclass(slots=True)
class _CachedRange:
    start: int
    end: int
    data: Future[memoryview] = field(default_factory=Future)


class ReadAhead:
    """A few ranges of packs that were read, or that another thread is reading."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: OrderedDict[tuple[str, int], _CachedRange] = OrderedDict()
        self._ends: dict[str, int] = {}

    def get(self, pack: str, start: int, end: int, size: int, read: ReadRange) -> memoryview:
        """Return the bytes of a pack between two offsets.

        If a small range follows the previous one, this also reads the bytes after it.

        Args:
            pack: key of the pack.
            start, end: the offsets.
            size: bytes of the pack.
            read: reads from it.

        Raises IntegrityError if the pack ends earlier, and what ``read`` raises.
        """
        cached_range, is_mine = self._range(pack, start, end, size)
        if is_mine:
            try:
                cached_range.data.set_result(
                    memoryview(read(cached_range.start, cached_range.end - cached_range.start))
                )
            except BaseException as error:
                self._forget(pack, cached_range)
                cached_range.data.set_exception(error)
                raise
        data = cached_range.data.result()[start - cached_range.start : end - cached_range.start]
        if len(data) != end - start:
            raise IntegrityError(f"Cannot read {pack}: it is cut short, {end - start} bytes from {start} are missing.")
        return data

    def _range(self, pack: str, start: int, end: int, size: int) -> tuple[_CachedRange, bool]:
        """Return a range that holds the offsets, and whether the caller must read it."""
        with self._lock:
            for (name, _), cached in self._ranges.items():
                if name == pack and cached.start <= start and end <= cached.end:
                    return cached, False
            before = self._ends.get(pack)
            is_next = before is not None and -READ_AHEAD_BYTES <= start - before <= SEQUENTIAL_GAP_BYTES
            reads_ahead = is_next and end - start <= READ_AHEAD_BYTES // 2
            new = _CachedRange(start, max(end, min(size, start + READ_AHEAD_BYTES)) if reads_ahead else end)
            self._ends[pack] = new.end
            if new.end > end:
                self._ranges[pack, start] = new
                while len(self._ranges) > MAX_CACHED_RANGES:
                    self._ranges.popitem(last=False)
            return new, True

    def _forget(self, pack: str, failed: _CachedRange) -> None:
        with self._lock:
            self._ranges.pop((pack, failed.start), None)
