"""A waiting backup is acknowledged on a real API server, with its defaults and its conflicts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import ACKNOWLEDGE_AFTER_SECONDS, Acknowledger
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy

pytestmark = pytest.mark.integration


async def acknowledge(client: KubeClient, body: Any) -> dict[str, Any]:
    """Let a backup wait in the queue for a while, and return its status."""
    queue, name, namespace = WorkQueue(), body["metadata"]["name"], body["metadata"]["namespace"]
    acknowledger = Acknowledger(queue)
    acknowledger.observe({"type": "ADDED", "object": body})
    await queue.add(ObjectKey("VolumeBackup", namespace, name))
    policy = OperatorPolicy(MoverSettings("example/cinderblock:1"))
    running = asyncio.create_task(acknowledger.run(Context(client, cast("StorePool", None), policy)))
    await asyncio.sleep(ACKNOWLEDGE_AFTER_SECONDS + 2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    found = await client.get(VOLUME_BACKUP, name, namespace)
    assert found is not None
    return cast("dict[str, Any]", found["status"])


async def test_waiting_backup_is_acknowledged_as_creating(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "new", "namespace": namespace}, "spec": {"volumeId": "data"}}
    status = await acknowledge(client, await client.create(VOLUME_BACKUP, body))
    assert status["phase"] == "creating"
    assert {condition["reason"] for condition in status["conditions"]} == {"Noticed"}


async def test_backup_that_has_changed_meanwhile_is_left_alone(client: KubeClient, namespace: str) -> None:
    made = await client.create(
        VOLUME_BACKUP, {"metadata": {"name": "new", "namespace": namespace}, "spec": {"volumeId": "data"}}
    )
    accepted = {"phase": "creating", "id": made["metadata"]["uid"], "manifestKey": "somewhere"}
    await client.merge_patch(VOLUME_BACKUP, "new", namespace, {"status": accepted}, subresource="status")
    status = await acknowledge(client, made)
    assert status["manifestKey"] == "somewhere"
    assert "conditions" not in status
