"""A scripted store fails exactly as its script says."""

from __future__ import annotations

from math import inf

import pytest

from cinderblock.errors import StoreUnreachable
from cinderblock.store.memory import MemoryStore
from tests.support.store.faults import Crash, FaultyStore


@pytest.fixture
def inside() -> MemoryStore:
    """Return a store with three packs."""
    store = MemoryStore()
    for number in range(3):
        store.put(f"packs/{number}", b"0123456789")
    return store


def test_only_the_calls_between_after_and_times_fail(inside: MemoryStore) -> None:
    store = FaultyStore(inside)
    store.on("put", "packs/").raises(StoreUnreachable("away")).after(1).times(2)
    outcomes = []
    for number in range(5):
        store.put("elsewhere", b"")
        try:
            store.put(f"packs/new-{number}", b"")
            outcomes.append("stored")
        except StoreUnreachable:
            outcomes.append("failed")
    assert outcomes == ["stored", "failed", "failed", "stored", "stored"]


def test_crash_before_leaves_nothing_and_one_after_leaves_all(inside: MemoryStore) -> None:
    for done, kept in ((False, []), (True, ["manifest"])):
        store = FaultyStore(inside)
        store.on("put", "manifest").crashes(done=done)
        with pytest.raises(Crash):
            store.put("manifest", b"")
        assert [item.key for item in inside.list("manifest")] == kept


def test_dead_stay_dead(inside: MemoryStore) -> None:
    store = FaultyStore(inside)
    store.on("get").crashes()
    with pytest.raises(Crash):
        store.get("packs/0")
    with pytest.raises(Crash):
        store.get("packs/0")
    with pytest.raises(Crash):
        store.put("packs/9", b"")
    assert FaultyStore(inside).get("packs/0") == b"0123456789"


def test_reads_can_be_damaged(inside: MemoryStore) -> None:
    store = FaultyStore(inside)
    store.on("get", "packs/0").truncates(4)
    store.on("get", "packs/1").flips_a_bit(at=-1)
    assert store.get("packs/0") == b"0123"
    assert store.get("packs/1") == b"012345678)"
    assert store.get("packs/0") == store.get("packs/1") == b"0123456789"


def test_deletion_can_stop_partway(inside: MemoryStore) -> None:
    store = FaultyStore(inside)
    store.on("delete").raises(StoreUnreachable("away"), partway=2)
    with pytest.raises(StoreUnreachable):
        store.delete(["packs/0", "packs/1", "packs/2"])
    assert [item.key for item in inside.list("")] == ["packs/2"]


def test_listing_can_stop_partway(inside: MemoryStore) -> None:
    store = FaultyStore(inside)
    store.on("list").raises(StoreUnreachable("away"), partway=2)
    listing = store.list("")
    assert [next(listing).key, next(listing).key] == ["packs/0", "packs/1"]
    with pytest.raises(StoreUnreachable):
        next(listing)


def test_calls_can_take_longer(inside: MemoryStore) -> None:
    waits: list[float] = []
    store = FaultyStore(inside, waits.append)
    store.on("get").delays(2.5).times(inf)
    assert store.get("packs/0") == store.get("packs/1")
    assert waits == [2.5, 2.5]
