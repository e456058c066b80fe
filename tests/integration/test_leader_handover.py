"""A restored volume gets its name from Kubernetes' own volume controller, at once and not with its next resync."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL
from tests.cluster import apiserver, kubeconfigs, s3, volumes
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import FaultyApi, faulty_api
from tests.support.cluster.operators import operator, wait_for
from tests.support.simulation.controllers import a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

NAMESPACE = "handing-over"
RESTORES = 8
"""The volume controller meets a conflict with itself in every second binding."""
NEVER = "10m"
"""A resync that nobody waits for here."""

WRITES = 22 + 1 + 3
"""Writes of a restore (docs/measurements/scale.md): until it is available, for a half-done binding, afterwards."""

Call = Callable[[Callable[[KubeClient], Any]], Any]


@dataclass(frozen=True)
class Stage:
    """A cluster with an operator.

    Attributes:
        call: does something as the administrator.
        line: the operator's way to the API server.
    """

    call: Call
    line: FaultyApi


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A volume, on a cluster whose claims are bound by Kubernetes itself."""
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))

        def do(work: Callable[[KubeClient], Any]) -> Any:
            async def done() -> Any:
                async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
                    return await work(client)

            return asyncio.run(done())

        async def prepare(client: KubeClient) -> None:
            for resource in RESOURCES:
                await install(client, resource)
            await furnish(client)
            await furnish_namespace(client, NAMESPACE, store, "handing-over")
            await client.create(kinds.PVC, a_claim(NAMESPACE, "data"))

        do(prepare)
        stack.enter_context(volumes.controlled(server.kubeconfig, resync=NEVER))
        stack.enter_context(controllers(server, store, binds=False))
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(tmp_path / "kubeconfig", line.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(line, tmp_path, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)
        yield Stage(do, line)


def _phase(call: Call, kind: kinds.Kind, name: str) -> str:
    found = call(lambda client: client.get(kind, name, NAMESPACE))
    return str((found or {}).get("status", {}).get("phase"))


def test_every_restored_volume_gets_its_name_without_waiting_for_a_resync(stage: Stage) -> None:
    call = stage.call
    wait_for("volume", lambda: _phase(call, kinds.PVC, "data") == "Bound")

    async def back_up(client: KubeClient) -> None:
        metadata = {"name": "full", "namespace": NAMESPACE}
        await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}})

    async def restore(client: KubeClient) -> None:
        for number in range(RESTORES):
            metadata = {"name": f"again-{number}", "namespace": NAMESPACE}
            spec = {"backupId": "full", "name": f"restored-{number}"}
            await client.create(kinds.VOLUME_RESTORE, {"metadata": metadata, "spec": spec})

    call(back_up)
    wait_for("backup", lambda: _phase(call, kinds.VOLUME_BACKUP, "full") == "available")
    since = len(stage.line.seen)
    call(restore)
    for number in range(RESTORES):
        name = f"again-{number}"
        wait_for(f"end of {name}", lambda n=name: _phase(call, kinds.VOLUME_RESTORE, n) == "available")
        claim = call(lambda client, n=number: client.get(kinds.PVC, f"restored-{n}", NAMESPACE))
        assert claim["status"]["phase"] == "Bound"
        assert "cinderblock.io/nudged" not in claim["metadata"]["annotations"]
    marked = lambda: call(lambda client: client.list(kinds.PV, labels=RESTORE_LABEL))  # noqa: E731
    wait_for("volumes without our mark", lambda: not marked())
    policies = [volume["spec"]["persistentVolumeReclaimPolicy"] for volume in call(lambda c: c.list(kinds.PV))]
    assert set(policies) == {"Delete"}
    writes = [seen for seen in stage.line.seen[since:] if seen.is_write and "/events" not in seen.path]
    assert len(writes) <= RESTORES * WRITES, [f"{seen.method} {seen.path}" for seen in writes]
