"""The choice of the packs that an incremental backup renews."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.archiver.renewal import MOST_RENEWED, underused, within_limit
from cinderblock.format.pack import PACK_BYTES, Origin, PackTable

MIB = 1 << 20


def table(*sizes: int) -> PackTable:
    packs = PackTable()
    for number, size in enumerate(sizes):
        packs.add(Origin("a-backup", "0" * 32), number, size)
    return packs


def test_packs_with_the_least_use_come_first() -> None:
    assert underused(table(100, 100, 10, 100), [40, 10, 2, 60], 50) == [1, 2, 0]


def test_packs_with_equal_use_keep_their_order() -> None:
    assert underused(table(100, 100, 100), [30, 30, 10], 50) == [2, 0, 1]


def test_pack_with_exactly_the_threshold_in_use_stays() -> None:
    assert underused(table(100, 100), [50, 49], 50) == [1]


def test_threshold_zero_renews_nothing() -> None:
    assert underused(table(100, 100), [0, 10], 0) == []


def test_parent_that_does_not_record_the_use_is_not_renewed() -> None:
    assert underused(table(100, 100), [], 50) == []


def test_one_pack_is_renewed_whatever_the_size_of_the_volume() -> None:
    assert within_limit([0], [PACK_BYTES // 2, MIB]) == [0]


def test_no_more_than_a_twentieth_of_the_volume_is_renewed() -> None:
    used = [10 * MIB] * 100
    assert within_limit(range(100), used) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("part", [11 * MIB, 3 * MIB, 1])
def test_limit_counts_the_bytes_in_use(part: int) -> None:
    chosen = within_limit(range(1000), [part] * 1000 + [2000 * MIB])
    assert sum(part for _ in chosen) <= (1000 * part + 2000 * MIB) // MOST_RENEWED


@given(
    used=st.lists(st.tuples(st.integers(0, 24 * MIB), st.integers(1, 24 * MIB)), max_size=40), below=st.integers(0, 90)
)
def test_choice_equals_that_of_a_slow_search(used: list[tuple[int, int]], below: int) -> None:
    parts, sizes = [min(part, size) for part, size in used], [size for _, size in used]
    limit, expected = max(sum(parts) / MOST_RENEWED, PACK_BYTES), list[int]()
    left = set(range(len(parts)))
    while left:
        least = min(left, key=lambda pack: (parts[pack] / sizes[pack], pack))
        left.remove(least)
        is_over = sum(parts[pack] for pack in [*expected, least]) > limit
        if parts[least] * 100 >= sizes[least] * below or is_over:
            break
        expected.append(least)
    assert within_limit(underused(table(*sizes), parts, below), parts) == expected
