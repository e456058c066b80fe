from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.format.entries import ByteRange, Chunk, Extent
from cinderblock.volume.ranges import ZERO_BLOCK_BYTES, holes, is_zero, nonzero_ranges

CHUNK = Chunk(0, 0, 0, 0, 0, 0, b"")


def extents_of(cuts: list[int]) -> tuple[Extent, ...]:
    """Return extents between every second pair of the sorted cuts."""
    return tuple(Extent(a, b - a, CHUNK, 0, b"") for a, b in zip(cuts[::2], cuts[1::2], strict=False))


@given(st.lists(st.integers(0, 200), unique=True, max_size=20), st.integers(0, 50))
def test_extents_and_holes_together_cover_everything_once(cuts: list[int], tail: int) -> None:
    extents = extents_of(sorted(cuts))
    end = max(cuts, default=0) + tail
    found = list(holes(extents, 0, end))
    covered = sorted([(e.offset, e.length) for e in extents] + [tuple(hole) for hole in found])
    positions = [p for offset, length in covered for p in range(offset, offset + length)]
    assert positions == list(range(end))
    assert all(length > 0 for _, length in found)


@given(st.lists(st.integers(0, 200), unique=True, min_size=2, max_size=20), st.integers(0, 20))
def test_holes_of_an_entry_in_parts_are_those_of_the_whole(cuts: list[int], split: int) -> None:
    extents = extents_of(sorted(cuts))
    first, second = extents[:split], extents[split:]
    middle = first[-1].offset + first[-1].length if first else 0
    parts = [*holes(first, 0, middle), *holes(second, middle, 300)]
    assert parts == list(holes(extents, 0, 300))


def test_entry_without_extents_is_one_hole() -> None:
    assert list(holes((), 0, 10)) == [ByteRange(0, 10)]
    assert list(holes((), 0, 0)) == []


@given(st.binary(max_size=300))
def test_zeros_are_distinguished_from_data(data: bytes) -> None:
    assert is_zero(memoryview(data)) == (not any(data))


@pytest.mark.parametrize(
    "size", [1, ZERO_BLOCK_BYTES - 1, ZERO_BLOCK_BYTES, ZERO_BLOCK_BYTES + 1, 3 * ZERO_BLOCK_BYTES + 7]
)
def test_single_nonzero_byte_makes_a_block_data(size: int) -> None:
    data = bytearray(size)
    assert is_zero(memoryview(data))
    for position in {0, size // 2, size - 1}:
        data[position] = 1
        assert not is_zero(memoryview(data))
        data[position] = 0


@given(data=st.binary(max_size=200), offset=st.integers(0, 50), grain=st.integers(1, 16))
def test_nonzero_ranges_leave_out_exactly_the_zero_steps(data: bytes, offset: int, grain: int) -> None:
    steps = {(offset + at) // grain for at, byte in enumerate(data) if byte}
    kept = {at for at in range(len(data)) if (offset + at) // grain in steps}
    found = nonzero_ranges(memoryview(data), offset, grain)
    assert {at for start, length in found for at in range(start, start + length)} == kept
    assert all(start + length < following for (start, length), (following, _) in pairwise(found))
