"""A store that never answers holds up few workers, and soon none; one that answers is asked at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cinderblock.errors import AccessDenied, StoreUnreachable
from cinderblock.handlers import patience
from cinderblock.handlers.patience import AT_ONCE, Patience


def silent() -> None:
    raise StoreUnreachable("http://s3 does not answer")


def refusing() -> None:
    raise AccessDenied("the key is refused")


async def test_what_a_call_returns_or_raises_is_handed_on() -> None:
    asked = Patience()
    assert await asked.ask(lambda: 5) == 5
    with pytest.raises(AccessDenied):
        await asked.ask(refusing)
    assert await asked.ask(lambda: 6) == 6


async def test_no_more_calls_wait_for_a_store_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SLOT_SECONDS", 0.05)
    asked, answer, waiting = Patience(), threading.Event(), threading.Semaphore(0)

    def hanging() -> None:
        waiting.release()
        answer.wait(30)

    first = [asyncio.create_task(asked.ask(hanging)) for _ in range(AT_ONCE)]
    for _ in range(AT_ONCE):
        await asyncio.to_thread(waiting.acquire)
    with pytest.raises(StoreUnreachable, match="has not answered earlier calls yet"):
        await asked.ask(hanging)
    answer.set()
    await asyncio.gather(*first)
    assert await asked.ask(lambda: 5) == 5


async def test_a_store_that_did_not_answer_is_not_asked_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls = Patience(), 0

    def counted() -> None:
        nonlocal calls
        calls += 1
        silent()

    for _ in range(3):
        with pytest.raises(StoreUnreachable, match="http://s3 does not answer"):
            await asked.ask(counted)
    assert calls == 1
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.0)
    again = Patience()
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await again.ask(counted)
    assert calls == 4
