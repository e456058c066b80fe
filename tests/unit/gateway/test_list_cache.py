"""Cached lists expire, belong to one caller, and stay within a limit of memory."""

from __future__ import annotations

import pytest

from cinderblock.gateway.rest.list_cache import CACHE_SECONDS, CachedTail, ListCache, key_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountedTail(CachedTail):
    """Counts how often its size is computed, which takes one addition per item."""

    estimates = 0

    def estimate_bytes(self) -> int:
        CountedTail.estimates += 1
        return super().estimate_bytes()


def tail(read_at: float = 0.0, items: int = 1) -> CachedTail:
    return CachedTail([(str(number), b"x" * 900) for number in range(items)], items, read_at)


def test_tail_can_be_taken_once() -> None:
    cache = ListCache(clock=Clock())
    cache.put("shop", "key", tail())
    assert cache.pop("shop", "key") == tail()
    assert cache.pop("shop", "key") is None


def test_tail_expires_with_the_first_page() -> None:
    clock = Clock()
    cache = ListCache(clock=clock)
    cache.put("shop", "key", tail())
    clock.now = CACHE_SECONDS + 0.1
    assert cache.pop("shop", "key") is None


def test_change_in_a_project_drops_its_lists_only() -> None:
    cache = ListCache(clock=Clock())
    cache.put("shop", "key", tail())
    cache.put("mail", "key", tail())
    cache.forget("shop")
    assert cache.pop("shop", "key") is None
    assert cache.pop("mail", "key") is not None


def test_oldest_tails_make_room_within_the_limit() -> None:
    cache = ListCache(clock=Clock(), limit=2500)
    for name in ("one", "two", "three"):
        cache.put("shop", name, tail())
    cache.put("shop", "huge", tail(items=3))
    assert [cache.pop("shop", name) is None for name in ("one", "two", "three", "huge")] == [True, False, False, True]


def test_memory_of_removed_tails_is_available_again() -> None:
    """Every way of removal is subtracted from the total: replacing, taking, forgetting, expiring."""
    clock = Clock()
    cache = ListCache(clock=clock, limit=2500)
    for _ in range(5):
        cache.put("shop", "one", tail())
        cache.put("shop", "one", tail(clock.now))
        cache.pop("shop", "one")
        cache.put("shop", "one", tail(clock.now))
        cache.forget("shop")
        cache.put("shop", "one", tail(clock.now))
        clock.now += CACHE_SECONDS + 0.1
    for name in ("one", "two"):
        cache.put("shop", name, tail(clock.now))
    assert [cache.pop("shop", name) is None for name in ("one", "two")] == [False, False]


def test_size_of_a_tail_is_computed_once() -> None:
    CountedTail.estimates = 0
    cache = ListCache(clock=Clock(), limit=10_000)
    for number in range(50):
        cache.put("shop", str(number), CountedTail([("id", b"x" * 900)], 1, 0.0))
    assert CountedTail.estimates == 50


WHERE = ["3.71", "http://x", "/backups", "marker"]


@pytest.mark.parametrize(
    ("token", "where", "query"),
    [
        ("else", WHERE, {"limit": "5"}),
        ("token", ["3.0", *WHERE[1:]], {"limit": "5"}),
        ("token", [*WHERE[:3], "another"], {"limit": "5"}),
        ("token", WHERE, {"limit": "5", "status": "error"}),
    ],
)
def test_key_depends_on_token_place_and_query(token: str, where: list[str], query: dict[str, str]) -> None:
    key = key_of("token", WHERE, {"limit": "5"})
    assert key == key_of("token", WHERE, {"marker": "before", "limit": "5"})
    assert key != key_of(token, where, query)
    assert "token" not in key
