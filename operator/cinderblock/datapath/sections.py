"""Sections of a manifest: some thousand entries with their extents, and the chunks that these point into.

Each section stands for itself: it names every chunk that its extents use, so entries can be read as a stream in little
memory. All is stored column by column; the order of the columns is part of the format (docs/format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

from cinderblock.datapath.columns import LENGTH_BYTES, join_columns, pack_numbers, split_columns, unpack_numbers
from cinderblock.datapath.digest import DIGEST_BYTES
from cinderblock.datapath.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.datapath.seal import Buffer
from cinderblock.errors import IntegrityError

T = TypeVar("T")

CHUNK_COLUMNS = 7
_COLUMNS = 30
_NANO = 1_000_000_000
_KINDS = {int(kind): kind for kind in EntryKind}
_WITH_TARGET = (EntryKind.SYMLINK, EntryKind.HARDLINK)
_WITH_NUMBER = (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)

ENTRY_ESTIMATE = 64
"""Bytes that an entry takes in a section besides its names."""
EXTENT_ESTIMATE = 56 + 53
"""Bytes that an extent takes at most, with its digest and with a chunk of its own."""


def estimate(entry: Entry) -> int:
    """About how many bytes an entry takes in a section."""
    size = ENTRY_ESTIMATE + len(entry.path) + len(entry.target) + len(entry.extents) * EXTENT_ESTIMATE
    if entry.xattrs:
        size += sum(len(name) + len(value) + 12 for name, value in entry.xattrs)
    return size


def encode_section(entries: Sequence[Entry], final_pack: Callable[[int], int]) -> bytes:
    """A section of at least one entry.

    Args:
        entries: in order of path.
        final_pack: turns the pack of a chunk into the number that the manifest's table of packs will have for it.
    """
    extents = [extent for entry in entries for extent in entry.extents]
    chunks: dict[tuple[int, int], int] = {}
    places = [chunks.setdefault((extent.chunk.pack, extent.chunk.number), len(chunks)) for extent in extents]
    table = _distinct_chunks(extents, chunks)
    return join_columns(
        [
            *_chunk_columns(table, final_pack),
            *_entry_columns(entries),
            *_xattr_columns(entries),
            *_extent_columns(entries, extents, places),
        ]
    )


def decode_chunks(section: Buffer, label: str) -> list[Chunk]:
    """Only the chunks that a section's extents use. Raises IntegrityError naming ``label``."""
    try:
        return _read_chunks(split_columns(section, CHUNK_COLUMNS))
    except (ValueError, struct.error):
        raise IntegrityError(f"{label}: a section is malformed") from None


def decode_section(section: Buffer, label: str) -> Iterator[Entry]:
    """All entries of a section. Raises IntegrityError naming ``label``, before the first entry comes out."""
    try:
        columns = split_columns(section, _COLUMNS)
        chunks = _read_chunks(columns[:CHUNK_COLUMNS])
        entry_columns, xattr_columns, extent_columns = columns[7:20], columns[20:24], columns[24:30]
        extents = _read_extents(extent_columns, chunks)
        return _read_entries(entry_columns, _read_xattrs(xattr_columns), extents)
    except (ValueError, IndexError, KeyError, StopIteration, struct.error):
        raise IntegrityError(f"{label}: a section is malformed") from None


class Stamps(NamedTuple):
    """What tells whether objects are as they were, without the rest: one column for each field of an `Entry`."""

    paths: Sequence[bytes]
    kinds: Sequence[EntryKind]
    modes: Sequence[int]
    uids: Sequence[int]
    gids: Sequence[int]
    mtimes_ns: Sequence[int]
    ctimes_ns: Sequence[int]
    inodes: Sequence[int]
    sizes: Sequence[int]


def decode_stamps(section: Buffer, label: str) -> Stamps:
    """Only the stamps of a section's entries. Raises IntegrityError naming ``label``."""
    try:
        return _read_stamps(split_columns(section, 18)[CHUNK_COLUMNS:])
    except (ValueError, KeyError, struct.error):
        raise IntegrityError(f"{label}: a section is malformed") from None


def logical_bytes(section: Buffer) -> int:
    """Bytes of data that a section's extents have together; the section was decoded before."""
    return sum(unpack_numbers("I", split_columns(section, _COLUMNS)[26]))


def renumbered(section: Buffer, final_pack: Callable[[int], int]) -> bytes:
    """The same section for another manifest: its first column, the numbers of packs, is another one.

    Args:
        section: as it is in the manifest of a parent.
        final_pack: turns a number of the parent's table of packs into one of the new manifest's.
    """
    packs = split_columns(section, 1)[0]
    column = pack_numbers("I", [final_pack(pack) for pack in unpack_numbers("I", packs)])
    return b"".join([join_columns([column]), memoryview(section)[len(packs) + LENGTH_BYTES :]])


def _distinct_chunks(extents: Iterable[Extent], numbers: dict[tuple[int, int], int]) -> list[Chunk]:
    """Each chunk once, in order of its number in ``numbers``."""
    seen = {(extent.chunk.pack, extent.chunk.number): extent.chunk for extent in extents}
    return [seen[place] for place in numbers]


def _chunk_columns(chunks: Sequence[Chunk], final_pack: Callable[[int], int]) -> Iterator[bytes]:
    yield pack_numbers("I", [final_pack(chunk.pack) for chunk in chunks])
    yield pack_numbers("I", [chunk.number for chunk in chunks])
    yield pack_numbers("I", [chunk.offset for chunk in chunks])
    yield pack_numbers("I", [chunk.stored for chunk in chunks])
    yield pack_numbers("I", [chunk.size for chunk in chunks])
    yield pack_numbers("B", [chunk.encoding for chunk in chunks])
    yield b"".join([chunk.digest for chunk in chunks])


def _read_chunks(columns: Sequence[memoryview]) -> list[Chunk]:
    numbers = [unpack_numbers("I", column) for column in columns[:5]]
    encodings, digests = unpack_numbers("B", columns[5]), _read_digests(columns[6])
    return [Chunk(*fields) for fields in zip(*numbers, encodings, digests, strict=True)]


def _read_digests(column: memoryview) -> list[bytes]:
    if len(column) % DIGEST_BYTES:
        raise ValueError("a digest is cut short")
    data = bytes(column)
    return [data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)]


def _entry_columns(entries: Sequence[Entry]) -> Iterator[bytes]:
    yield b"\0".join([entry.path for entry in entries])
    yield pack_numbers("B", [entry.kind for entry in entries])
    yield pack_numbers("H", [entry.mode for entry in entries])
    yield pack_numbers("I", [entry.uid for entry in entries])
    yield pack_numbers("I", [entry.gid for entry in entries])
    yield pack_numbers("q", [entry.mtime_ns // _NANO for entry in entries])
    yield pack_numbers("I", [entry.mtime_ns % _NANO for entry in entries])
    yield pack_numbers("q", [entry.ctime_ns // _NANO for entry in entries])
    yield pack_numbers("I", [entry.ctime_ns % _NANO for entry in entries])
    yield pack_numbers("Q", [entry.inode for entry in entries])
    yield pack_numbers("Q", [entry.size for entry in entries])
    yield b"\0".join([entry.target for entry in entries if entry.kind in _WITH_TARGET])
    yield pack_numbers("Q", [entry.rdev for entry in entries if entry.kind in _WITH_NUMBER])


def _read_entries(
    columns: Sequence[memoryview],
    xattrs: dict[int, tuple[tuple[bytes, bytes], ...]],
    extents: Sequence[tuple[Extent, ...]],
) -> Iterator[Entry]:
    stamps = _read_stamps(columns)
    kinds = stamps.kinds
    count = len(kinds)
    zipped = zip(
        *stamps,
        _spread(kinds, _WITH_TARGET, bytes(columns[11]).split(b"\0"), b""),
        _spread(kinds, _WITH_NUMBER, unpack_numbers("Q", columns[12]), 0),
        [xattrs.get(number, ()) for number in range(count)] if xattrs else [()] * count,
        extents,
        strict=True,
    )
    return iter([Entry(*fields) for fields in zipped])


def _read_stamps(columns: Sequence[memoryview]) -> Stamps:
    return Stamps(
        bytes(columns[0]).split(b"\0"),
        [_KINDS[number] for number in columns[1]],
        unpack_numbers("H", columns[2]),
        unpack_numbers("I", columns[3]),
        unpack_numbers("I", columns[4]),
        _read_times(columns[5], columns[6]),
        _read_times(columns[7], columns[8]),
        unpack_numbers("Q", columns[9]),
        unpack_numbers("Q", columns[10]),
    )


def _read_times(seconds: memoryview, nanoseconds: memoryview) -> list[int]:
    pairs = zip(unpack_numbers("q", seconds), unpack_numbers("I", nanoseconds), strict=True)
    return [second * _NANO + nano for second, nano in pairs]


def _spread(kinds: Sequence[EntryKind], wanted: tuple[EntryKind, ...], values: Sequence[T], default: T) -> list[T]:
    """A column that only entries of some kinds have, for all entries."""
    present = iter(values)
    return [next(present) if kind in wanted else default for kind in kinds]


def _xattr_columns(entries: Sequence[Entry]) -> Iterator[bytes]:
    rows = [(at, name, value) for at, entry in enumerate(entries) if entry.xattrs for name, value in entry.xattrs]
    yield pack_numbers("I", [at for at, _, _ in rows])
    yield pack_numbers("I", [len(name) for _, name, _ in rows])
    yield pack_numbers("I", [len(value) for _, _, value in rows])
    yield b"".join([name + value for _, name, value in rows])


def _read_xattrs(columns: Sequence[memoryview]) -> dict[int, tuple[tuple[bytes, bytes], ...]]:
    found: dict[int, list[tuple[bytes, bytes]]] = {}
    data, position = bytes(columns[3]), 0
    for at, name, value in zip(*(unpack_numbers("I", column) for column in columns[:3]), strict=True):
        middle, end = position + name, position + name + value
        if end > len(data):
            raise ValueError("an attribute is cut short")
        found.setdefault(at, []).append((data[position:middle], data[middle:end]))
        position = end
    return {at: tuple(pairs) for at, pairs in found.items()}


def _is_whole(extent: Extent) -> bool:
    """Whether the run is the whole chunk, so that its digest need not be stored again."""
    return extent.chunk_offset == 0 and extent.length == extent.chunk.size


def _extent_columns(entries: Sequence[Entry], extents: Sequence[Extent], places: Sequence[int]) -> Iterator[bytes]:
    yield pack_numbers("I", [len(entry.extents) for entry in entries])
    yield pack_numbers("Q", [extent.offset for extent in extents])
    yield pack_numbers("I", [extent.length for extent in extents])
    yield pack_numbers("I", places)
    yield pack_numbers("I", [extent.chunk_offset for extent in extents])
    yield b"".join([extent.digest for extent in extents if not _is_whole(extent)])


def _read_extents(columns: Sequence[memoryview], chunks: Sequence[Chunk]) -> list[tuple[Extent, ...]]:
    counts, offsets = unpack_numbers("I", columns[0]), unpack_numbers("Q", columns[1])
    lengths, places, inners = (unpack_numbers("I", column) for column in columns[2:5])
    digests = iter(_read_digests(columns[5]))
    flat: list[Extent] = []
    for offset, length, place, inner in zip(offsets, lengths, places, inners, strict=True):
        chunk = chunks[place]
        if inner + length > chunk.size or not length:
            raise ValueError("an extent points beyond its chunk")
        whole = inner == 0 and length == chunk.size
        flat.append(Extent(offset, length, chunk, inner, chunk.digest if whole else next(digests)))
    ends = list(accumulate(counts, initial=0))
    if ends[-1] != len(flat):
        raise ValueError("extents without an entry")
    return [tuple(flat[start:end]) for start, end in pairwise(ends)]
