"""New backups that must wait for their turn are acknowledged."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import (
    ACKNOWLEDGE_AFTER_SECONDS,
    ACKNOWLEDGED_PER_PERIOD,
    KEPT_PER_NAMESPACE,
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
    """Accepts statuses. A write takes a tenth of a second."""

    def __init__(self) -> None:
        self.written: dict[str, JsonObject] = {}
        self.errors: list[Exception] = []
        self.max_concurrent = self.concurrent = 0

    async def apply_status(
        self, kind: object, name: str, namespace: str, status: JsonObject, **preconditions: str
    ) -> None:
        assert preconditions == {"uid": f"u-{name}", "resource_version": "7"}
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        await asyncio.sleep(0.1)
        self.concurrent -= 1
        if self.errors:
            raise self.errors.pop()
        self.written[name] = status


class Fixture:
    """A queue, an acknowledger and an API server."""

    def __init__(self) -> None:
        self.queue = WorkQueue()
        self.acknowledger = Acknowledger(self.queue)
        self.api = Api()

    async def observe(self, name: str, change: str | None = "ADDED", namespace: str = "shop", **fields: Any) -> None:
        """Observe an event about a backup, and add the backup to the queue."""
        metadata = {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": "7", "generation": 1}
        status = {"observedGeneration": -1}
        body = {"kind": "VolumeBackup", "metadata": metadata, "spec": {"volumeId": "data"}, "status": status} | fields
        self.acknowledger.observe({"type": change, "object": body})
        await self.queue.add(ObjectKey("VolumeBackup", namespace, name))

    async def run(self, seconds: float) -> None:
        """Run the acknowledger for some time."""
        policy = OperatorPolicy(MoverSettings("example/cinderblock:1"))
        context = Context(cast("KubeClient", self.api), cast("StorePool", None), policy)
        task = asyncio.create_task(self.acknowledger.run(context))
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@in_virtual_time
async def test_waiting_backup_is_acknowledged_once_as_creating() -> None:
    fixture = Fixture()
    await fixture.observe("one")
    await fixture.observe("other")
    await fixture.run(ACKNOWLEDGE_AFTER_SECONDS / 2)
    assert fixture.api.written == {}
    await fixture.run(ACKNOWLEDGE_AFTER_SECONDS)
    status = fixture.api.written["one"]
    assert (status["phase"], status["id"]) == ("creating", "u-one")
    assert {condition["reason"] for condition in status["conditions"]} == {"Noticed"}
    assert "which has 2 objects to reconcile" in status["conditions"][0]["message"]
    fixture.api.written.clear()
    await fixture.run(60)
    assert fixture.api.written == {}


@in_virtual_time
async def test_running_known_and_deleted_backups_are_not_acknowledged() -> None:
    fixture = Fixture()
    await fixture.observe("running")
    await fixture.queue.get()
    await fixture.observe("known")
    await fixture.observe("known", "MODIFIED", status={"phase": "creating"})
    await fixture.observe("gone")
    await fixture.observe("gone", "DELETED")
    await fixture.run(10)
    assert fixture.api.written == {}


@in_virtual_time
async def test_very_many_backups_are_acknowledged_in_order_a_few_at_a_time() -> None:
    fixture = Fixture()
    for number in range(100):
        await fixture.observe(f"backup-{number}")
    await fixture.run(ACKNOWLEDGE_AFTER_SECONDS + PERIOD_SECONDS + 100 / ACKNOWLEDGED_PER_PERIOD * 0.1 + 0.5)
    order = list(fixture.api.written)
    assert all(abs(order.index(f"backup-{number}") - number) < ACKNOWLEDGED_PER_PERIOD for number in range(100))
    assert fixture.api.max_concurrent == ACKNOWLEDGED_PER_PERIOD


@in_virtual_time
async def test_failed_acknowledgement_stops_no_other() -> None:
    fixture = Fixture()
    fixture.api.errors = [Conflict("it has changed"), KubeUnavailable("no answer")]
    await fixture.observe("malformed", spec={"volumeId": ["no", "name"]})
    for number in range(4):
        await fixture.observe(f"backup-{number}")
    await fixture.run(10)
    assert len(fixture.api.written) == 2


@in_virtual_time
async def test_namespaces_take_turns_and_none_takes_all_memory() -> None:
    fixture = Fixture()
    for number in range(KEPT_PER_NAMESPACE + 50):
        await fixture.observe(f"many-{number}", namespace="evil")
    await fixture.observe("mine")
    assert sum(len(new) for new in fixture.acknowledger._new.values()) == KEPT_PER_NAMESPACE + 1
    await fixture.run(ACKNOWLEDGE_AFTER_SECONDS + PERIOD_SECONDS + 0.2)
    assert "mine" in fixture.api.written
