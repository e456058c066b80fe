"""Calls and bytes are counted by operation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cinderblock.errors import StoreUnreachable
from cinderblock.store.counted import CountedStore, Counts
from cinderblock.store.memory import MemoryStore
from tests.support.store.faults import FaultyStore


def test_every_operation_has_its_own_count() -> None:
    store = CountedStore(MemoryStore())
    store.check()
    store.put("a", b"12345")
    store.put("b", memoryview(b"12345678").cast("I"))
    store.get("a", 1, 2)
    list(store.list(""))
    store.delete(["a", "b", "c"])
    assert store.counts == Counts(
        checks=1, puts=2, gets=1, lists=1, deletes=1, bytes_put=13, bytes_got=2, keys_listed=2, keys_deleted=3
    )


def test_call_that_fails_is_a_call_without_bytes() -> None:
    faulty = FaultyStore(MemoryStore())
    faulty.on("put").raises(StoreUnreachable("away"))
    store = CountedStore(faulty)
    with pytest.raises(StoreUnreachable):
        store.put("a", b"12345")
    assert store.counts == Counts(puts=1)


def test_abandoned_listing_counts_its_objects() -> None:
    store = CountedStore(MemoryStore())
    for key in "abcd":
        store.put(key, b"")
    listing = store.list("")
    next(listing)
    next(listing)
    del listing
    assert store.counts.keys_listed == 2


def test_no_thread_is_lost_in_the_count() -> None:
    store = CountedStore(MemoryStore())
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"k{number}", b"123"), range(500)))
    assert (store.counts.puts, store.counts.bytes_put) == (500, 1500)
