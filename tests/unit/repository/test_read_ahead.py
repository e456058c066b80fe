"""Adjacent ranges of a pack are read in one request, scattered ones alone."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.errors import IntegrityError, StoreUnreachable
from cinderblock.repository.read_ahead import MAX_CACHED_RANGES, READ_AHEAD_BYTES, ReadAhead
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20
PACK = random.Random(1).randbytes(18 * MIB)


class Requests:
    """Read from PACK, and record the requests."""

    def __init__(self, size: int = len(PACK)) -> None:
        self.made: list[tuple[int, int]] = []
        self._size = size

    def __call__(self, start: int, length: int) -> bytes:
        self.made.append((start, length))
        return PACK[start : min(start + length, self._size)]


def test_small_ranges_one_after_the_other_are_few_requests() -> None:
    ahead, requests = ReadAhead(), Requests()
    for start in range(0, len(PACK), MIB // 2):
        assert ahead.get("pack", start, start + MIB // 2, len(PACK), requests) == PACK[start : start + MIB // 2]
    assert len(requests.made) == 4, "one to see where it goes, then 8 MiB at a time"


def test_first_range_of_a_pack_is_read_alone() -> None:
    ahead, requests = ReadAhead(), Requests()
    ahead.get("pack", 0, 1000, len(PACK), requests)
    assert requests.made == [(0, 1000)], "an in-place restore may want nothing else"


def test_large_ranges_are_read_as_requested() -> None:
    ahead, requests = ReadAhead(), Requests()
    for start in (0, 6 * MIB, 12 * MIB):
        ahead.get("pack", start, start + 6 * MIB, len(PACK), requests)
    assert requests.made == [(0, 6 * MIB), (6 * MIB, 6 * MIB), (12 * MIB, 6 * MIB)]


def test_scattered_ranges_are_read_alone() -> None:
    ahead, requests = ReadAhead(), Requests()
    for start in (3 * MIB, 9 * MIB, 15 * MIB):
        ahead.get("pack", start, start + 1000, len(PACK), requests)
    assert requests.made == [(3 * MIB, 1000), (9 * MIB, 1000), (15 * MIB, 1000)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, len(PACK) - 1), st.integers(1, 2 * MIB)), max_size=30
    )
)
def test_every_requested_range_is_returned(wanted: list[tuple[str, int, int]]) -> None:
    ahead, requests = ReadAhead(), Requests()
    for pack, start, length in wanted:
        end = min(start + length, len(PACK))
        assert ahead.get(pack, start, end, len(PACK), requests) == PACK[start:end]
        cached_bytes = sum(cached.end - cached.start for cached in ahead._ranges.values())
        assert cached_bytes <= MAX_CACHED_RANGES * READ_AHEAD_BYTES


def test_truncated_pack_fails_only_for_missing_bytes() -> None:
    ahead, requests = ReadAhead(), Requests(size=2 * MIB)
    assert ahead.get("pack", 0, MIB, len(PACK), requests) == PACK[:MIB]
    with pytest.raises(IntegrityError, match="pack: it is cut short"):
        ahead.get("pack", MIB, 3 * MIB, len(PACK), requests)


def test_failed_request_is_not_remembered() -> None:
    ahead = ReadAhead()

    def fails(start: int, length: int) -> bytes:
        raise StoreUnreachable("not now")

    with pytest.raises(StoreUnreachable):
        ahead.get("pack", 0, MIB, len(PACK), fails)
    assert ahead.get("pack", 0, MIB, len(PACK), Requests()) == PACK[:MIB]


def test_threads_with_adjacent_ranges_share_one_request() -> None:
    ahead, requests, all_here = ReadAhead(), Requests(), threading.Barrier(4)

    def want(number: int) -> bool:
        all_here.wait()
        start = number * MIB // 4
        return ahead.get("pack", start, start + MIB // 4, len(PACK), requests) == PACK[start : start + MIB // 4]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(want, range(4)))
    assert len(requests.made) <= 4


def test_tree_of_small_files_is_restored_with_few_requests(tmp_path: Path) -> None:
    volume, counted = MemorySource(), CountedStore(MemoryStore())
    for number in range(3000):
        volume.add(b"%04d" % number, (0, random.Random(number).randbytes(12_000)))
    backups = Backups(counted, key_ring())
    report = backups.back_up(volume, "one")
    before = counted.counts.gets
    (tmp_path / "target").mkdir()
    backups.restore("one", tmp_path / "target")
    assert report.stored_bytes > 34 * MIB
    assert counted.counts.gets - before <= 14
