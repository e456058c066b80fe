"""The operator as the image runs it sends alerts to the webhook that its environment names."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.meta import ObjectMeta
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE, PVC, VOLUME_BACKUP
from tests.support.cluster.operators import operator
from tests.support.cluster.receivers import Receiver, receiving
from tests.support.simulation.controllers import a_claim

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60.0


async def test_operator_tells_the_webhook_of_a_failed_backup(
    client: KubeClient, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    await _fail_a_backup(client, namespace)
    cluster = (await client.get(NAMESPACE, "kube-system") or {})["metadata"]["uid"]
    (tmp_path / "header").write_text("Bearer geheim")
    async with receiving(tmp_path) as receiver:
        settings = {
            "CINDERBLOCK_WEBHOOK_URL": receiver.url,
            "CINDERBLOCK_WEBHOOK_FOLDER": str(tmp_path),
            "CINDERBLOCK_ALLOWED_ENDPOINTS": "127.0.0.0/8,::1/128",
            "CINDERBLOCK_LEASE_NAME": f"webhook-{os.getpid()}",
            "CINDERBLOCK_LEASE_NAMESPACE": "default",
            "CINDERBLOCK_WATCH_NAMESPACES": namespace,
        }
        with operator(None, tmp_path, "operator", kubeconfig, **settings) as process:  # type: ignore[arg-type]
            event = await _event_about(receiver, f"{namespace}/data")
            log = process.log.read_text()
    assert event["source"] == f"/clusters/{cluster}/cinderblock/operator"
    # The operator may have judged the backup again, and then gives its own cause.
    assert event["data"]["summary"].startswith(f"The last backup of volume {namespace}/data failed: ")
    assert receiver.requests[0]["authorization"] == "Bearer geheim"
    assert "geheim" not in log


async def _fail_a_backup(client: KubeClient, namespace: str) -> None:
    claim = await client.create(PVC, a_claim(namespace, "data"))
    body = {"metadata": {"name": "failed", "namespace": namespace}, "spec": {"volumeId": claim["metadata"]["uid"]}}
    made = ObjectMeta.model_validate((await client.create(VOLUME_BACKUP, body))["metadata"])
    status: dict[str, Any] = {
        "phase": "error",
        "id": made.uid,
        "volumeId": claim["metadata"]["uid"],
        "failReason": "The store is full.",
        "updatedAt": "2026-05-04T12:00:00Z",
    }
    await client.merge_patch(VOLUME_BACKUP, "failed", namespace, {"status": status}, subresource="status")


async def _event_about(receiver: Receiver, volume: str) -> dict[str, Any]:
    subject = f"PersistentVolumeClaim/{volume}"
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := [event for event in receiver.events if event["subject"] == subject]):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return found[0]
