"""An index of stored chunks by digest, in bounded memory."""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Callable, Iterable

from cinderblock.format.entries import Chunk

INDEXED_CHUNKS = 1 << 19
"""Most chunks in the index: 512 GiB of data in chunks of 1 MiB take 36 MiB of memory. Beyond the limit, equal chunks
may be stored twice. An incremental backup still reuses data that has not moved, because it compares by position."""

_RECORD = struct.Struct("<32sIIIIIB")
_EMPTY = 0


class ChunkIndex:
    """A hash table from digest to chunk: open addressing over flat arrays, 61 bytes per chunk and 4 to 8 per slot.

    A dict of named tuples would take about 450 bytes per chunk. Chunks cannot be removed. Any thread may look up chunks
    while one thread adds some.
    """

    def __init__(self, limit: int = INDEXED_CHUNKS, load_initial: Callable[[], Iterable[Chunk]] | None = None) -> None:
        """Create an index whose first lookup loads the chunks of ``load_initial``."""
        self._limit = limit
        self._load_initial = load_initial
        self._loading = threading.Lock()
        self._records = bytearray()
        self._count = 0
        self._slots = array("I", bytes(4 << 10))

    def __len__(self) -> int:
        return self._count

    def find(self, digest: bytes) -> Chunk | None:
        """Return the chunk with this digest, or None. The first call raises the errors of ``load_initial``."""
        if self._load_initial is not None:
            self._load()
        return self._look_up(digest)

    def _look_up(self, digest: bytes) -> Chunk | None:
        slots = self._slots
        mask = len(slots) - 1
        slot = int.from_bytes(digest[:8], "little") & mask
        while (number := slots[slot]) != _EMPTY:
            start = (number - 1) * _RECORD.size
            if self._records[start : start + 32] == digest:
                return self._chunk(start)
            slot = (slot + 1) & mask
        return None

    def add(self, chunk: Chunk) -> None:
        """Add a chunk, unless its digest is present or the limit is reached."""
        if self._load_initial is not None:
            self._load()
        self._add(chunk)

    def _load(self) -> None:
        """Load the initial chunks. Other threads that look up a chunk wait for this."""
        with self._loading:
            for chunk in self._load_initial() if self._load_initial is not None else ():
                self._add(chunk)
            self._load_initial = None

    def _add(self, chunk: Chunk) -> None:
        if self._count >= self._limit or self._look_up(chunk.digest) is not None:
            return
        self._records += _RECORD.pack(
            chunk.digest, chunk.pack, chunk.number, chunk.offset, chunk.stored, chunk.size, chunk.encoding
        )
        self._count += 1
        if self._count * 2 > len(self._slots):
            self._grow()
        else:
            self._insert(self._slots, chunk.digest, self._count)

    def _chunk(self, start: int) -> Chunk:
        digest, pack, number, offset, stored, size, encoding = _RECORD.unpack_from(self._records, start)
        return Chunk(pack, number, offset, stored, size, encoding, digest)

    def _grow(self) -> None:
        """Double the slots. The new table replaces the old one only when it is complete, so no lookup misses."""
        slots = array("I", bytes(len(self._slots) * 2 * self._slots.itemsize))
        for number in range(1, self._count + 1):
            start = (number - 1) * _RECORD.size
            self._insert(slots, self._records[start : start + 32], number)
        self._slots = slots

    @staticmethod
    def _insert(slots: array[int], digest: bytes | bytearray, number: int) -> None:
        mask = len(slots) - 1
        slot = int.from_bytes(digest[:8], "little") & mask
        while slots[slot] != _EMPTY:
            slot = (slot + 1) & mask
        slots[slot] = number
