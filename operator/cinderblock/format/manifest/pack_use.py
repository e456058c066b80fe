"""Count how much of each pack a manifest uses.

A pack can only be deleted as a whole. Without this count, nobody knows which packs hold little that is still needed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from cinderblock.format.manifest.columns import split_columns, unpack_numbers
from cinderblock.format.range_reader import Buffer

_PACKS, _STORED, _SIZES, _LENGTHS, _CHUNK_NUMBERS = 0, 3, 4, 26, 27
"""Columns of a section."""


class PackUse:
    """The stored bytes in use of each pack, at 8 bytes a pack.

    A chunk counts by the share of it that extents use, because a chunk of small files dies file by file. If several
    sections use the same bytes, these count once for each section: an exact count would take memory for every chunk.
    So the count may be too high where content repeats, and no count is larger than its pack.
    """

    def __init__(self, counts: Iterable[int] = ()) -> None:
        self._bytes = array("Q", counts)

    def copy(self) -> PackUse:
        """Return an independent copy."""
        return PackUse(self._bytes)

    def add_section(self, section: Buffer) -> None:
        """Add what a section uses. Its first column names packs by their final numbers."""
        columns = split_columns(section, _CHUNK_NUMBERS + 1)
        packs, stored, sizes, lengths, chunk_numbers = (
            unpack_numbers("I", columns[number]) for number in (_PACKS, _STORED, _SIZES, _LENGTHS, _CHUNK_NUMBERS)
        )
        if not packs:
            return
        parts = [0] * len(packs)
        for chunk_number, length in zip(chunk_numbers, lengths, strict=True):
            parts[chunk_number] += length
        self._bytes.extend([0] * (max(packs) + 1 - len(self._bytes)))
        for pack, frame, size, part in zip(packs, stored, sizes, parts, strict=True):
            self._bytes[pack] += frame if part >= size else frame * part // size

    def counts(self, sizes: Iterable[int]) -> array[int]:
        """Return the bytes in use of each pack, given the bytes of each pack."""
        return array("Q", map(min, self._bytes, sizes))
