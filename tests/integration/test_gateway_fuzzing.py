"""Responses to random requests match the OpenAPI document, and are never 5xx."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cinderblock.kube.client import KubeClient
from tests.support.gateway.cinder_objects import backup, snapshot, store, volume
from tests.support.gateway.fuzzing import fuzz
from tests.support.gateway.gateways import Gateway

pytestmark = pytest.mark.integration

EXAMPLES = int(os.environ.get("CINDERBLOCK_FUZZ_EXAMPLES", "1"))
"""Requests for each operation and phase. `make fuzz-gateway` sends more."""


@pytest.mark.timeout(3600)
async def test_every_response_matches_the_document(
    gateway: Gateway, client: KubeClient, namespace: str, tmp_path: Path
) -> None:
    database = await volume(client, namespace)
    await store(client, namespace)
    known = {
        "backup_id": await backup(client, namespace, database),
        "volume_id": database,
        "snapshot_id": await snapshot(client, namespace, "database"),
    }
    person = await gateway.person(namespace, admin=True)
    run = await fuzz(person, tmp_path, known, EXAMPLES)
    assert run.code == 0, run.output
