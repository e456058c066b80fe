"""Caches and turns: what one namespace does leaves room for the others."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.broker.keyed_locks import KeyedLocks
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.broker.turns import NamespaceTurns
from cinderblock.errors import TransientError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_results_end_with_their_time() -> None:
    clock = Clock()
    cache: TtlCache[str] = TtlCache(10, 10, clock)
    cache.put("key", "shop", "value", 5.0)
    clock.now = 4.9
    assert cache.get("key") == "value"
    clock.now = 5.0
    assert cache.get("key") is None
    assert len(cache) == 0


def test_namespace_pushes_out_only_its_own_results() -> None:
    cache: TtlCache[str] = TtlCache(10, 3, Clock())
    cache.put("honest", "shop", "value", 60.0)
    for number in range(100):
        cache.put(f"key-{number}", "hostile", "value", 60.0)
    assert cache.get("honest") == "value"
    assert len(cache) == 4
    assert cache.get("key-99") == "value"
    assert cache.get("key-96") is None


def test_full_cache_takes_from_the_namespace_with_most() -> None:
    cache: TtlCache[str] = TtlCache(4, 10, Clock())
    for number in range(3):
        cache.put(f"key-{number}", "hostile", "value", 60.0)
    for name in ("a", "b", "c"):
        cache.put(name, name, "value", 60.0)
    assert [cache.get(name) for name in ("a", "b", "c")] == ["value"] * 3
    assert len(cache) == 4


def test_same_key_is_kept_once() -> None:
    cache: TtlCache[str] = TtlCache(4, 2, Clock())
    for _ in range(5):
        cache.put("key", "shop", "value", 60.0)
    assert len(cache) == 1


async def test_namespace_with_many_requests_delays_only_itself() -> None:
    turns = NamespaceTurns(2, 5)
    released, running = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal running
        async with turns.turn("hostile"):
            running += 1
            await released.wait()

    held = [asyncio.create_task(hold()) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert running == 2
    with pytest.raises(TransientError, match="too many"):
        async with turns.turn("hostile"):
            pass
    async with turns.turn("shop"):
        pass
    released.set()
    await asyncio.gather(*held)
    assert running == 5
    assert not turns._counts
    assert not turns._running


async def test_one_call_serves_all_who_ask_at_the_same_time() -> None:
    locks, calls, results = KeyedLocks(), 0, dict[str, int]()

    async def ask(key: str) -> int:
        nonlocal calls
        async with locks.hold(key):
            if key not in results:
                calls += 1
                number = calls
                await asyncio.sleep(0)
                results[key] = number
            return results[key]

    assert await asyncio.gather(*(ask("a") for _ in range(5)), ask("b")) == [1, 1, 1, 1, 1, 2]
    assert len(locks) == 0
