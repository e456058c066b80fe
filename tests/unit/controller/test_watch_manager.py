"""kopf's thread: however it ends, a caller that waits for its end is not left waiting.

The manager does not wait for listed namespaces that the operator may not read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, cast

import pytest

from cinderblock.controller.handlers import kopf_thread, watch_manager
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.kopf_thread import KopfThread
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
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


class Streams:
    """Watches that are open, in place of kopf's responses."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def is_open(self, watch: str) -> bool:
        return watch in self.open

    def longest_idle(self, watches: Iterable[str], since: float) -> float:
        del since
        return max((0.0 if watch in self.open else 1000.0 for watch in watches), default=0.0)


class Namespaces(SimulatedApi):
    """Refuses everything in some namespaces."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: START), lambda how, item: None)
        self.refused: set[str] = set()

    async def round_trip(self, request: Request) -> Response:
        if any(f"/namespaces/{name}/" in request.path for name in self.refused):
            return Response(403, b"{}")
        return await super().round_trip(request)


@pytest.fixture
async def manager(monkeypatch: pytest.MonkeyPatch) -> WatchManager:
    """Return a manager of three namespaces, all of whose watches are open."""
    monkeypatch.setattr(watch_manager, "OPENS_SECONDS", 0.0)
    monkeypatch.setattr(watch_manager, "MAY_LIST_SECONDS", 0.0)
    monkeypatch.setattr(watch_manager, "EXCUSED_SECONDS", 0.2)
    kube = KubeClient(Namespaces())
    kube.namespaces = ("one", "two", "three")
    queue = WorkQueue()
    manager = WatchManager(kube, EventHandler(queue, Acknowledger(queue)), lambda: 0.0)
    streams = Streams()
    streams.open = {name for kind in watch_manager.WATCHED_KINDS for name in manager._watches(kind)}
    manager._liveness = cast("Any", streams)
    return manager


def refuse(manager: WatchManager, *namespaces: str) -> None:
    cast("Any", manager)._kube._transport.refused = set(namespaces)
    streams = cast("Any", manager)._liveness
    streams.open = {name for name in streams.open if name.partition("/")[0] not in namespaces}


async def test_namespace_that_is_gone_holds_up_no_other(manager: WatchManager) -> None:
    refuse(manager, "two")
    await manager._update_served()
    assert manager.synced
    assert manager._restart_reason(10_000.0) == ""
    assert manager.longest_idle() == 0.0


async def test_closed_watches_of_a_namespace_that_may_be_read_are_missed(manager: WatchManager) -> None:
    cast("Any", manager)._liveness.open.discard("two/volumebackups")
    await manager._update_served()
    assert not manager.synced
    assert manager._restart_reason(10_000.0)


async def test_namespace_that_may_be_read_again_must_be_watched(manager: WatchManager) -> None:
    refuse(manager, "two")
    await manager._update_served()
    cast("Any", manager)._kube._transport.refused = set()
    await manager._update_served()
    assert manager.synced, "kopf repeats its request within 30 s"
    await asyncio.sleep(0.25)
    await manager._update_served()
    assert not manager.synced


async def test_operator_that_may_read_no_namespace_is_not_ready(manager: WatchManager) -> None:
    refuse(manager, "one", "two", "three")
    await manager._update_served()
    assert not manager.synced
