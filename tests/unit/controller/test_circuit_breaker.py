"""A store that never answers holds up few workers, and soon none; one that answers is asked at once."""

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


def silent() -> None:
    raise StoreUnreachable("http://s3 does not answer")


def refusing() -> None:
    raise AccessDenied("the key is refused")


def a_patience(endpoint: Endpoint | None = None, doubtful: asyncio.Semaphore | None = None) -> StoreBreaker:
    return StoreBreaker(endpoint or Endpoint(), doubtful or asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS))


async def test_what_a_call_returns_or_raises_is_handed_on() -> None:
    asked = a_patience()
    assert await asked.call(lambda: 5) == 5
    with pytest.raises(AccessDenied):
        await asked.call(refusing)
    assert await asked.call(lambda: 6) == 6


async def test_no_more_calls_wait_for_a_store_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asked, answer, waiting = a_patience(), threading.Event(), threading.Semaphore(0)

    def hanging() -> None:
        waiting.release()
        answer.wait(30)

    first = [asyncio.create_task(asked.call(hanging)) for _ in range(CONCURRENT_CALLS)]
    for _ in range(CONCURRENT_CALLS):
        await asyncio.to_thread(waiting.acquire)
    with pytest.raises(StoreUnreachable, match="has not answered earlier calls yet"):
        await asked.call(hanging)
    answer.set()
    await asyncio.gather(*first)
    assert await asked.call(lambda: 5) == 5


async def test_a_store_that_did_not_answer_is_not_asked_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls = a_patience(), 0

    def counted() -> None:
        nonlocal calls
        calls += 1
        silent()

    for _ in range(3):
        with pytest.raises(StoreUnreachable, match="http://s3 does not answer"):
            await asked.call(counted)
    assert calls == 1
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.0)
    again = a_patience()
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await again.call(counted)
    assert calls == 4


@pytest.mark.parametrize("is_one_endpoint", [True, False])
async def test_however_many_stores_never_answer_those_that_do_are_asked_at_once(
    monkeypatch: pytest.MonkeyPatch, is_one_endpoint: bool
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * UNPROVEN_CONCURRENT_CALLS))
    doubtful, away, answer = asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS), Endpoint(), threading.Event()
    good = a_patience(doubtful=doubtful)
    assert await good.call(lambda: 1) == 1
    waiting = 0

    def hanging() -> None:
        nonlocal waiting
        waiting += 1
        answer.wait(30)
        silent()

    stores = [a_patience(away if is_one_endpoint else Endpoint(), doubtful) for _ in range(100)]
    asked = [asyncio.create_task(store.call(hanging)) for store in stores]
    try:
        done, left = await asyncio.wait(asked, timeout=5)
        assert len(left) == UNPROVEN_CONCURRENT_CALLS
        assert all("Other stores that do not answer" in str(task.exception()) for task in done)
        assert await good.call(lambda: 2) == 2
    finally:
        answer.set()
    await asyncio.wait(asked)
    assert waiting == UNPROVEN_CONCURRENT_CALLS


async def test_a_store_that_cannot_be_reached_by_its_own_fault_stops_no_other_at_the_same_endpoint() -> None:
    endpoint, doubtful = Endpoint(), asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS)
    good, bad = a_patience(endpoint, doubtful), a_patience(endpoint, doubtful)
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await bad.call(silent)
        assert await good.call(lambda: 1) == 1
