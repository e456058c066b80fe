"""The contract of every store and every wrapper."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from cinderblock.errors import InvalidInput, NotFound
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import BODY_LIMIT, ObjectInfo, ObjectStore

MIB = 1024**2


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """Return the objects of a listing."""
    return [item.key for item in store.list(prefix)]


def test_check_may_be_repeated(store: ObjectStore) -> None:
    store.check()
    store.check()
    assert keys(store) == []


@pytest.mark.parametrize("body", [b"", b"x", bytearray(b"some bytes"), memoryview(b"padded bytes")[2:7]])
def test_object_is_read_back(store: ObjectStore, body: Buffer) -> None:
    store.put("a/key", body)
    assert store.get("a/key") == bytes(body)
    assert list(store.list("a/")) == [ObjectInfo("a/key", len(body))]


def test_memoryview_of_wider_items_counts_in_bytes(store: ObjectStore) -> None:
    store.put("wide", memoryview(b"12345678").cast("I"))
    assert store.get("wide") == b"12345678"


def test_read_returns_bytes_independent_of_the_buffer(store: ObjectStore) -> None:
    buffer = bytearray(b"first")
    store.put("key", buffer)
    buffer[:] = b"other"
    content = store.get("key")
    assert type(content) is bytes
    assert content == b"first"


def test_put_replaces_the_object(store: ObjectStore) -> None:
    store.put("key", b"a longer one")
    store.put("key", b"short")
    assert store.get("key") == b"short"
    assert list(store.list("")) == [ObjectInfo("key", 5)]


def test_create_replaces_nothing(store: ObjectStore) -> None:
    assert store.create("key", b"first")
    assert not store.create("key", b"second")
    assert store.get("key") == b"first"


@pytest.mark.parametrize(
    "size",
    [64 * 1024, 64 * 1024 + 1, 5 * MIB + 3, pytest.param(130 * MIB + 7, id="in parts")],
)
def test_large_bodies_are_read_back_completely(store: ObjectStore, size: int) -> None:
    body = os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB)
    store.put("large", body)
    assert store.get("large") == body
    assert store.get("large", size - 10, 20) == body[-10:]
    assert keys(store) == ["large"]


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (3, 2, b"34"),
        (7, None, b"789"),
        (8, 10, b"89"),
        (10, 1, b""),
        (10, None, b""),
        (99, 5, b""),
        (5, 0, b""),
        (-3, None, b"789"),
        (-3, 2, b"78"),
        (-10, None, b"0123456789"),
        (-99, None, b"0123456789"),
        (-99, 2, b"01"),
    ],
)
def test_part_can_be_read(store: ObjectStore, start: int, length: int | None, expected: bytes) -> None:
    store.put("key", b"0123456789")
    assert store.get("key", start, length) == expected


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 5), (3, None), (-4, None)])
def test_parts_of_an_empty_object_are_empty(store: ObjectStore, start: int, length: int | None) -> None:
    store.put("empty", b"")
    assert store.get("empty", start, length) == b""


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 0), (5, 10), (-5, None)])
def test_missing_object_is_not_found(store: ObjectStore, start: int, length: int | None) -> None:
    store.put("key", b"x")
    with pytest.raises(NotFound, match="Cannot read ke in ") as caught:
        store.get("ke", start, length)
    assert caught.value.reason == "NotFound"


def test_listing_is_in_order_of_bytes(store: ObjectStore) -> None:
    # The order of a directory walk is another one: "a/" comes before "a-b" there.
    expected = ["A", "a!", "a-b", "a.b", "a/b-c/d", "a/b.c", "a/c/d", "a0", "ab", "b"]
    for key in reversed(expected):
        store.put(key, b"")
    assert keys(store) == expected


def test_listing_holds_only_keys_with_the_prefix(store: ObjectStore) -> None:
    for key in ("p/1", "p/2/x", "pq", "q/p/1"):
        store.put(key, b"xyz")
    assert list(store.list("p/")) == [ObjectInfo("p/1", 3), ObjectInfo("p/2/x", 3)]
    assert keys(store, "p/2/x") == ["p/2/x"]
    assert keys(store, "p/2/xy") == []


def test_listings_and_deletions_go_beyond_one_page(store: ObjectStore) -> None:
    expected = [f"packs/{number:05}" for number in range(2003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"."), expected))
    assert keys(store, "packs/") == expected
    store.delete(key for key in expected[1:])
    assert keys(store, "packs/") == expected[:1]


def test_deletion_may_be_repeated_and_name_absent_keys(store: ObjectStore) -> None:
    store.put("one", b"1")
    store.put("two", b"2")
    store.delete(["one", "never/there"])
    store.delete(["one"])
    assert keys(store) == ["two"]
    with pytest.raises(NotFound):
        store.get("one")


def test_deleting_nothing_deletes_nothing(store: ObjectStore) -> None:
    store.put("key", b"x")
    store.delete([])
    assert keys(store) == ["key"]


@pytest.mark.parametrize("key", ["a b", "a+b", "a&b<c>", "a%20b", "a?b#c", "x=y/~z_'(*)!", "k" * 200])
def test_keys_are_taken_literally(store: ObjectStore, key: str) -> None:
    store.put(key, key.encode())
    assert store.get(key) == key.encode()
    assert keys(store) == [key]
    store.delete([key])
    assert keys(store) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "ä", "a\n", "a" * 1025])
def test_impossible_key_is_rejected(store: ObjectStore, key: str) -> None:
    store.put("a", b"x")
    with pytest.raises(InvalidInput):
        store.put(key, b"x")
    with pytest.raises(InvalidInput):
        store.get(key)
    with pytest.raises(InvalidInput):
        store.delete([key])
    assert keys(store) == ["a"]


def test_body_too_large_for_one_object_is_rejected(store: ObjectStore, sparse: memoryview) -> None:
    assert sparse.nbytes > BODY_LIMIT
    with pytest.raises(InvalidInput, match=str(sparse.nbytes)):
        store.put("huge", sparse)
    assert keys(store) == []


def test_threads_do_not_disturb_each_other(store: ObjectStore) -> None:
    def work(number: int) -> bool:
        body = bytes([number]) * (100_000 + number)
        store.put(f"t/{number}", body)
        return store.get(f"t/{number}") == body and store.get(f"t/{number}", -number - 1) == body[-number - 1 :]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(100)))
    assert len(keys(store, "t/")) == 100
