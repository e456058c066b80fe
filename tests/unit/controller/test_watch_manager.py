"""kopf's thread: whatever happens at its end, who waits for that end hears of it."""

from __future__ import annotations

import asyncio

import pytest

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


async def test_who_stops_a_thread_that_has_just_ended_by_itself_waits_for_its_end(thread: KopfThread) -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    thread._own, thread._stop = ended, asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, thread._ended.set)
    async with asyncio.timeout(5):
        await thread.stop()


async def test_a_thread_whose_remains_cannot_be_cleared_has_ended_all_the_same(
    thread: KopfThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        pass

    async def broken() -> None:
        raise OSError("a connection that cannot be closed")

    monkeypatch.setattr(thread, "_operate", nothing)
    monkeypatch.setattr(thread, "_clear", broken)
    thread.start()
    assert await thread.ended(5)
