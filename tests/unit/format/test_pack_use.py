"""The bytes in use of each pack, and columns that a writer may leave out."""

from __future__ import annotations

import pytest

from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.format.manifest.columns import join_columns, split_columns
from cinderblock.format.manifest.pack_use import PackUse
from cinderblock.format.manifest.section_encoder import encode_section, make_part

SIZE = 1000
"""Bytes of a chunk, decoded."""
STORED = 400
"""Bytes of its frame."""


def section_of(*extents: tuple[int, int, int, int]) -> bytes:
    """Return a section of one file. An extent is a pack, a chunk of it, and a range of the chunk."""
    made = [
        Extent(at * SIZE, stop - start, Chunk(pack, number, 0, STORED, SIZE, 0, bytes(32)), start, bytes(32))
        for at, (pack, number, start, stop) in enumerate(extents)
    ]
    entry = Entry(b"file", EntryKind.FILE, size=len(made) * SIZE, extents=tuple(made))
    return encode_section([make_part([entry])], lambda pack: pack)


def use_of(*sections: bytes, sizes: tuple[int, ...]) -> list[int]:
    use = PackUse()
    for section in sections:
        use.add_section(section)
    return [*use.counts(sizes)]


def test_chunks_count_with_their_frames() -> None:
    section = section_of((0, 0, 0, SIZE), (1, 0, 0, SIZE), (1, 1, 0, SIZE))
    assert use_of(section, sizes=(2000, 2000)) == [STORED, 2 * STORED]


def test_chunk_counts_by_the_share_in_use() -> None:
    assert use_of(section_of((0, 0, 0, 100), (0, 0, 500, 650)), sizes=(2000,)) == [STORED // 4]


def test_chunk_that_is_used_twice_in_a_section_counts_once() -> None:
    assert use_of(section_of((0, 0, 0, SIZE), (0, 0, 0, SIZE)), sizes=(2000,)) == [STORED]


def test_count_is_never_larger_than_the_pack() -> None:
    section = section_of((0, 0, 0, SIZE))
    assert use_of(section, section, section, sizes=(1000,)) == [1000]


def test_copy_does_not_change_with_its_original() -> None:
    use = PackUse()
    use.add_section(section_of((0, 0, 0, SIZE)))
    copy = use.copy()
    use.add_section(section_of((0, 1, 0, SIZE)))
    assert ([*copy.counts([2000])], [*use.counts([2000])]) == ([STORED], [2 * STORED])


def test_section_without_chunks_uses_nothing() -> None:
    assert use_of(section_of(), sizes=()) == []


@pytest.mark.parametrize("rest", [b"", b"\1", b"\5\0\0\0four", b"\xff\xff\xff\xff"])
def test_optional_column_that_is_missing_or_cut_short_is_left_out(rest: bytes) -> None:
    assert split_columns(join_columns([b"one", b"two"]) + rest, 2, optional=1) == [b"one", b"two"]


def test_optional_column_is_found() -> None:
    assert split_columns(join_columns([b"one", b"two", b"three"]), 1, optional=1) == [b"one", b"two"]


@pytest.mark.parametrize("data", [b"", b"\1", b"\5\0\0\0four"])
def test_column_that_is_needed_must_be_whole(data: bytes) -> None:
    with pytest.raises(ValueError, match="missing, or cut short"):
        split_columns(data, 1, optional=1)
