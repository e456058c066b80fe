"""The decoder of manifest sections: all entries, some of them, or only some of their fields.

`section_encoder` describes sections.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

from cinderblock.errors import IntegrityError
from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.manifest.columns import split_columns, unpack_numbers
from cinderblock.format.manifest.section_encoder import (
    ENTRY_ESTIMATE,
    EXTENT_ESTIMATE,
    NANO,
    WITH_NUMBER,
    WITH_TARGET,
    SectionPart,
    xattr_bytes,
)
from cinderblock.format.range_reader import Buffer

T = TypeVar("T")

_CHUNK_COLUMNS = 7
_ENTRY_COLUMNS = 13
_COLUMNS = 30
_LENGTHS = 26
_KINDS = {int(kind): kind for kind in EntryKind}
_WIDTHS = (1, 2, 4, 4, 8, 4, 8, 4, 8, 8)
"""Bytes of an entry in each of the columns 8 to 17."""


class EntryStats(NamedTuple):
    """The fields of entries that show changes of objects: one column for each field of an `Entry`."""

    paths: list[bytes]
    kinds: list[EntryKind]
    modes: tuple[int, ...]
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    mtimes_ns: tuple[int, ...]
    ctimes_ns: tuple[int, ...]
    inodes: tuple[int, ...]
    sizes: tuple[int, ...]


def decode_chunks(section: Buffer, label: str) -> list[Chunk]:
    """Decode only the chunks of a section. Raises IntegrityError naming ``label``."""
    try:
        return _read_chunks(split_columns(section, _CHUNK_COLUMNS))
    except (ValueError, struct.error):
        raise _malformed(label) from None


def decode_stats(section: Buffer, label: str) -> EntryStats:
    """Decode only the `EntryStats` of a section. Raises IntegrityError naming ``label``."""
    try:
        return _read_stats(split_columns(section, 18)[_CHUNK_COLUMNS:])
    except (ValueError, KeyError, struct.error):
        raise _malformed(label) from None


def logical_bytes(section: Buffer) -> int:
    """Return the total length of a section's extents. The section must have been decoded before."""
    return sum(unpack_numbers("I", split_columns(section, _COLUMNS)[_LENGTHS]))


class SectionTable:
    """A section whose entries are decoded on demand. It adds a tenth to the memory of the section.

    Attributes:
        rows: number of entries; each part of an entry counts.

    Args:
        section: its plaintext.
        label: name of the section in messages.

    Raises IntegrityError naming ``label``, here and in all methods.
    """

    def __init__(self, section: Buffer, label: str) -> None:
        self._label = label
        try:
            columns = split_columns(section, _COLUMNS)
            self._chunks = _read_chunks(columns[:_CHUNK_COLUMNS])
            self._read_entries(columns[_CHUNK_COLUMNS : _CHUNK_COLUMNS + _ENTRY_COLUMNS])
            self._xattrs = _read_xattrs(columns[20:24])
            self._read_extents(columns[24:])
        except (ValueError, IndexError, OverflowError, struct.error):
            raise _malformed(label) from None

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The chunks of its extents."""
        return self._chunks

    def _read_entries(self, columns: Sequence[memoryview]) -> None:
        self._paths, self._fixed, targets, numbers = columns[0], columns[1:11], columns[11], columns[12]
        self._kinds = bytes(self._fixed[0])
        self.rows = len(self._kinds)
        if any(len(column) != self.rows * width for column, width in zip(self._fixed, _WIDTHS, strict=True)):
            raise ValueError("columns of different lengths")
        lengths = [len(path) + 1 for path in bytes(self._paths).split(b"\0")]
        self._path_starts = array("I", accumulate(lengths, initial=0))
        self._targets = bytes(targets).split(b"\0") if self._count(WITH_TARGET, self.rows) else []
        self._numbers = numbers
        is_complete = len(lengths) == self.rows and len(numbers) == self._count(WITH_NUMBER, self.rows) * 8
        if not is_complete or len(self._targets) != self._count(WITH_TARGET, self.rows):
            raise ValueError("columns of different lengths")

    def _read_extents(self, columns: Sequence[memoryview]) -> None:
        counts, offsets, lengths, chunk_numbers, chunk_offsets, self._digests = columns
        self._extents = (offsets, lengths, chunk_numbers, chunk_offsets)
        self._counts = counts
        self._extent_starts = array("I", accumulate(unpack_numbers("I", counts), initial=0))
        numbers = zip(
            unpack_numbers("Q", offsets),
            unpack_numbers("I", lengths),
            unpack_numbers("I", chunk_numbers),
            unpack_numbers("I", chunk_offsets),
            strict=True,
        )
        sizes = [chunk.size for chunk in self._chunks]
        parts = [
            _is_part(sizes[chunk_number], chunk_offset, length) for _, length, chunk_number, chunk_offset in numbers
        ]
        self._digest_starts = array("I", accumulate(parts, initial=0))
        if len(self._extent_starts) != self.rows + 1 or self._extent_starts[-1] != len(parts):
            raise ValueError("extents without an entry")
        if len(self._digests) != self._digest_starts[-1] * DIGEST_BYTES:
            raise ValueError("a digest is missing")

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Decode a range of rows."""
        try:
            stats = self._stats(start, stop)
        except (ValueError, KeyError, struct.error):
            raise _malformed(self._label) from None
        kinds = stats.kinds
        zipped = zip(
            *stats,
            _expand_column(kinds, WITH_TARGET, self._targets_of(start, stop), b""),
            _expand_column(kinds, WITH_NUMBER, unpack_numbers("Q", self._numbers_of(start, stop)), 0),
            [self._xattrs.get(row, ()) for row in range(start, stop)] if self._xattrs else [()] * (stop - start),
            self._extents_of(start, stop),
            strict=True,
        )
        return [Entry(*fields) for fields in zipped]

    def hard_link_target(self, row: int) -> bytes | None:
        """Return the path of the entry that a hard link shares its content with; None if the row is not a hard link."""
        if self._kinds[row] != EntryKind.HARDLINK:
            return None
        return self._targets[self._count(WITH_TARGET, row)]

    def link_targets(self, start: int, stop: int) -> list[bytes]:
        """Return the targets of the hard and symbolic links in a range of rows."""
        return self._targets_of(start, stop)

    def part(self, start: int, stop: int) -> SectionPart:
        """Return a range of rows, unchanged, for another section."""
        first, last = self._extent_starts[start], self._extent_starts[stop]
        offsets, lengths, chunk_numbers, chunk_offsets = self._extents
        used = unpack_numbers("I", chunk_numbers[first * 4 : last * 4])
        numbers = {chunk_number: number for number, chunk_number in enumerate(dict.fromkeys(used))}
        xattrs = self._xattrs
        return SectionPart(
            chunks=[self._chunks[chunk_number] for chunk_number in numbers],
            paths=self._paths[self._path_starts[start] : self._path_starts[stop] - 1],
            fixed=self._slices(start, stop),
            targets=self._targets_of(start, stop),
            numbers=self._numbers_of(start, stop),
            xattrs=[(row - start, *pair) for row in range(start, stop) for pair in xattrs.get(row, ())]
            if xattrs
            else (),
            chunk_numbers=[numbers[chunk_number] for chunk_number in used],
            extents=(
                self._counts[start * 4 : stop * 4],
                offsets[first * 8 : last * 8],
                lengths[first * 4 : last * 4],
                chunk_offsets[first * 4 : last * 4],
                self._digest_slice(first, last),
            ),
        )

    def rows_in(self, packs: frozenset[int], start: int, stop: int) -> list[int]:
        """Return the rows in a range that have an extent in one of these packs."""
        chunks = {number for number, chunk in enumerate(self._chunks) if chunk.pack in packs}
        starts = self._extent_starts
        used = unpack_numbers("I", self._extents[2][starts[start] * 4 : starts[stop] * 4])
        first = starts[start]
        return [
            row
            for row in range(start, stop)
            if not chunks.isdisjoint(used[starts[row] - first : starts[row + 1] - first])
        ]

    def estimate_bytes(self, start: int, stop: int) -> int:
        """Estimate the bytes of a range of rows in a section: the sum of `section_encoder.estimate_bytes`.

        Sections are closed by this estimate. Bytes that it ignored could make a section exceed MAX_SECTION_BYTES.
        """
        rows = stop - start
        names = self._path_starts[stop] - self._path_starts[start] - rows + sum(map(len, self._targets_of(start, stop)))
        extents = self._extent_starts[stop] - self._extent_starts[start]
        size = rows * ENTRY_ESTIMATE + names + extents * EXTENT_ESTIMATE
        if self._xattrs:
            size += sum(xattr_bytes(self._xattrs.get(row, ())) for row in range(start, stop))
        return size

    def logical_bytes(self, start: int, stop: int) -> int:
        """Return the total length of the extents of a range of rows."""
        first, last = self._extent_starts[start], self._extent_starts[stop]
        return sum(unpack_numbers("I", self._extents[1][first * 4 : last * 4]))

    def _digest_slice(self, first: int, last: int) -> memoryview:
        return self._digests[self._digest_starts[first] * DIGEST_BYTES : self._digest_starts[last] * DIGEST_BYTES]

    def _slices(self, start: int, stop: int) -> list[memoryview]:
        return [column[start * width : stop * width] for column, width in zip(self._fixed, _WIDTHS, strict=True)]

    def _stats(self, start: int, stop: int) -> EntryStats:
        paths = self._paths[self._path_starts[start] : self._path_starts[stop] - 1]
        return _read_stats([paths, *self._slices(start, stop)])

    def _count(self, kinds: Sequence[EntryKind], stop: int) -> int:
        """Return how many of the rows before ``stop`` are of these kinds."""
        return sum(self._kinds.count(int(kind), 0, stop) for kind in kinds)

    def _targets_of(self, start: int, stop: int) -> list[bytes]:
        if not self._targets:
            return []
        return self._targets[self._count(WITH_TARGET, start) : self._count(WITH_TARGET, stop)]

    def _numbers_of(self, start: int, stop: int) -> memoryview:
        if not self._numbers:
            return self._numbers
        return self._numbers[self._count(WITH_NUMBER, start) * 8 : self._count(WITH_NUMBER, stop) * 8]

    def _extents_of(self, start: int, stop: int) -> list[tuple[Extent, ...]]:
        first, last = self._extent_starts[start], self._extent_starts[stop]
        offsets, lengths, chunk_numbers, chunk_offsets = self._extents
        digests = iter(_read_digests(self._digest_slice(first, last)))
        flat: list[Extent] = []
        for offset, length, chunk_number, chunk_offset in zip(
            unpack_numbers("Q", offsets[first * 8 : last * 8]),
            unpack_numbers("I", lengths[first * 4 : last * 4]),
            unpack_numbers("I", chunk_numbers[first * 4 : last * 4]),
            unpack_numbers("I", chunk_offsets[first * 4 : last * 4]),
            strict=True,
        ):
            chunk = self._chunks[chunk_number]
            whole = chunk_offset == 0 and length == chunk.size
            flat.append(Extent(offset, length, chunk, chunk_offset, chunk.digest if whole else next(digests)))
        return [tuple(flat[a - first : b - first]) for a, b in pairwise(self._extent_starts[start : stop + 1])]


def _is_part(size: int, chunk_offset: int, length: int) -> bool:
    """Return whether an extent is smaller than its chunk of ``size`` bytes, and thus has a digest of its own.

    Raises ValueError if it is empty, or points beyond the chunk.
    """
    if chunk_offset + length > size or not length:
        raise ValueError("an extent points beyond its chunk")
    return length != size


def _malformed(label: str) -> IntegrityError:
    return IntegrityError(f"{label}: a section is malformed")


def _read_chunks(columns: Sequence[memoryview]) -> list[Chunk]:
    numbers = [unpack_numbers("I", column) for column in columns[:5]]
    encodings, digests = unpack_numbers("B", columns[5]), _read_digests(columns[6])
    return [Chunk(*fields) for fields in zip(*numbers, encodings, digests, strict=True)]


def _read_digests(column: memoryview) -> list[bytes]:
    if len(column) % DIGEST_BYTES:
        raise ValueError("a digest is cut short")
    data = bytes(column)
    return [data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)]


def _read_stats(columns: Sequence[memoryview]) -> EntryStats:
    return EntryStats(
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


def _read_times(seconds: memoryview, nanoseconds: memoryview) -> tuple[int, ...]:
    pairs = zip(unpack_numbers("q", seconds), unpack_numbers("I", nanoseconds), strict=True)
    return tuple([second * NANO + nano for second, nano in pairs])


def _expand_column(
    kinds: Sequence[EntryKind], present: tuple[EntryKind, ...], values: Sequence[T], default: T
) -> list[T]:
    """Expand a column of the entries of some kinds to all entries."""
    if not values:
        return [default] * len(kinds)
    remaining = iter(values)
    return [next(remaining) if kind in present else default for kind in kinds]


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
