"""Packs: one immutable object of many sealed chunks, with a sealed index at its end.

A pack is the frames of its chunks, the frame of its index, and a trailer of fixed size. Manifests hold everything that
a restore needs of it; the index is there for a run that resumes, and for verification.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from blake3 import blake3

from cinderblock.errors import IntegrityError, UnsupportedFormat
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey, object_sealer
from cinderblock.format.crypto.sealer import FORMAT_VERSION, FrameKind, Sealer, Suite, identity
from cinderblock.format.entries import Chunk
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.range_reader import Buffer, RangeReader

PACK_BYTES = 24 << 20
"""A pack is closed when its chunks have reached this size: at most 43 packs and so 43 requests per GiB stored, to which
come about 15 for the backup, and small enough that several packs in flight fit into the memory of a mover."""
CHUNKS_PER_PACK = 8192
"""A pack is closed when it holds so many chunks, so that its index stays small (330 KiB)."""
MAGIC = b"CBLKPACK"

_RECORD = struct.Struct("<32sIIB")
_TRAILER = struct.Struct("<8sHBxII32s")
_TAIL_BYTES = 64 << 10
"""Read first: it holds the trailer and the index of most packs."""
_NAME = re.compile(r"([0-9a-f]{32})-([0-9]{6,10})")


class Origin(NamedTuple):
    """Which run of a mover, for which backup, made a pack."""

    backup_id: str
    attempt: str


def new_attempt() -> str:
    """A name for this run of a mover: 128 random bits as 32 hexadecimal digits. Sealing relies on its freshness."""
    return os.urandom(16).hex()


def pack_name(attempt: str, number: int) -> str:
    """The last part of a pack's key."""
    return f"{attempt}-{number:06d}"


def parse_pack_name(name: str) -> tuple[str, int] | None:
    """Attempt and number of a pack's name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


class _Trailer(NamedTuple):
    """The last bytes of a pack, its magic left out.

    Attributes:
        version, suite: of the format.
        chunks: how many chunks the pack holds.
        stored: bytes of the index's frame.
        checksum: BLAKE3 of the trailer before it and of the index's frame.
    """

    version: int
    suite: int
    chunks: int
    stored: int
    checksum: bytes


class PackTable:
    """The packs that extents point into, numbered from 0; 14 bytes for each.

    Not thread-safe for adding; reading what was added is.
    """

    def __init__(self) -> None:
        self.origins: list[Origin] = []
        self._origin_numbers: dict[Origin, int] = {}
        self._origin_of = array("H")
        self._number_of = array("I")
        self._size_of = array("Q")

    def __len__(self) -> int:
        return len(self._origin_of)

    def copy(self) -> PackTable:
        """A table of its own with the same packs under the same numbers."""
        table = PackTable()
        for pack in range(len(self)):
            table.add(self.origin(pack), self.number(pack), self.size(pack))
        return table

    def add(self, origin: Origin, number: int, size: int) -> int:
        """Add a pack of ``size`` bytes, number ``number`` of its attempt; returns its number in this table."""
        known = self._origin_numbers.get(origin)
        if known is None:
            known = self._origin_numbers[origin] = len(self.origins)
            self.origins.append(origin)
        self._origin_of.append(known)
        self._number_of.append(number)
        self._size_of.append(size)
        return len(self._origin_of) - 1

    def set_size(self, pack: int, size: int) -> None:
        """Bytes of a pack that was added before it was complete."""
        self._size_of[pack] = size

    def origin(self, pack: int) -> Origin:
        """Who made the pack."""
        return self.origins[self._origin_of[pack]]

    def origin_number(self, pack: int) -> int:
        """Where the pack's origin stands in ``origins``."""
        return self._origin_of[pack]

    def number(self, pack: int) -> int:
        """Number of the pack within its attempt."""
        return self._number_of[pack]

    def name(self, pack: int) -> str:
        """The last part of the pack's key."""
        return pack_name(self.origin(pack).attempt, self._number_of[pack])

    def size(self, pack: int) -> int:
        """Bytes of the pack."""
        return self._size_of[pack]

    def sizes_of(self, backup_id: str) -> Iterator[int]:
        """Bytes of each pack that belongs to a backup."""
        mine = {number for number, origin in enumerate(self.origins) if origin.backup_id == backup_id}
        return (size for origin, size in zip(self._origin_of, self._size_of, strict=True) if origin in mine)


def pack_sealer(data_key: DataKey | None, volume_id: str, backup_id: str, name: str, label: str) -> Sealer:
    """What seals and opens the frames of one pack."""
    return object_sealer(data_key, identity("pack", volume_id, backup_id, name), label)


class PackBuilder:
    """One pack in the making, in a buffer that is reused from pack to pack.

    Args:
        buffer: at least ``buffer_bytes(chunk_bytes)`` long.
        sealer: of this pack; used for no other.
    """

    def __init__(self, buffer: bytearray, sealer: Sealer) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._sealer = sealer
        self._records: list[bytes] = []
        self._end = 0

    @property
    def is_full(self) -> bool:
        """Whether the pack is to be closed."""
        return self._end >= PACK_BYTES or len(self._records) >= CHUNKS_PER_PACK

    def add(self, pack: int, digest: bytes, size: int, encoding: Encoding, encoded: Buffer) -> Chunk:
        """Seal a chunk into the pack, and say where it is. ``pack`` is the pack's number in the table of packs."""
        number, offset = len(self._records), self._end
        stored = self._sealer.seal_into(FrameKind.CONTENT, number, encoded, self._view[offset:])
        self._records.append(_RECORD.pack(digest, stored, size, encoding))
        self._end += stored
        return Chunk(pack, number, offset, stored, size, encoding, digest)

    def finish(self) -> memoryview:
        """Close the pack and return the whole object, a view of the buffer."""
        index = b"".join(self._records)
        stored = self._sealer.seal_into(FrameKind.INDEX, 0, index, self._view[self._end :])
        frame = self._view[self._end : self._end + stored]
        end = self._end + stored
        trailer = _trailer(self._sealer.suite, len(self._records), frame)
        self._view[end : end + len(trailer)] = trailer
        return self._view[: end + len(trailer)]


def buffer_bytes(chunk_bytes: int) -> int:
    """Bytes of a buffer that every pack of chunks of at most ``chunk_bytes`` fits into."""
    return PACK_BYTES + chunk_bytes + CHUNKS_PER_PACK * _RECORD.size + (64 << 10)


def read_pack(read: RangeReader, pack: int, sealer_for: Callable[[Suite], Sealer], label: str) -> list[Chunk]:
    """The chunks of a pack as its own index tells them.

    Args:
        read: reads the pack.
        pack: number that the chunks are to name as their pack.
        sealer_for: gives what opens the pack's frames.
        label: the pack's key, for messages.

    Raises IntegrityError naming the pack; UnsupportedFormat.
    """
    tail = read(-_TAIL_BYTES, None)
    trailer = _parse_trailer(tail, label)
    wanted = trailer.stored + _TRAILER.size
    if wanted > len(tail):
        tail = read(-wanted, None)
        if len(tail) != wanted:
            raise IntegrityError(f"{label}: cut short, its index is not there")
    frame = tail[-wanted : -_TRAILER.size]
    if _checksum(tail[-_TRAILER.size :], frame) != trailer.checksum:
        raise IntegrityError(f"{label}: its index was changed")
    if trailer.version != FORMAT_VERSION or trailer.suite not in tuple(Suite):
        raise UnsupportedFormat(
            f"{label}: format version {trailer.version}, suite {trailer.suite}; known is {FORMAT_VERSION}"
        )
    index = sealer_for(Suite(trailer.suite)).open(FrameKind.INDEX, 0, frame)
    if len(index) != trailer.chunks * _RECORD.size:
        raise IntegrityError(f"{label}: its index has {len(index)} bytes where {trailer.chunks} chunks belong")
    return list(_chunks(pack, index))


def open_chunk(sealer: Sealer, chunk: Chunk, frame: Buffer, into: bytearray | None = None) -> Buffer:
    """What was encoded of a chunk: its frame, opened; ``into`` as of `Sealer.open`. Raises IntegrityError naming the
    pack."""
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
    """BLAKE3 of the trailer before its checksum, and the frame of the index."""
    return blake3(trailer[:-DIGEST_BYTES]).update(frame).digest()


def _parse_trailer(tail: bytes, label: str) -> _Trailer:
    """The last bytes of a pack; nothing in it is to be believed before its checksum."""
    if len(tail) < _TRAILER.size:
        raise IntegrityError(f"{label}: cut short, it has no trailer")
    magic, *fields = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != MAGIC:
        raise IntegrityError(f"{label}: it does not end as a pack does: cut short, or overwritten")
    return _Trailer(*fields)
