"""kopf's thread: however it ends, a caller that waits for its end is not left waiting."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cinderblock.controller.handlers import kopf_thread
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.kopf_thread import KopfThread
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube.client import KubeClient
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi


@pytest.fixture
async def thread() -> KopfThread:
    kube = KubeClient(SimulatedApi(ObjectsInMemory(lambda: START), lambda how, item: None))
    queue = WorkQueue()
    return KopfThread(EventHandler(queue, Acknowledger(queue)), kube, WatchLiveness())


async def test_stop_waits_for_a_thread_that_is_just_ending(thread: KopfThread) -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    thread._loop, thread._stop = ended, asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, thread._ended.set)
    async with asyncio.timeout(5):
        await thread.stop()


async def test_thread_ends_even_if_its_clean_up_fails(thread: KopfThread, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> None:
        pass

    async def broken() -> None:
        raise OSError("a connection that cannot be closed")

    monkeypatch.setattr(thread, "_operate", nothing)
    monkeypatch.setattr(thread, "_end_tasks", broken)
    thread.start()
    assert await thread.ended(5)


async def test_stop_abandons_a_thread_that_hangs(
    thread: KopfThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_end = threading.Event()

    async def hang() -> None:
        may_end.wait(30)

    monkeypatch.setattr(kopf_thread, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(thread, "_operate", hang)
    thread.start()
    try:
        async with asyncio.timeout(5):
            await thread.stop()
        assert "kopf did not stop in time" in caplog.text
    finally:
        may_end.set()
    assert await thread.ended(5)
