"""A store that never answers holds few workers, and soon none; one that answers is called at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cinderblock.controller.stores import circuit_breaker
from cinderblock.controller.stores.circuit_breaker import (
    CONCURRENT_CALLS,
    LONG_CALL_SECONDS,
    LONG_CONCURRENT_CALLS,
    NAMESPACE_CALLS,
    UNPROVEN_CONCURRENT_CALLS,
    Endpoint,
    NamespaceSlots,
    SharedSlots,
    StoreBreaker,
)
from cinderblock.errors import AccessDenied, CinderblockError, PermanentError, StoreTooSlow, StoreUnreachable
from cinderblock.store.deadline import remaining_seconds


def unreachable() -> None:
    raise StoreUnreachable("http://s3 does not answer")


def denied() -> None:
    raise AccessDenied("the key is rejected")


def a_breaker(endpoint: Endpoint | None = None, slots: NamespaceSlots | None = None) -> StoreBreaker:
    return StoreBreaker(endpoint or Endpoint(), slots or some_slots())


def some_slots(calls: int = 8, unproven: int = UNPROVEN_CONCURRENT_CALLS) -> NamespaceSlots:
    return NamespaceSlots(asyncio.Semaphore(calls), asyncio.Semaphore(unproven), asyncio.Semaphore(8))


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


async def test_message_of_a_busy_store_names_it_and_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(circuit_breaker, "_THREAD_SECONDS", 0.01)
    answer = threading.Event()
    messages: list[str] = []
    for slots in (some_slots(calls=0), some_slots(unproven=0)):
        breaker = StoreBreaker(Endpoint(), slots, "BackupStore b at https://s3")
        with pytest.raises(StoreUnreachable) as busy:
            await breaker.call(lambda: None)
        messages.append(busy.value.message)
    slow = StoreBreaker(Endpoint(), some_slots(), "BackupStore b at https://s3")
    with pytest.raises(StoreTooSlow) as caught:
        await slow.call(lambda: answer.wait(30), 0.01)
    answer.set()
    for message in (*messages, caught.value.message):
        assert re.match(r"Cannot \w+ BackupStore b at https://s3[^.]*: [^.]+\. Check .+\.", message), message


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


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Leave cycles alone: in a process with many objects, the collector rarely visits old ones."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("error", [StoreUnreachable, PermanentError, RuntimeError])
async def test_failed_call_keeps_nothing_that_it_has_read(
    without_collector: None, error: type[CinderblockError] | type[RuntimeError]
) -> None:
    """A tenant may have thousands of stores, and an answer has up to 4 MiB."""
    answers = []

    def read_and_fail() -> None:
        answer = _Answer()
        answers.append(weakref.ref(answer))
        cause = ValueError(answer)
        failure = error(f"{answer} is malformed")
        raise failure from cause

    breaker = a_breaker()
    for _ in range(2):
        with contextlib.suppress(error):
            await breaker.call(read_and_fail)
    # The thread of a call releases it a moment after its result is known.
    async with asyncio.timeout(60):
        while any(answer() is not None for answer in answers):  # noqa: ASYNC110 - a thread does not tell that it is idle
            await asyncio.sleep(0.01)


async def test_error_of_a_failed_call_still_shows_its_lines() -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect") as caught:
        await a_breaker().call(fail)
    assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


class _Answer:
    """An answer of a server."""


@pytest.mark.parametrize("is_one_endpoint", [True, False])
async def test_hundred_unreachable_stores_do_not_delay_a_reachable_one(
    monkeypatch: pytest.MonkeyPatch, is_one_endpoint: bool
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * UNPROVEN_CONCURRENT_CALLS))
    slots, away, answer = some_slots(calls=400), Endpoint(), threading.Event()
    good = a_breaker(slots=slots)
    assert await good.call(lambda: 1) == 1
    waiting = 0

    def hanging() -> None:
        nonlocal waiting
        waiting += 1
        answer.wait(30)
        unreachable()

    stores = [a_breaker(away if is_one_endpoint else Endpoint(), slots) for _ in range(100)]
    asked = [asyncio.create_task(store.call(hanging)) for store in stores]
    try:
        done, left = await asyncio.wait(asked, timeout=5)
        assert len(left) == UNPROVEN_CONCURRENT_CALLS
        assert all("too many calls already wait" in str(task.exception()) for task in done)
        assert await good.call(lambda: 2) == 2
    finally:
        answer.set()
    await asyncio.wait(asked)
    assert waiting == UNPROVEN_CONCURRENT_CALLS


async def test_namespace_cannot_hold_all_workers_by_endpoints_that_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    shared, answer = SharedSlots(), threading.Event()
    slots = shared.of_namespace()
    # These endpoints have answered before, so they are proven.
    hostile = [StoreBreaker(Endpoint(is_proven=True), slots) for _ in range(8)]
    asked = [asyncio.create_task(store.call(lambda: answer.wait(30))) for store in hostile for _ in range(4)]
    try:
        done, left = await asyncio.wait(asked, timeout=2)
        assert len(left) == NAMESPACE_CALLS
        assert all("calls already wait for stores of this namespace" in str(task.exception()) for task in done)
        assert await a_breaker(slots=shared.of_namespace()).call(lambda: 1) == 1
    finally:
        answer.set()
    await asyncio.wait(asked)


async def test_namespaces_of_one_person_cannot_hold_all_workers_by_long_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    shared, answer = SharedSlots(), threading.Event()
    hostile = [StoreBreaker(Endpoint(is_proven=True), shared.of_namespace()) for _ in range(8)]
    asked = [
        asyncio.create_task(store.call(lambda: answer.wait(30), LONG_CALL_SECONDS))
        for store in hostile
        for _ in range(4)
    ]
    try:
        done, left = await asyncio.wait(asked, timeout=2)
        assert len(left) == LONG_CONCURRENT_CALLS
        assert all("too many deletions and searches already run" in str(task.exception()) for task in done)
        victim = StoreBreaker(Endpoint(is_proven=True), shared.of_namespace())
        assert await victim.call(lambda: 1) == 1
    finally:
        answer.set()
    await asyncio.wait(asked)
    assert await hostile[0].call(lambda: 2, LONG_CALL_SECONDS) == 2


async def test_call_that_outlives_its_deadline_keeps_its_slot_until_its_thread_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(circuit_breaker, "_THREAD_SECONDS", 0.05)
    slots, ends = some_slots(calls=1, unproven=1), threading.Event()
    breaker = StoreBreaker(Endpoint(), slots)
    with pytest.raises(StoreTooSlow, match="not ended after 0 s"):
        await breaker.call(lambda: ends.wait(30), 0.1)
    assert slots.calls.locked()
    ends.set()
    async with asyncio.timeout(5):
        await slots.calls.acquire()


async def test_deadline_reaches_the_requests_of_a_call() -> None:
    assert 29 < await a_breaker().call(remaining_seconds) <= 30
    assert 599 < await a_breaker().call(remaining_seconds, LONG_CALL_SECONDS) <= 600


async def test_only_one_call_finds_out_whether_a_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.0)
    breaker, answer, calls = a_breaker(), threading.Event(), 0
    with pytest.raises(StoreUnreachable):
        await breaker.call(unreachable)

    def hanging() -> None:
        nonlocal calls
        calls += 1
        answer.wait(30)
        unreachable()

    probe = asyncio.create_task(breaker.call(hanging))
    await asyncio.sleep(0.1)
    for _ in range(5):
        with pytest.raises(StoreUnreachable, match="http://s3 does not answer"):
            await breaker.call(hanging)
    answer.set()
    with pytest.raises(StoreUnreachable):
        await probe
    assert calls == 1
    assert await breaker.call(lambda: 1) == 1
    assert await asyncio.gather(breaker.call(lambda: 2), breaker.call(lambda: 3)) == [2, 3]


async def test_long_call_does_not_keep_others_from_a_store_that_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.0)
    breaker, ends = a_breaker(), threading.Event()
    with pytest.raises(StoreUnreachable):
        await breaker.call(unreachable)
    deletion = asyncio.create_task(breaker.call(lambda: ends.wait(30), LONG_CALL_SECONDS))
    await asyncio.sleep(0.1)
    assert await breaker.call(lambda: 1) == 1
    ends.set()
    assert await deletion


async def test_answer_that_denies_ends_the_search_for_an_absent_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0.0)
    breaker = a_breaker()
    with pytest.raises(StoreUnreachable):
        await breaker.call(unreachable)
    with pytest.raises(AccessDenied):
        await breaker.call(denied)
    assert await asyncio.gather(breaker.call(lambda: 2), breaker.call(lambda: 3)) == [2, 3]


async def test_slow_endpoint_stays_unproven_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(circuit_breaker, "PROBATION_SECONDS", 0.3)
    endpoint = Endpoint()
    breaker = a_breaker(endpoint)
    await breaker.call(lambda: time.sleep(0.1))
    await breaker.call(lambda: None)
    assert not endpoint.is_proven
    await asyncio.sleep(0.35)
    await breaker.call(lambda: None)
    assert endpoint.is_proven


async def test_store_with_wrong_settings_does_not_affect_others_at_its_endpoint() -> None:
    endpoint, slots = Endpoint(), some_slots()
    good, bad = a_breaker(endpoint, slots), a_breaker(endpoint, slots)
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await bad.call(unreachable)
        assert await good.call(lambda: 1) == 1
