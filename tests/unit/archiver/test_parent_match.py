"""Comparing rows of a walk with a section in ranges gives the same as one by one."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cinderblock.archiver.parent import common_rows
from cinderblock.volume.tree.rows import Columns, Rows


def rows_of(stamps: list[tuple[bytes, int]]) -> Rows:
    """Return rows with the given paths and modes."""
    modes = tuple(mode for _, mode in stamps)
    zeros = (0,) * len(stamps)
    return Rows([path for path, _ in stamps], Columns(modes, *[zeros] * 6))


def one_by_one(before: list[tuple[bytes, int]], now: list[tuple[bytes, int]]) -> int:
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    return same


@given(
    count=st.integers(1, 700),
    changes=st.lists(st.tuples(st.integers(0, 699), st.sampled_from(["mode", "path", "gone"])), max_size=3),
    at=st.integers(0, 100),
    start=st.integers(0, 100),
)
def test_as_many_are_the_same_as_one_by_one(count: int, changes: list[tuple[int, str]], at: int, start: int) -> None:
    before = [(b"%06d" % number, number % 3) for number in range(count)]
    now = list(before)
    for place, change in changes:
        if place < len(now):
            path, mode = now[place]
            now[place : place + 1] = {"mode": [(path, 9)], "path": [(path + b"x", mode)], "gone": []}[change]
    assume(now)
    prefix, other_prefix = [(b"", 1)] * at, [(b"", 2)] * start
    found = common_rows(rows_of(prefix + before), at, rows_of(other_prefix + now), start)
    assert found == one_by_one(before, now)


@pytest.mark.parametrize("place", [0, 1, 70, 99])
def test_every_column_counts(place: int) -> None:
    columns = Columns(*[(0,) * 100] * 7)
    for number in range(len(columns)):
        changed = list(columns)
        changed[number] = (*changed[number][:place], 1, *changed[number][place + 1 :])
        paths = [b"%d" % row for row in range(100)]
        assert common_rows(Rows(paths, columns), 0, Rows(paths, Columns(*changed)), 0) == place
