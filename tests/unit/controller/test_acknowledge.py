"""New backups are told that they wait, when they do for more than a moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import (
    ACKNOWLEDGE_AFTER_SECONDS,
    ACKNOWLEDGED_PER_PERIOD,
    PERIOD_SECONDS,
    Acknowledger,
)
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import Conflict, KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from tests.support.simulation.virtual_time import in_virtual_time

JsonObject = dict[str, Any]


class Api:
    """Takes statuses; a write takes a tenth of a second."""

    def __init__(self) -> None:
        self.written: dict[str, JsonObject] = {}
        self.errors: list[Exception] = []
        self.most_at_once = self.at_once = 0

    async def apply_status(self, kind: object, name: str, namespace: str, status: JsonObject, **how: str) -> None:
        assert how == {"uid": f"u-{name}", "resource_version": "7"}
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.1)
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop()
        self.written[name] = status


class Desk:
    """A queue, what is told of its backups, and an API server."""

    def __init__(self) -> None:
        self.queue = WorkQueue()
        self.acknowledger = Acknowledger(self.queue)
        self.api = Api()

    async def hears(self, name: str, how: str | None = "ADDED", **more: Any) -> None:
        """A backup was heard of, and wants to be looked at."""
        metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}", "resourceVersion": "7", "generation": 1}
        status = {"observedGeneration": -1}
        body = {"kind": "VolumeBackup", "metadata": metadata, "spec": {"volumeId": "data"}, "status": status} | more
        self.acknowledger.observe({"type": how, "object": body})
        await self.queue.add(ObjectKey("VolumeBackup", "shop", name))

    async def runs(self, seconds: float) -> None:
        """Time goes by."""
        policy = OperatorPolicy(MoverSettings("example/cinderblock:1"))
        context = Context(cast("KubeClient", self.api), cast("StorePool", None), policy)
        task = asyncio.create_task(self.acknowledger.run(context))
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@in_virtual_time
async def test_who_waits_is_told_once_and_in_the_words_of_cinder() -> None:
    desk = Desk()
    await desk.hears("one")
    await desk.hears("other")
    await desk.runs(ACKNOWLEDGE_AFTER_SECONDS / 2)
    assert desk.api.written == {}
    await desk.runs(ACKNOWLEDGE_AFTER_SECONDS)
    status = desk.api.written["one"]
    assert (status["phase"], status["id"]) == ("creating", "u-one")
    assert {condition["reason"] for condition in status["conditions"]} == {"Noticed"}
    assert "waits for the operator, which has 2 objects" in status["conditions"][0]["message"]
    desk.api.written.clear()
    await desk.runs(60)
    assert desk.api.written == {}


@in_virtual_time
async def test_who_is_worked_on_known_or_gone_is_not_told() -> None:
    desk = Desk()
    await desk.hears("worked-on")
    await desk.queue.get()
    await desk.hears("known")
    await desk.hears("known", "MODIFIED", status={"phase": "creating"})
    await desk.hears("gone")
    await desk.hears("gone", "DELETED")
    await desk.runs(10)
    assert desk.api.written == {}


@in_virtual_time
async def test_very_many_are_told_a_few_at_a_time_those_first_that_came_first() -> None:
    desk = Desk()
    for number in range(100):
        await desk.hears(f"backup-{number}")
    await desk.runs(ACKNOWLEDGE_AFTER_SECONDS + PERIOD_SECONDS + 100 / ACKNOWLEDGED_PER_PERIOD * 0.1 + 0.5)
    told = list(desk.api.written)
    assert all(abs(told.index(f"backup-{number}") - number) < ACKNOWLEDGED_PER_PERIOD for number in range(100))
    assert desk.api.most_at_once == ACKNOWLEDGED_PER_PERIOD


@in_virtual_time
async def test_one_that_cannot_be_told_stops_nobody() -> None:
    desk = Desk()
    desk.api.errors = [Conflict("it has changed"), KubeUnavailable("no answer")]
    await desk.hears("malformed", spec={"volumeId": ["no", "name"]})
    for number in range(4):
        await desk.hears(f"backup-{number}")
    await desk.runs(10)
    assert len(desk.api.written) == 2
