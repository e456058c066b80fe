"""The cluster is read on demand, once for all concurrent scrapes. If that fails, the last snapshot is served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cinderblock.controller.metrics import collector as metrics_collector
from cinderblock.controller.metrics.collector import CACHE_SECONDS, CACHE_TO_READ_RATIO, ClusterCollector
from cinderblock.controller.metrics.server import SnapshotReader
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.reduction import reduce_object
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi


class Api(SimulatedApi):
    """Counts requests, and can fail or block them."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: START, lambda _: None), lambda *_: None)
        self.requests = 0
        self.is_down = False
        self.may_answer: asyncio.Event | None = None

    async def round_trip(self, request: Request) -> Response:
        self.requests += 1
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.is_down:
            raise KubeUnavailable("down")
        return await super().round_trip(request)


LISTS = 5
DISCOVERY = 1
"""Requests for the kinds that the cluster serves. The client keeps the answer."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_concurrent_and_repeated_scrapes_share_one_read() -> None:
    api, clock = Api(), Clock()
    collector = ClusterCollector(KubeClient(api), clock)
    await asyncio.gather(*(collector.state() for _ in range(5)))
    assert api.requests == LISTS + DISCOVERY
    clock.now += CACHE_SECONDS + 1
    await collector.state()
    assert api.requests == 2 * LISTS + DISCOVERY


async def test_slow_read_is_cached_for_longer() -> None:
    api, clock = Api(), Clock()
    collector = ClusterCollector(KubeClient(api), clock)
    api.may_answer = asyncio.Event()
    first = asyncio.create_task(collector.state())
    await asyncio.sleep(0.01)
    clock.now += 1
    api.may_answer.set()
    await first
    clock.now += CACHE_TO_READ_RATIO - 3
    await collector.state()
    assert api.requests == LISTS + DISCOVERY
    clock.now += 5
    await collector.state()
    assert api.requests == 2 * LISTS + DISCOVERY


async def test_failed_read_keeps_the_last_state_and_its_age() -> None:
    api, clock = Api(), Clock()
    collector = ClusterCollector(KubeClient(api), clock)
    first, _ = await collector.state()
    api.is_down = True
    clock.now += 500
    second, age = await collector.state()
    assert second is first is not None
    assert age == 500


async def test_there_is_no_state_before_the_first_read() -> None:
    api = Api()
    api.is_down = True
    state, _ = await ClusterCollector(KubeClient(api)).state()
    assert state is None


async def test_scrape_does_not_wait_for_a_hanging_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_collector, "READ_TIMEOUT_SECONDS", 0.01)
    api = Api()
    api.may_answer = asyncio.Event()
    collector = ClusterCollector(KubeClient(api))
    state, _ = await collector.state()
    assert state is None
    await collector.aclose()


async def test_forgotten_state_is_read_again() -> None:
    api, clock = Api(), Clock()
    collector = ClusterCollector(KubeClient(api), clock)
    await collector.state()
    collector.forget()
    await collector.state()
    assert api.requests == 2 * LISTS + DISCOVERY


@pytest.mark.parametrize("is_leading", [True, False])
async def test_standby_replica_reports_an_empty_queue(is_leading: bool) -> None:
    queue = WorkQueue()
    await queue.add(ObjectKey("VolumeBackup", "shop", "young"))
    kube = KubeClient(Api())
    collector = ClusterCollector(kube)
    snapshot = await SnapshotReader(kube, queue, collector, mover_limit=1, is_leading=lambda: is_leading).read()
    await collector.aclose()
    assert snapshot.queue == {"due": int(is_leading), "delayed": 0, "running": 0}


SCHEDULE_KINDS = ("BackupSchedule", "ClusterBackupSchedule")


def made(api: Api, kind: str, namespace: str, name: str, body: dict[str, Any]) -> None:
    """Create an object with its status."""
    metadata = {"name": name, "labels": body.pop("labels", {})} | ({"namespace": namespace} if namespace else {})
    status = body.pop("status", None)
    found = api.objects.create(kind, {"metadata": metadata} | body)
    assert found is not None
    if status:
        api.objects.update(found, status=status)


def cluster_with_schedules() -> Api:
    """Return a cluster in which a schedule selects one of three volumes, and a fourth is not bound."""
    api = Api()
    now = "2026-05-04T12:00:00Z"
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Any", "lastTransitionTime": now}]}
    for namespace in ("shop", "blog"):
        made(api, "Namespace", "", namespace, {})
    for namespace, name, phase in (
        ("shop", "data", "Bound"),
        ("shop", "cache", "Bound"),
        ("shop", "new", "Pending"),
        ("blog", "data", "Bound"),
    ):
        claim = {
            "labels": {"app": name},
            "spec": {"storageClassName": "fast", "volumeName": name},
            "status": {"phase": phase},
        }
        made(api, "PersistentVolumeClaim", namespace, name, claim)
    spec = {"schedule": "@daily", "volumes": {"selector": {"matchLabels": {"app": "data"}}}}
    made(api, "BackupSchedule", "shop", "daily", {"spec": spec, "status": ready})
    return api


async def test_volumes_that_no_schedule_selects_are_counted_by_namespace() -> None:
    api = cluster_with_schedules()
    state = await metrics_collector.read(KubeClient(api, reduce=reduce_object), SCHEDULE_KINDS)
    found = {namespace: dict(counts) for namespace, counts in state.protection.items()}
    assert found == {"shop": {"protected": 1, "unprotected": 1}, "blog": {"unprotected": 1}}
    assert api.requests == LISTS + DISCOVERY + 3


async def test_operator_without_schedules_does_not_count_unprotected_volumes() -> None:
    api = cluster_with_schedules()
    state = await metrics_collector.read(KubeClient(api, reduce=reduce_object))
    assert state.protection == {}
    assert api.requests == LISTS + DISCOVERY


async def test_operator_of_some_namespaces_lists_no_namespaces() -> None:
    kube = KubeClient(cluster_with_schedules(), reduce=reduce_object)
    kube.namespaces = ("shop",)
    state = await metrics_collector.read(kube, SCHEDULE_KINDS)
    assert state.protection.keys() == {"shop"}
    assert ("list", "namespaces", 200) not in kube.response_counts


async def test_claim_that_does_not_parse_hides_no_other() -> None:
    """Such a claim ended each reading, and with it all metrics and all alerts of the webhook."""
    api = cluster_with_schedules()
    claim = {"spec": {"storageClassName": 7, "volumeName": "odd"}, "status": {"phase": "Bound"}}
    made(api, "PersistentVolumeClaim", "shop", "odd", claim)
    state = await metrics_collector.read(KubeClient(api, reduce=reduce_object), SCHEDULE_KINDS)
    assert sum(state.protection["shop"].values()) == 2


async def test_defect_of_a_reading_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def read(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(metrics_collector, "read", read)
    state, _ = await ClusterCollector(KubeClient(Api())).state()
    assert state is None
    assert "Could not read the state for metrics" in caplog.text
