"""Sections of a manifest: some thousand entries with their extents, and the chunks that these point into.

Each section stands for itself: it names every chunk that its extents use, so entries can be read as a stream in little
memory. All is stored column by column; the order of the columns is part of the format
(docs/reference/format.md). Here sections are written; `section_decoder` reads them.
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
"""Bytes that an entry takes in a section besides its names."""
EXTENT_ESTIMATE = 56 + 53
"""Bytes that an extent takes at most, with its digest and with a chunk of its own."""


class SectionPart(NamedTuple):
    """Entries that follow each other, as columns; several pieces make a section.

    Attributes:
        chunks: that the extents use.
        paths: joined by NUL.
        fixed: columns 8 to 17, which have a number for each entry.
        targets: of the entries of kinds WITH_TARGET.
        numbers: column 19, of the entries of kinds WITH_NUMBER.
        xattrs: row of the entry in this piece, name and value of each extended attribute.
        places: for each extent the number of its chunk in ``chunks``.
        extents: columns 24, 25, 26, 28 and 29.
    """

    chunks: Sequence[Chunk]
    paths: Buffer
    fixed: Sequence[Buffer]
    targets: Sequence[bytes]
    numbers: Buffer
    xattrs: Sequence[tuple[int, bytes, bytes]]
    places: Sequence[int]
    extents: Sequence[Buffer]


def estimate(entry: Entry) -> int:
    """About how many bytes an entry takes in a section."""
    size = ENTRY_ESTIMATE + len(entry.path) + len(entry.target) + len(entry.extents) * EXTENT_ESTIMATE
    return size + xattr_bytes(entry.xattrs) if entry.xattrs else size


def xattr_bytes(xattrs: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes that extended attributes take in a section: three numbers each, name and value."""
    return sum(len(name) + len(value) + 12 for name, value in xattrs)


def part_of(entries: Sequence[Entry]) -> SectionPart:
    """Entries, at least one, as a piece."""
    extents = [extent for entry in entries for extent in entry.extents]
    numbers: dict[tuple[int, int], int] = {}
    places = [numbers.setdefault((extent.chunk.pack, extent.chunk.number), len(numbers)) for extent in extents]
    return SectionPart(
        chunks=_distinct_chunks(extents, numbers),
        paths=b"\0".join([entry.path for entry in entries]),
        fixed=list(_fixed_columns(entries)),
        targets=[entry.target for entry in entries if entry.kind in WITH_TARGET],
        numbers=pack_numbers("Q", [entry.rdev for entry in entries if entry.kind in WITH_NUMBER]),
        xattrs=[(at, *pair) for at, entry in enumerate(entries) if entry.xattrs for pair in entry.xattrs],
        places=places,
        extents=list(_extent_columns(entries, extents)),
    )


def encode_section(pieces: Sequence[SectionPart], final_pack: Callable[[int], int]) -> bytes:
    """A section of at least one piece.

    Args:
        pieces: in order of path.
        final_pack: turns the pack of a chunk into the number that the manifest's table of packs will have for it.
    """
    table, places = _joined_chunks(pieces)
    counts, offsets, lengths, inners, digests = _joined(piece.extents for piece in pieces)
    return join_columns(
        [
            *_chunk_columns(table, final_pack),
            b"\0".join([piece.paths for piece in pieces]),
            *_joined(piece.fixed for piece in pieces),
            b"\0".join(chain.from_iterable(piece.targets for piece in pieces)),
            b"".join([piece.numbers for piece in pieces]),
            *_xattr_columns(pieces),
            counts,
            offsets,
            lengths,
            pack_numbers("I", places),
            inners,
            digests,
        ]
    )


def renumbered(section: Buffer, final_pack: Callable[[int], int]) -> bytes:
    """The same section for another manifest: its first column, the numbers of packs, is another one.

    Args:
        section: as it is in the manifest of a parent.
        final_pack: turns a number of the parent's table of packs into one of the new manifest's.
    """
    packs = split_columns(section, 1)[0]
    column = pack_numbers("I", [final_pack(pack) for pack in unpack_numbers("I", packs)])
    return b"".join([join_columns([column]), memoryview(section)[len(packs) + LENGTH_BYTES :]])


def _is_whole(extent: Extent) -> bool:
    """Whether the run is the whole chunk, so that its digest need not be stored again."""
    return extent.chunk_offset == 0 and extent.length == extent.chunk.size


def _distinct_chunks(extents: Iterable[Extent], numbers: dict[tuple[int, int], int]) -> list[Chunk]:
    """Each chunk once, in order of its number in ``numbers``."""
    seen = {(extent.chunk.pack, extent.chunk.number): extent.chunk for extent in extents}
    return [seen[place] for place in numbers]


def _joined_chunks(pieces: Sequence[SectionPart]) -> tuple[list[Chunk], list[int]]:
    """The chunks of all pieces, each once, and the places of all extents among them."""
    table: dict[tuple[int, int], Chunk] = {}
    numbers: dict[tuple[int, int], int] = {}
    places: list[int] = []
    for piece in pieces:
        own = []
        for chunk in piece.chunks:
            name = (chunk.pack, chunk.number)
            own.append(numbers.setdefault(name, len(numbers)))
            table.setdefault(name, chunk)
        places += [own[place] for place in piece.places]
    return list(table.values()), places


def _joined(pieces: Iterable[Sequence[Buffer]]) -> list[bytes]:
    """Columns of which each piece has a part."""
    return [b"".join(parts) for parts in zip(*pieces, strict=True)]


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


def _xattr_columns(pieces: Sequence[SectionPart]) -> Iterator[bytes]:
    rows: list[tuple[int, bytes, bytes]] = []
    start = 0
    for piece in pieces:
        rows += [(start + at, name, value) for at, name, value in piece.xattrs]
        start += len(piece.fixed[0])
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
