"""A store that never answers holds few workers, and soon none; one that answers is called at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cinderblock.controller.stores import circuit_breaker
from cinderblock.controller.stores.circuit_breaker import (
    CONCURRENT_CALLS,
    UNPROVEN_CONCURRENT_CALLS,
    Endpoint,
    StoreBreaker,
)
from cinderblock.errors import AccessDenied, StoreUnreachable


def unreachable() -> None:
    raise StoreUnreachable("http://s3 does not answer")


def denied() -> None:
    raise AccessDenied("the key is rejected")


def a_breaker(endpoint: Endpoint | None = None, unproven: asyncio.Semaphore | None = None) -> StoreBreaker:
    return StoreBreaker(endpoint or Endpoint(), unproven or asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS))


async def test_breaker_passes_on_results_and_errors() -> None:
    breaker = a_breaker()
    assert await breaker.call(lambda: 5) == 5
    with pytest.raises(AccessDenied):
        await breaker.call(denied)
    assert await breaker.call(lambda: 6) == 6


async def test_calls_beyond_the_limit_fail_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    breaker, answer, waiting = a_breaker(), threading.Event(), threading.Semaphore(0)

    def hanging() -> None:
        waiting.release()
        answer.wait(30)

    first = [asyncio.create_task(breaker.call(hanging)) for _ in range(CONCURRENT_CALLS)]
    for _ in range(CONCURRENT_CALLS):
        await asyncio.to_thread(waiting.acquire)
    with pytest.raises(StoreUnreachable, match="has not answered earlier calls yet"):
        await breaker.call(hanging)
    answer.set()
    await asyncio.gather(*first)
    assert await breaker.call(lambda: 5) == 5


async def test_open_breaker_fails_calls_without_making_them(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, calls = a_breaker(), 0

    def counted() -> None:
        nonlocal calls
        calls += 1
        unreachable()

    for _ in range(3):
        with pytest.raises(StoreUnreachable, match="http://s3 does not answer"):
            await breaker.call(counted)
    assert calls == 1
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.0)
    again = a_breaker()
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await again.call(counted)
    assert calls == 4


@pytest.mark.parametrize("is_one_endpoint", [True, False])
async def test_hundred_unreachable_stores_do_not_delay_a_reachable_one(
    monkeypatch: pytest.MonkeyPatch, is_one_endpoint: bool
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * UNPROVEN_CONCURRENT_CALLS))
    unproven, away, answer = asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS), Endpoint(), threading.Event()
    good = a_breaker(unproven=unproven)
    assert await good.call(lambda: 1) == 1
    waiting = 0

    def hanging() -> None:
        nonlocal waiting
        waiting += 1
        answer.wait(30)
        unreachable()

    stores = [a_breaker(away if is_one_endpoint else Endpoint(), unproven) for _ in range(100)]
    asked = [asyncio.create_task(store.call(hanging)) for store in stores]
    try:
        done, left = await asyncio.wait(asked, timeout=5)
        assert len(left) == UNPROVEN_CONCURRENT_CALLS
        assert all("Too many calls already wait" in str(task.exception()) for task in done)
        assert await good.call(lambda: 2) == 2
    finally:
        answer.set()
    await asyncio.wait(asked)
    assert waiting == UNPROVEN_CONCURRENT_CALLS


async def test_store_with_wrong_settings_does_not_affect_others_at_its_endpoint() -> None:
    endpoint, unproven = Endpoint(), asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS)
    good, bad = a_breaker(endpoint, unproven), a_breaker(endpoint, unproven)
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await bad.call(unreachable)
        assert await good.call(lambda: 1) == 1
