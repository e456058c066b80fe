"""Which chunks are stored already: found by digest, in bounded memory."""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Callable, Iterable

from cinderblock.format.entries import Chunk

INDEXED_CHUNKS = 1 << 19
"""Chunks that are remembered at most: 512 GiB of data in chunks of 1 MiB, in 36 MiB of memory. Beyond that, equal
chunks may be stored twice; an incremental still takes over what has not moved, since it compares place by place."""

_RECORD = struct.Struct("<32sIIIIIB")
_EMPTY = 0


class ChunkIndex:
    """A hash table from digest to chunk: open addressing over flat arrays, 61 bytes per chunk and 4 to 8 per slot.

    A dict of named tuples would take about 450 bytes per chunk. Chunks cannot be removed. Looking up is safe from any
    thread while one thread adds.
    """

    def __init__(self, limit: int = INDEXED_CHUNKS, first: Callable[[], Iterable[Chunk]] | None = None) -> None:
        """Begin with what ``first`` gives. It is asked when a chunk is looked for, which may be never."""
        self._limit = limit
        self._first = first
        self._loading = threading.Lock()
        self._records = bytearray()
        self._count = 0
        self._slots = array("I", bytes(4 << 10))

    def __len__(self) -> int:
        return self._count

    def find(self, digest: bytes) -> Chunk | None:
        """The chunk with this digest, if it is known. Raises what asking for the first chunks raises."""
        if self._first is not None:
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
        """Remember a chunk, unless one of its digest is known or the limit is reached."""
        if self._first is not None:
            self._load()
        self._add(chunk)

    def _load(self) -> None:
        """Ask for the first chunks. Other threads that look for one meanwhile wait."""
        with self._loading:
            for chunk in self._first() if self._first is not None else ():
                self._add(chunk)
            self._first = None

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
            self._enter(self._slots, chunk.digest, self._count)

    def _chunk(self, start: int) -> Chunk:
        digest, pack, number, offset, stored, size, encoding = _RECORD.unpack_from(self._records, start)
        return Chunk(pack, number, offset, stored, size, encoding, digest)

    def _grow(self) -> None:
        """Twice the slots. The new table takes the old one's place only when it is complete."""
        slots = array("I", bytes(len(self._slots) * 2 * self._slots.itemsize))
        for number in range(1, self._count + 1):
            start = (number - 1) * _RECORD.size
            self._enter(slots, self._records[start : start + 32], number)
        self._slots = slots

    @staticmethod
    def _enter(slots: array[int], digest: bytes | bytearray, number: int) -> None:
        mask = len(slots) - 1
        slot = int.from_bytes(digest[:8], "little") & mask
        while slots[slot] != _EMPTY:
            slot = (slot + 1) & mask
        slots[slot] = number
