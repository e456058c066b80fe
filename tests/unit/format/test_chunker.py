"""Tests of the division into chunks: along a grid, and solid chunks with stable borders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.format.chunker import chunk_bytes_for, ends_solid_chunk, split_on_grid
from cinderblock.format.entries import ByteRange

MIB, GIB = 1 << 20, 1 << 30

ranges = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 70)), max_size=20).map(
    lambda pairs: [
        (sum(gap + length for gap, length in pairs[:at]) + pairs[at][0], pairs[at][1]) for at in range(len(pairs))
    ]
)


@given(ranges=ranges, chunk=st.integers(1, 40))
def test_grid_blocks_cover_the_data_exactly(ranges: list[tuple[int, int]], chunk: int) -> None:
    found = list(split_on_grid(ranges, chunk))
    data = [byte for start, length in ranges for byte in range(start, start + length)]
    assert [byte for cell in found for run in cell for byte in range(run.offset, run.offset + run.length)] == data
    numbers = [
        {run.offset // chunk for run in cell} | {(run.offset + run.length - 1) // chunk for run in cell}
        for cell in found
    ]
    assert all(len(number) == 1 for number in numbers)
    assert len({next(iter(number)) for number in numbers}) == len(found)


def test_grid_block_may_hold_several_ranges() -> None:
    assert list(split_on_grid([(0, 2), (5, 10)], 8)) == [[ByteRange(0, 2), ByteRange(5, 3)], [ByteRange(8, 7)]]


@pytest.mark.parametrize(
    ("volume", "chunk"),
    [(0, 1), (GIB, 1), (256 * GIB, 1), (256 * GIB + 1, 2), (512 * GIB, 2), (513 * GIB, 4), (64 << 40, 4)],
)
def test_chunks_grow_with_the_volume(volume: int, chunk: int) -> None:
    assert chunk_bytes_for(volume) == chunk * MIB


def borders(names: list[bytes], sizes: dict[bytes, int]) -> list[bytes]:
    """Return the last file of each solid chunk."""
    found, filled = [], 0
    for name in names:
        if filled + sizes[name] > MIB:
            found.append(name)
            filled = 0
        filled += sizes[name]
        if ends_solid_chunk(name, filled, MIB):
            found.append(name)
            filled = 0
    return found


def test_added_file_shifts_few_borders() -> None:
    rnd = random.Random(1)
    names = [b"directory/file-%05d" % number for number in range(4000)]
    sizes = {name: rnd.randrange(1, 20_000) for name in names} | {b"addition": 9_000}
    before, after = borders(names, sizes), borders([b"addition", *names], sizes)
    assert len(before) > 40
    assert len(set(before) - set(after)) <= 5


def test_solid_chunk_never_ends_before_it_is_half_full() -> None:
    assert not any(ends_solid_chunk(b"%d" % number, MIB // 2 - 1, MIB) for number in range(1000))
    share = sum(ends_solid_chunk(b"%d" % number, MIB // 2, MIB) for number in range(16_000)) / 16_000
    assert 1 / 20 < share < 1 / 13
