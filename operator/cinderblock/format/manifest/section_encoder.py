"""The encoder of manifest sections: some thousand entries with their extents, and the chunks of these extents.

Each section is self-contained: it lists every chunk that its extents use, so entries can be read as a stream in little
memory. Everything is stored column by column; the order of the columns is part of the format (see
docs/reference/format.md). `section_decoder` reads sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.format.manifest.columns import LENGTH_BYTES, join_columns, pack_numbers, split_columns, unpack_numbers
from cinderblock.format.range_reader import Buffer

NANO = 1_000_000_000
WITH_TARGET = (EntryKind.SYMLINK, EntryKind.HARDLINK)
"""Kinds of entries that have a row in the column of targets."""
WITH_NUMBER = (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)
"""Kinds of entries that have a row in the column of device numbers."""

ENTRY_ESTIMATE = 64
"""Bytes of an entry in a section, without its names."""
EXTENT_ESTIMATE = 56 + 53
"""Most bytes of an extent, with its digest and a chunk of its own."""


class SectionPart(NamedTuple):
    """Consecutive entries as columns; several parts make a section.

    Attributes:
        chunks: the chunks of the extents.
        paths: joined by NUL.
        fixed: columns 8 to 17, which have a number for each entry.
        targets: of the entries of kinds WITH_TARGET.
        numbers: column 19, of the entries of kinds WITH_NUMBER.
        xattrs: for each extended attribute the row of its entry in this part, its name and its value.
        chunk_numbers: for each extent the index of its chunk in ``chunks``.
        extents: columns 24, 25, 26, 28 and 29.
    """

    chunks: Sequence[Chunk]
    paths: Buffer
    fixed: Sequence[Buffer]
    targets: Sequence[bytes]
    numbers: Buffer
    xattrs: Sequence[tuple[int, bytes, bytes]]
    chunk_numbers: Sequence[int]
    extents: Sequence[Buffer]


def estimate_bytes(entry: Entry) -> int:
    """Estimate the bytes of an entry in a section."""
    size = ENTRY_ESTIMATE + len(entry.path) + len(entry.target) + len(entry.extents) * EXTENT_ESTIMATE
    return size + xattr_bytes(entry.xattrs) if entry.xattrs else size


def xattr_bytes(xattrs: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the bytes of extended attributes in a section: three numbers each, name and value."""
    return sum(len(name) + len(value) + 12 for name, value in xattrs)


def make_part(entries: Sequence[Entry]) -> SectionPart:
    """Make a part of at least one entry."""
    extents = [extent for entry in entries for extent in entry.extents]
    numbers: dict[tuple[int, int], int] = {}
    chunk_numbers = [numbers.setdefault((extent.chunk.pack, extent.chunk.number), len(numbers)) for extent in extents]
    return SectionPart(
        chunks=_distinct_chunks(extents, numbers),
        paths=b"\0".join([entry.path for entry in entries]),
        fixed=list(_fixed_columns(entries)),
        targets=[entry.target for entry in entries if entry.kind in WITH_TARGET],
        numbers=pack_numbers("Q", [entry.rdev for entry in entries if entry.kind in WITH_NUMBER]),
        xattrs=[(at, *pair) for at, entry in enumerate(entries) if entry.xattrs for pair in entry.xattrs],
        chunk_numbers=chunk_numbers,
        extents=list(_extent_columns(entries, extents)),
    )


def encode_section(parts: Sequence[SectionPart], final_pack: Callable[[int], int]) -> bytes:
    """Encode a section of at least one part.

    Args:
        parts: in order of path.
        final_pack: maps the pack of a chunk to its number in the manifest's table of packs.
    """
    table, chunk_numbers = _join_chunks(parts)
    counts, offsets, lengths, chunk_offsets, digests = _join_parts(part.extents for part in parts)
    return join_columns(
        [
            *_chunk_columns(table, final_pack),
            b"\0".join([part.paths for part in parts]),
            *_join_parts(part.fixed for part in parts),
            b"\0".join(chain.from_iterable(part.targets for part in parts)),
            b"".join([part.numbers for part in parts]),
            *_xattr_columns(parts),
            counts,
            offsets,
            lengths,
            pack_numbers("I", chunk_numbers),
            chunk_offsets,
            digests,
        ]
    )


def renumber_packs(section: Buffer, final_pack: Callable[[int], int]) -> bytes:
    """Return the same section for another manifest, with other pack numbers in its first column.

    Args:
        section: plaintext of the section in the manifest of a parent.
        final_pack: maps a number in the parent's table of packs to one in the new manifest's.
    """
    packs = split_columns(section, 1)[0]
    column = pack_numbers("I", [final_pack(pack) for pack in unpack_numbers("I", packs)])
    return b"".join([join_columns([column]), memoryview(section)[len(packs) + LENGTH_BYTES :]])


def _is_whole(extent: Extent) -> bool:
    """Return whether the run is the whole chunk, so that its digest need not be stored again."""
    return extent.chunk_offset == 0 and extent.length == extent.chunk.size


def _distinct_chunks(extents: Iterable[Extent], numbers: dict[tuple[int, int], int]) -> list[Chunk]:
    """Return each chunk once, in order of its number in ``numbers``."""
    chunks = {(extent.chunk.pack, extent.chunk.number): extent.chunk for extent in extents}
    return [chunks[key] for key in numbers]


def _join_chunks(parts: Sequence[SectionPart]) -> tuple[list[Chunk], list[int]]:
    """Return the chunks of all parts, each once, and for each extent the index of its chunk among them."""
    table: dict[tuple[int, int], Chunk] = {}
    numbers: dict[tuple[int, int], int] = {}
    chunk_numbers: list[int] = []
    for part in parts:
        own = []
        for chunk in part.chunks:
            name = (chunk.pack, chunk.number)
            own.append(numbers.setdefault(name, len(numbers)))
            table.setdefault(name, chunk)
        chunk_numbers += [own[chunk_number] for chunk_number in part.chunk_numbers]
    return list(table.values()), chunk_numbers


def _join_parts(parts: Iterable[Sequence[Buffer]]) -> list[bytes]:
    """Join columns that are divided among the parts."""
    return [b"".join(column) for column in zip(*parts, strict=True)]


def _chunk_columns(chunks: Sequence[Chunk], final_pack: Callable[[int], int]) -> Iterator[bytes]:
    yield pack_numbers("I", [final_pack(chunk.pack) for chunk in chunks])
    yield pack_numbers("I", [chunk.number for chunk in chunks])
    yield pack_numbers("I", [chunk.offset for chunk in chunks])
    yield pack_numbers("I", [chunk.stored for chunk in chunks])
    yield pack_numbers("I", [chunk.size for chunk in chunks])
    yield pack_numbers("B", [chunk.encoding for chunk in chunks])
    yield b"".join([chunk.digest for chunk in chunks])


def _fixed_columns(entries: Sequence[Entry]) -> Iterator[bytes]:
    yield pack_numbers("B", [entry.kind for entry in entries])
    yield pack_numbers("H", [entry.mode for entry in entries])
    yield pack_numbers("I", [entry.uid for entry in entries])
    yield pack_numbers("I", [entry.gid for entry in entries])
    yield pack_numbers("q", [entry.mtime_ns // NANO for entry in entries])
    yield pack_numbers("I", [entry.mtime_ns % NANO for entry in entries])
    yield pack_numbers("q", [entry.ctime_ns // NANO for entry in entries])
    yield pack_numbers("I", [entry.ctime_ns % NANO for entry in entries])
    yield pack_numbers("Q", [entry.inode for entry in entries])
    yield pack_numbers("Q", [entry.size for entry in entries])


def _xattr_columns(parts: Sequence[SectionPart]) -> Iterator[bytes]:
    rows: list[tuple[int, bytes, bytes]] = []
    start = 0
    for part in parts:
        rows += [(start + at, name, value) for at, name, value in part.xattrs]
        start += len(part.fixed[0])
    yield pack_numbers("I", [at for at, _, _ in rows])
    yield pack_numbers("I", [len(name) for _, name, _ in rows])
    yield pack_numbers("I", [len(value) for _, _, value in rows])
    yield b"".join([name + value for _, name, value in rows])


def _extent_columns(entries: Sequence[Entry], extents: Sequence[Extent]) -> Iterator[bytes]:
    yield pack_numbers("I", [len(entry.extents) for entry in entries])
    yield pack_numbers("Q", [extent.offset for extent in extents])
    yield pack_numbers("I", [extent.length for extent in extents])
    yield pack_numbers("I", [extent.chunk_offset for extent in extents])
    yield b"".join([extent.digest for extent in extents if not _is_whole(extent)])
