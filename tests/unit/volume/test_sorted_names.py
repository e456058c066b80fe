"""Tests that the names of a directory come in order, however many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.volume.tree.sorted_names import BLOCK_NAMES, SortedNames


def all_of(names: SortedNames) -> list[bytes]:
    taken = []
    while names:
        first = names.first
        taken.append(names.pop())
        assert taken[-1] == first
    return taken


@given(st.sets(st.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name and b"\0" not in name)))
def test_any_names_come_out_in_order_of_bytes(given_names: set[bytes]) -> None:
    assert all_of(SortedNames(list(given_names))) == sorted(given_names)


@pytest.mark.parametrize("count", [BLOCK_NAMES - 1, BLOCK_NAMES, BLOCK_NAMES + 1, 2 * BLOCK_NAMES, 3 * BLOCK_NAMES + 5])
def test_more_names_than_a_block_come_out_in_order(count: int) -> None:
    names_in_order = [b"file-%07d\xff\n" % number for number in range(count)]
    names = SortedNames(names_in_order[::-1])
    assert len(names) == count
    assert all_of(names) == names_in_order
    assert len(names) == 0


def test_taking_from_no_names_is_an_error() -> None:
    with pytest.raises(IndexError):
        SortedNames([]).pop()
