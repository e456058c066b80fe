"""A backup that cannot have its turn soon is told so, on a real API server: with its defaults and its conflicts."""

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


async def told(client: KubeClient, heard: Any) -> dict[str, Any]:
    """What a backup says after its turn has not come for a while."""
    queue, name, namespace = WorkQueue(), heard["metadata"]["name"], heard["metadata"]["namespace"]
    acknowledger = Acknowledger(queue)
    acknowledger.observe({"type": "ADDED", "object": heard})
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


async def test_a_new_backup_says_that_it_is_creating(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "new", "namespace": namespace}, "spec": {"volumeId": "data"}}
    status = await told(client, await client.create(VOLUME_BACKUP, body))
    assert status["phase"] == "creating"
    assert {condition["reason"] for condition in status["conditions"]} == {"Noticed"}


async def test_one_that_somebody_has_changed_meanwhile_is_left_alone(client: KubeClient, namespace: str) -> None:
    made = await client.create(
        VOLUME_BACKUP, {"metadata": {"name": "new", "namespace": namespace}, "spec": {"volumeId": "data"}}
    )
    accepted = {"phase": "creating", "id": made["metadata"]["uid"], "manifestKey": "somewhere"}
    await client.merge_patch(VOLUME_BACKUP, "new", namespace, {"status": accepted}, subresource="status")
    status = await told(client, made)
    assert status["manifestKey"] == "somewhere"
    assert "conditions" not in status
