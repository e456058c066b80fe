"""A leader is paused while its writes are in flight. They arrive after another leader has done all the work.

When the first leader wakes up, its guard stops further writes. The writes in flight do no harm either. A name that
comes from a UID is taken, or creates a child of a finished operation, which is then removed. A resourceVersion or UID
no longer matches. Each operation ends as it would without the pause: with one mover, and nothing left over.
"""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.cluster.s3 import S3Server
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import Fault, Seen, faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

LEASE_SECONDS = 6


@dataclass(frozen=True)
class Write:
    """A write that arrives late: the n-th with this method and path in the namespace of an operation."""

    operation: Kind
    method: str
    path: str
    number: int = 1


BACKUP, RESTORE = kinds.VOLUME_BACKUP, kinds.VOLUME_RESTORE
WRITES = {
    "finalizer": Write(BACKUP, "PATCH", "/volumebackups/asked"),
    "status": Write(BACKUP, "PATCH", "/volumebackups/asked/status"),
    "snapshot": Write(BACKUP, "POST", "/volumesnapshots"),
    "exposed-claim": Write(BACKUP, "POST", "/persistentvolumeclaims"),
    "mover": Write(BACKUP, "POST", "/jobs"),
    "snapshots-removal": Write(BACKUP, "DELETE", "/volumesnapshots/[^/]+"),
    # The first creation of a claim is a dry run.
    "hidden-claim": Write(RESTORE, "POST", "/persistentvolumeclaims", 2),
    "suspended-mover": Write(RESTORE, "POST", "/jobs"),
    "movers-start": Write(RESTORE, "PATCH", "/jobs/[^/]+"),
    "restored-claim": Write(RESTORE, "POST", "/persistentvolumeclaims", 3),
    "claims-release": Write(RESTORE, "PATCH", "/persistentvolumeclaims/restored"),
    "restores-status": Write(RESTORE, "PATCH", "/volumerestores/asked/status", 2),
}
"""Writes that arrive late, by namespace."""


@dataclass
class Stage:
    """Servers, controllers and two operators."""

    server: ApiServer
    store: S3Server
    cluster: Cluster
    leader: OperatorProcess
    standby: OperatorProcess
    held: set[str] = field(default_factory=set)
    _seen: Counter[str] = field(default_factory=Counter)

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Run a function with the administrator's client, which bypasses the proxies."""
        return call_as_admin(self.server.kubeconfig, work)

    def get(self, kind: Kind, name: str, namespace: str) -> Any:
        """Return an object, or None."""
        return self.call(lambda client: client.get(kind, name, namespace))

    def phase(self, kind: Kind, name: str, namespace: str) -> str:
        """Return the phase of a custom resource."""
        return str((self.get(kind, name, namespace) or {}).get("status", {}).get("phase"))

    def hold(self, request: Seen) -> Fault | None:
        """Hold each of WRITES in flight. This is the rule of the leader's proxy."""
        for namespace, write in WRITES.items():
            pattern = f".*/namespaces/{namespace}{write.path}"
            if request.method == write.method and re.fullmatch(pattern, request.path):
                self._seen[namespace] += 1
                if self._seen[namespace] == write.number:
                    self.held.add(namespace)
                    return Fault(is_late=True)
        return None

    def children(self, namespace: str) -> list[str]:
        """Return the children that exist in a namespace."""

        async def list_children(client: KubeClient) -> list[str]:
            selector = f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"
            kinds_of_children = (kinds.JOB, kinds.POD, kinds.VOLUME_SNAPSHOT, kinds.PVC)
            found = [item for kind in kinds_of_children for item in await client.list(kind, namespace, labels=selector)]
            return [f"{item['kind']} {item['metadata']['name']}" for item in found]

        listed: list[str] = self.call(list_children)
        return listed


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run two operators. Each namespace has a volume."""
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))

        async def prepare() -> None:
            async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
                for resource in RESOURCES:
                    await install(client, resource)
                await furnish(client)
                for namespace in WRITES:
                    await furnish_namespace(client, namespace, store, "late")
                    await client.create(kinds.PVC, a_claim(namespace, "data"))

        asyncio.run(prepare())
        cluster = stack.enter_context(controllers(server, store))

        def start(name: str) -> OperatorProcess:
            api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
            kubeconfig = kubeconfigs.write(tmp_path / f"{name}.config", api.url, server.authority, server.token)
            settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default", "CINDERBLOCK_LEASE_SECONDS": str(LEASE_SECONDS)}
            started = stack.enter_context(operator(api, tmp_path, name, kubeconfig, **settings))
            wait_for(f"readiness of {name}", started.is_ready)
            return started

        yield Stage(server, store, cluster, start("first"), start("second"))


def _start_operations(stage: Stage) -> None:
    """Start every operation on the first operator, up to the write that stays in flight."""
    to_restore = [namespace for namespace, write in WRITES.items() if write.operation is RESTORE]

    async def back_up(client: KubeClient) -> None:
        for namespace in to_restore:
            metadata = {"name": "full", "namespace": namespace}
            await client.create(BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}})

    async def begin(client: KubeClient) -> None:
        for namespace, write in WRITES.items():
            spec = {"volumeId": "data"} if write.operation is BACKUP else {"backupId": "full", "name": "restored"}
            metadata = {"name": "asked", "namespace": namespace}
            await client.create(write.operation, {"metadata": metadata, "spec": spec})

    stage.call(back_up)
    for namespace in to_restore:
        wait_for(f"backup in {namespace}", lambda n=namespace: stage.phase(BACKUP, "full", n) == "available")
        wait_for(f"cleanliness of {namespace}", lambda n=namespace: not stage.children(n))
    stage.leader.line.rule = stage.hold
    stage.call(begin)
    wait_for("writes in flight", lambda: stage.held == set(WRITES))


def _outcomes(stage: Stage) -> dict[str, Any]:
    """Wait until every operation is done and no child is left. Return the statuses and the restored claims."""
    outcomes = {}
    for namespace, write in WRITES.items():
        wait_for(namespace, lambda n=namespace, w=write: stage.phase(w.operation, "asked", n) == "available")
        wait_for(f"cleanliness of {namespace}", lambda n=namespace: not stage.children(n))
        operation = stage.get(write.operation, "asked", namespace)
        restored = stage.get(kinds.PVC, "restored", namespace)
        outcomes[namespace] = operation["status"], restored and restored["metadata"]["uid"]
        assert len(stage.cluster.movers[operation["metadata"]["uid"]]) == 1, namespace
    return outcomes


def test_late_writes_of_a_paused_leader_change_nothing(stage: Stage) -> None:
    _start_operations(stage)
    stage.leader.send(signal.SIGSTOP)
    before = _outcomes(stage)
    woken_at = time.monotonic()
    stage.leader.line.deliver()
    wait_for("late writes", lambda: len(stage.leader.line.arrived) == len(WRITES))
    stage.leader.send(signal.SIGCONT)
    stage.leader.says("Lease lost")
    wait_for("readiness of the first", stage.leader.is_ready)
    status_codes = stage.leader.line.arrived
    assert all(code in (404, 409) for (method, _), code in status_codes.items() if method != "POST"), status_codes
    assert _outcomes(stage) == before, status_codes
    assert not stage.leader.line.count(lambda request: request.is_write, since=woken_at)
    stored = sorted(path.parts[-4] for path in stage.store.directory.glob("late/*/backups/*/*.manifest"))
    assert stored == sorted(WRITES), "one backup in each namespace"
