"""The cluster is read when somebody asks, once for all who ask, and what was read last is told if it cannot be read."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.metrics import collector as metrics_collector
from cinderblock.controller.metrics.collector import CACHE_SECONDS, MANY_OBJECTS, ClusterCollector
from cinderblock.controller.metrics.server import SnapshotReader
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi


class Api(SimulatedApi):
    """Counts requests, and may be away."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: START, lambda _: None), lambda *_: None)
        self.requests = 0
        self.is_away = False
        self.hangs: asyncio.Event | None = None

    async def round_trip(self, request: Request) -> Response:
        self.requests += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.is_away:
            raise KubeUnavailable("away")
        return await super().round_trip(request)


LISTS = 5


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_who_asks_again_soon_costs_nothing() -> None:
    api, clock = Api(), Clock()
    view = ClusterCollector(KubeClient(api), clock)
    await asyncio.gather(*(view.state() for _ in range(5)))
    assert api.requests == LISTS
    clock.now += CACHE_SECONDS + 1
    await view.state()
    assert api.requests == 2 * LISTS


async def test_a_reading_that_takes_long_is_kept_for_longer() -> None:
    api, clock = Api(), Clock()
    view = ClusterCollector(KubeClient(api), clock)
    api.hangs = asyncio.Event()
    first = asyncio.create_task(view.state())
    await asyncio.sleep(0.01)
    clock.now += 1
    api.hangs.set()
    await first
    clock.now += MANY_OBJECTS - 3
    await view.state()
    assert api.requests == LISTS
    clock.now += 5
    await view.state()
    assert api.requests == 2 * LISTS


async def test_an_api_server_that_does_not_answer_leaves_the_last_figures_with_their_age() -> None:
    api, clock = Api(), Clock()
    view = ClusterCollector(KubeClient(api), clock)
    first, _ = await view.state()
    api.is_away = True
    clock.now += 500
    second, age = await view.state()
    assert second is first is not None
    assert age == 500


async def test_an_api_server_that_never_answered_gives_no_figures() -> None:
    api = Api()
    api.is_away = True
    state, _ = await ClusterCollector(KubeClient(api)).state()
    assert state is None


async def test_who_asks_does_not_wait_for_an_api_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_collector, "READ_TIMEOUT_SECONDS", 0.01)
    api = Api()
    api.hangs = asyncio.Event()
    view = ClusterCollector(KubeClient(api))
    state, _ = await view.state()
    assert state is None
    await view.aclose()


async def test_figures_are_forgotten_by_who_does_not_lead() -> None:
    api, clock = Api(), Clock()
    view = ClusterCollector(KubeClient(api), clock)
    await view.state()
    view.forget()
    await view.state()
    assert api.requests == 2 * LISTS


@pytest.mark.parametrize("is_leading", [True, False])
async def test_nobody_waits_for_what_is_in_the_queue_of_a_process_that_does_not_act(is_leading: bool) -> None:
    queue = WorkQueue()
    await queue.add(ObjectKey("VolumeBackup", "shop", "young"))
    kube = KubeClient(Api())
    view = ClusterCollector(kube)
    figures = await SnapshotReader(kube, queue, view, mover_limit=1, is_leading=lambda: is_leading).read()
    await view.aclose()
    assert figures.queue == {"due": int(is_leading), "delayed": 0, "running": 0}
