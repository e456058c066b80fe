"""Packs: one immutable object of many sealed chunks, with a sealed index at its end.

A pack is the frames of its chunks, the frame of its index, and a trailer of fixed size. Manifests hold everything that
a restore needs of it; the index is there for a run that resumes, and for verification.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress, count, islice, pairwise
from operator import ne
from typing import NamedTuple

from blake3 import blake3

from cinderblock.errors import IntegrityError, UnsupportedFormat
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey, object_sealer
from cinderblock.format.crypto.sealer import FORMAT_VERSION, TAG_BYTES, FrameKind, Sealer, Suite, identity
from cinderblock.format.entries import Chunk
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.range_reader import Buffer, RangeReader

PACK_BYTES = 24 << 20
"""A pack is closed when its chunks reach this size. That gives at most 43 packs, so 43 requests, per GiB stored, plus
about 15 for the backup. Several packs in flight still fit into the memory of a mover."""
CHUNKS_PER_PACK = 8192
"""A pack is closed when it holds this many chunks, which bounds its index to 330 KiB."""
MAGIC = b"CBLKPACK"

_RECORD = struct.Struct("<32sIIB")
_TRAILER = struct.Struct("<8sHBxII32s")
MAX_CHUNKS = 50 * CHUNKS_PER_PACK
"""Most chunks of a pack that a reader accepts."""
_TAIL_BYTES = 64 << 10
"""Bytes of the first read, which contains the trailer and the index of most packs."""
NOT_LOCKED = 0
"""In place of the hour when a lock ends: the pack has no lock, or nobody has recorded it."""
MAX_LOCK_HOURS = 1 << 23
"""The last hour that counts as the end of a lock, in hours since 1970: in the year 2926."""
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"([0-9a-f]{32})-([0-9]{6,10})")


class Origin(NamedTuple):
    """The backup and the attempt that made a pack."""

    backup_id: str
    attempt: str


def new_attempt() -> str:
    """Return a name for this run of a mover: 128 random bits as 32 hexadecimal digits. Sealing relies on fresh bits."""
    return os.urandom(16).hex()


def pack_name(attempt: str, number: int) -> str:
    """Return the last part of a pack's key."""
    return f"{attempt}-{number:06d}"


def parse_pack_name(name: str) -> tuple[str, int] | None:
    """Return attempt and number from a pack's name, or None if it is not the name of a pack."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def lock_hours(until: datetime) -> int:
    """Return the last full hour before an instant, in hours since 1970: no lock is recorded as longer than it is."""
    return (until - _EPOCH) // _HOUR


def lock_end(hours: int) -> datetime:
    """Return the instant of a number of hours since 1970, at most MAX_LOCK_HOURS."""
    return _EPOCH + hours * _HOUR


class _Trailer(NamedTuple):
    """The last bytes of a pack without its magic.

    Attributes:
        version, suite: of the format.
        chunks: number of chunks in the pack.
        stored: bytes of the index's frame.
        checksum: BLAKE3 of the preceding bytes of the trailer and of the index's frame.
    """

    version: int
    suite: int
    chunks: int
    stored: int
    checksum: bytes


class PackTable:
    """The packs that extents point into, numbered from 0, at 18 bytes each.

    Only one thread may add packs; any thread may read added packs.
    """

    def __init__(self) -> None:
        self.origins: list[Origin] = []
        self._origin_numbers: dict[Origin, int] = {}
        self._origin_of = array("H")
        self._number_of = array("I")
        self._size_of = array("Q")
        self._locked_until_of = array("I")

    def __len__(self) -> int:
        return len(self._origin_of)

    @classmethod
    def from_columns(
        cls, origins: Sequence[Origin], origin_of: Buffer, number_of: Buffer, size_of: Buffer
    ) -> PackTable:
        """Return a table of the columns 1 to 3 of a footer. They have equally many rows, each of a known origin."""
        table = cls()
        table.origins = list(origins)
        table._origin_numbers = {origin: number for number, origin in enumerate(origins)}
        columns = ((table._origin_of, origin_of), (table._number_of, number_of), (table._size_of, size_of))
        for column, data in columns:
            column.frombytes(data)
            if sys.byteorder == "big":
                column.byteswap()
        table._locked_until_of.frombytes(bytes(4 * len(table)))
        return table

    def copy(self) -> PackTable:
        """Return an independent table with the same packs under the same numbers."""
        table = PackTable()
        for pack in range(len(self)):
            table.add(self.origin(pack), self.number(pack), self.size(pack), self.locked_until(pack))
        return table

    def add(self, origin: Origin, number: int, size: int, locked_until: int = NOT_LOCKED) -> int:
        """Add a pack, and return its number in this table.

        Args:
            origin: the backup and the attempt that made it.
            number: its number in the attempt.
            size: its bytes.
            locked_until: the end of its lock, in hours since 1970; NOT_LOCKED: none is known.
        """
        known = self._origin_numbers.get(origin)
        if known is None:
            known = self._origin_numbers[origin] = len(self.origins)
            self.origins.append(origin)
        self._origin_of.append(known)
        self._number_of.append(number)
        self._size_of.append(size)
        self._locked_until_of.append(locked_until)
        return len(self._origin_of) - 1

    def set_size(self, pack: int, size: int) -> None:
        """Set the bytes of a pack that was added before it was complete."""
        self._size_of[pack] = size

    def origin(self, pack: int) -> Origin:
        """Return the origin of the pack."""
        return self.origins[self._origin_of[pack]]

    def origin_number(self, pack: int) -> int:
        """Return the index of the pack's origin in ``origins``."""
        return self._origin_of[pack]

    def number(self, pack: int) -> int:
        """Return the number of the pack within its attempt."""
        return self._number_of[pack]

    def name(self, pack: int) -> str:
        """Return the last part of the pack's key."""
        return pack_name(self.origin(pack).attempt, self._number_of[pack])

    def size(self, pack: int) -> int:
        """Return the bytes of the pack."""
        return self._size_of[pack]

    def locked_until(self, pack: int) -> int:
        """Return until when the store surely keeps the pack, in hours since 1970; NOT_LOCKED: nothing is known."""
        return self._locked_until_of[pack]

    def set_locked_until(self, pack: int, hours: int) -> None:
        """Set the end of the lock of a pack, in hours since 1970."""
        self._locked_until_of[pack] = hours

    @property
    def has_locks(self) -> bool:
        """Whether the end of a lock is known of any pack."""
        return any(self._locked_until_of)

    def runs(self) -> Iterator[tuple[Origin, array[int], array[int]]]:
        """Yield numbers and sizes of adjacent packs of one origin, with this origin."""
        changes = compress(count(1), map(ne, self._origin_of, islice(self._origin_of, 1, None)))
        for start, stop in pairwise((0, *changes, len(self))):
            if start < stop:
                yield self.origin(start), self._number_of[start:stop], self._size_of[start:stop]

    def extreme_sizes(self) -> tuple[int, int]:
        """Return the bytes of the smallest and of the largest pack; 0 if there are none."""
        return min(self._size_of, default=0), max(self._size_of, default=0)

    def sizes_of(self, backup_id: str) -> Iterator[int]:
        """Yield the bytes of each pack that belongs to a backup."""
        own = {number for number, origin in enumerate(self.origins) if origin.backup_id == backup_id}
        return (size for origin, size in zip(self._origin_of, self._size_of, strict=True) if origin in own)


def pack_sealer(data_key: DataKey | None, volume_id: str, backup_id: str, name: str, label: str) -> Sealer:
    """Return the sealer of one pack."""
    return object_sealer(data_key, identity("pack", volume_id, backup_id, name), label)


class PackBuilder:
    """One unfinished pack, in a buffer that is reused from pack to pack.

    Args:
        buffer: at least ``buffer_bytes(chunk_bytes)`` long.
        sealer: of this pack only.
    """

    def __init__(self, buffer: bytearray, sealer: Sealer) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._sealer = sealer
        self._records: list[bytes] = []
        self._end = 0

    @property
    def is_full(self) -> bool:
        """Whether the pack must be closed."""
        return self._end >= PACK_BYTES or len(self._records) >= CHUNKS_PER_PACK

    def add(self, pack: int, digest: bytes, size: int, encoding: Encoding, encoded: Buffer) -> Chunk:
        """Seal a chunk into the pack, and return its place. ``pack`` is the pack's number in the table of packs."""
        number, offset = len(self._records), self._end
        stored = self._sealer.seal_into(FrameKind.CONTENT, number, encoded, self._view[offset:])
        self._records.append(_RECORD.pack(digest, stored, size, encoding))
        self._end += stored
        return Chunk(pack, number, offset, stored, size, encoding, digest)

    def finish(self) -> memoryview:
        """Close the pack, and return the whole object as a view of the buffer."""
        index = b"".join(self._records)
        stored = self._sealer.seal_into(FrameKind.INDEX, 0, index, self._view[self._end :])
        frame = self._view[self._end : self._end + stored]
        end = self._end + stored
        trailer = _trailer(self._sealer.suite, len(self._records), frame)
        self._view[end : end + len(trailer)] = trailer
        return self._view[: end + len(trailer)]


def buffer_bytes(chunk_bytes: int) -> int:
    """Return the size of a buffer that fits every pack of chunks of at most ``chunk_bytes``."""
    return PACK_BYTES + chunk_bytes + CHUNKS_PER_PACK * _RECORD.size + (64 << 10)


def packed_bytes(chunks: Sequence[Chunk]) -> int:
    """Return the bytes of a pack of exactly these chunks."""
    content = chunks[-1].offset + chunks[-1].stored if chunks else 0
    return content + len(chunks) * _RECORD.size + TAG_BYTES + _TRAILER.size


def read_pack(read: RangeReader, pack: int, sealer_for: Callable[[Suite], Sealer], label: str) -> list[Chunk]:
    """Return the chunks of a pack according to its index.

    Args:
        read: reads the pack.
        pack: number of the pack that the returned chunks get.
        sealer_for: returns the sealer that opens the pack's frames.
        label: the pack's key, for messages.

    Raises IntegrityError naming the pack; UnsupportedFormat.
    """
    tail = read(-_TAIL_BYTES, _TAIL_BYTES)
    trailer = _parse_trailer(tail, label)
    if trailer.stored > MAX_CHUNKS * _RECORD.size + TAG_BYTES:
        raise IntegrityError(f"{label}: its index claims to have {trailer.stored} bytes")
    needed = trailer.stored + _TRAILER.size
    if needed > len(tail):
        tail = read(-needed, needed)
        if len(tail) != needed:
            raise IntegrityError(f"{label}: cut short, its index is missing")
    frame = tail[-needed : -_TRAILER.size]
    if _checksum(tail[-_TRAILER.size :], frame) != trailer.checksum:
        raise IntegrityError(f"{label}: its index was changed")
    if trailer.version != FORMAT_VERSION or trailer.suite not in tuple(Suite):
        raise UnsupportedFormat(
            f"{label}: format version {trailer.version}, suite {trailer.suite}: this program reads {FORMAT_VERSION}"
        )
    index = sealer_for(Suite(trailer.suite)).open(FrameKind.INDEX, 0, frame)
    if len(index) != trailer.chunks * _RECORD.size:
        raise IntegrityError(f"{label}: its index has {len(index)} bytes, which do not fit {trailer.chunks} chunks")
    return list(_chunks(pack, index))


def open_chunk(sealer: Sealer, chunk: Chunk, frame: Buffer, into: bytearray | None = None) -> Buffer:
    """Open the frame of a chunk, and return its encoded plaintext. ``into`` is that of `Sealer.open`.

    Raises IntegrityError naming the pack.
    """
    if len(frame) != chunk.stored:
        raise IntegrityError(f"{sealer.label}: cut short at chunk {chunk.number}")
    return sealer.open(FrameKind.CONTENT, chunk.number, frame, into)


def _chunks(pack: int, index: Buffer) -> Iterator[Chunk]:
    offset = 0
    for number, (digest, stored, size, encoding) in enumerate(_RECORD.iter_unpack(index)):
        yield Chunk(pack, number, offset, stored, size, encoding, digest)
        offset += stored


def _trailer(suite: Suite, count: int, frame: Buffer) -> bytes:
    blank = _TRAILER.pack(MAGIC, FORMAT_VERSION, suite, count, len(frame), bytes(DIGEST_BYTES))
    return blank[:-DIGEST_BYTES] + _checksum(blank, frame)


def _checksum(trailer: Buffer, frame: Buffer) -> bytes:
    """Return the BLAKE3 of the trailer without its checksum and of the index's frame."""
    return blake3(trailer[:-DIGEST_BYTES]).update(frame).digest()


def _parse_trailer(tail: bytes, label: str) -> _Trailer:
    """Parse the last bytes of a pack. Trust nothing in them before the checksum was compared."""
    if len(tail) < _TRAILER.size:
        raise IntegrityError(f"{label}: cut short, it has no trailer")
    magic, *fields = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != MAGIC:
        raise IntegrityError(f"{label}: it does not end like a pack: cut short, or overwritten")
    return _Trailer(*fields)
