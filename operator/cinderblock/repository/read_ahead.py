"""Reading ahead in packs: neighbours that are wanted one after the other come in one request.

Small files are restored in windows, and a window wants a few hundred kilobytes of a pack; the next one wants what lies
behind it. Without reading ahead, a tree took 1000 requests for each GiB that is stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from cinderblock.errors import IntegrityError

AHEAD_BYTES = 8 << 20
"""One request reads at most about this much ahead."""
NEAR_BYTES = 128 << 10
"""What begins so far behind the range before it at most, goes on with it."""
KEPT = 4
"""Ranges that are kept: one for each worker. With AHEAD_BYTES, 32 MiB at most."""

Read = Callable[[int, int], bytes]
"""Reads bytes of one pack: where from, how many. Fewer come back where the pack ends earlier."""


@dataclass(slots=True)
class _Range:
    start: int
    end: int
    data: Future[memoryview] = field(default_factory=Future)


class ReadAhead:
    """Ranges of packs that were read, or are being read by another thread, a few of them at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: OrderedDict[tuple[str, int], _Range] = OrderedDict()
        self._ends: dict[str, int] = {}

    def get(self, pack: str, start: int, end: int, size: int, read: Read) -> memoryview:
        """The bytes of a pack between two offsets.

        A small range that goes on where the one before it was is read with what follows it.

        Args:
            pack: key of the pack.
            start, end: what is wanted.
            size: bytes of the pack.
            read: reads from it.

        Raises IntegrityError if the pack ends earlier, and what ``read`` raises.
        """
        found, is_mine = self._range(pack, start, end, size)
        if is_mine:
            try:
                found.data.set_result(memoryview(read(found.start, found.end - found.start)))
            except BaseException as error:
                self._forget(pack, found)
                found.data.set_exception(error)
                raise
        data = found.data.result()[start - found.start : end - found.start]
        if len(data) != end - start:
            raise IntegrityError(f"{pack}: cut short, {end - start} bytes from {start} are not there")
        return data

    def _range(self, pack: str, start: int, end: int, size: int) -> tuple[_Range, bool]:
        """A range that holds what is wanted, and whether the caller has to read it."""
        with self._lock:
            for (name, _), known in self._ranges.items():
                if name == pack and known.start <= start and end <= known.end:
                    return known, False
            before = self._ends.get(pack)
            is_next = before is not None and -AHEAD_BYTES <= start - before <= NEAR_BYTES
            reads_ahead = is_next and end - start <= AHEAD_BYTES // 2
            new = _Range(start, max(end, min(size, start + AHEAD_BYTES)) if reads_ahead else end)
            self._ends[pack] = new.end
            if new.end > end:
                self._ranges[pack, start] = new
                while len(self._ranges) > KEPT:
                    self._ranges.popitem(last=False)
            return new, True

    def _forget(self, pack: str, failed: _Range) -> None:
        with self._lock:
            self._ranges.pop((pack, failed.start), None)
