"""One namespace attacks the operator process on a real API server, while another one makes a backup."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

LIMIT = 2
MEMORY_MIB = 300
LARGE = {"note": "x" * 240_000}
LONG = "x" * 1_000_000
"""A name as long as the API server accepts it where it checks no length."""
CONFIG_MAP = kinds.Kind("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNT = kinds.Kind("", "v1", "serviceaccounts", "ServiceAccount")


@dataclass
class Running:
    """The operator on a cluster whose namespace ``evil`` was prepared before it started."""

    server: ApiServer
    cluster: Cluster
    process: OperatorProcess

    def do(self, work: Callable[[KubeClient], Awaitable[Any]]) -> Any:
        """Do something as an administrator."""
        return call_as_admin(self.server.kubeconfig, work)

    def back_up(self, name: str) -> float:
        """Back up a new volume of namespace ``shop``. Return the seconds until the backup is available."""

        async def create(client: KubeClient) -> str:
            await client.create(kinds.PVC, a_claim("shop", name))
            body = {"metadata": {"name": name, "namespace": "shop"}, "spec": {"volumeId": name}}
            return str((await client.create(kinds.VOLUME_BACKUP, body))["metadata"]["uid"])

        began, uid = time.monotonic(), self.do(create)
        wait_for(f"backup {name}", lambda: ("available", uid) in self.cluster.done, 300)
        return time.monotonic() - began


async def _attack(client: KubeClient) -> None:
    """Fill the limit with Jobs that look like movers, and lists with large objects."""
    await client.create(kinds.NAMESPACE, {"metadata": {"name": "evil"}})
    for number in range(200):
        owner = await client.create(CONFIG_MAP, {"metadata": {"name": f"c-{number}", "namespace": "evil"}})
        await client.create(kinds.JOB, _mover_of(owner, LARGE))
        metadata = {"name": f"large-{number}", "namespace": "evil", "annotations": LARGE}
        await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "nothing"}})
    await _attack_by_names(client)


async def _attack_by_names(client: KubeClient) -> None:
    """Create pods and backups with very long names of other objects, and a backup for which all pods are read."""
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "evil"}})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": LONG, "uid": "u"}
    pod = {"containers": [{"name": "c", "image": "x"}]}
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": LONG}}
    for number in range(150):
        metadata = {"name": f"long-{number}", "namespace": "evil"}
        await client.create(kinds.POD, {"metadata": metadata, "spec": pod | {"volumes": [volume]}})
    for number in range(40):
        metadata = {"name": f"owned-{number}", "namespace": "evil", "ownerReferences": [owner]}
        await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}})
    await client.create(kinds.PVC, a_claim("evil", "data"))


def _mover_of(owner: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    uid, name = owner["metadata"]["uid"], owner["metadata"]["name"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": True}
    metadata = {
        "name": labels.child_name(uid),
        "namespace": "evil",
        "labels": {labels.MANAGED_BY_LABEL: labels.MANAGED_BY, labels.OWNER_UID_LABEL: uid},
        "annotations": annotations | {labels.OWNER_NAME_ANNOTATION: name},
        "ownerReferences": [reference],
    }
    volumes = [{"name": "volume", "persistentVolumeClaim": {"claimName": "nothing"}}]
    pod = {"restartPolicy": "Never", "containers": [{"name": "mover", "image": "x"}], "volumes": volumes}
    return {"metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running())

        async def prepare(client: KubeClient) -> None:
            for resource in RESOURCES:
                await install(client, resource)
            await furnish(client)
            await furnish_namespace(client, "shop", store, "hostile")
            await _attack(client)

        call_as_admin(server.kubeconfig, prepare)
        cluster = stack.enter_context(controllers(server, store))
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", server.url, server.authority, server.token)
        environment = {"CINDERBLOCK_LEASE_NAMESPACE": "default", "CINDERBLOCK_MAX_MOVERS": str(LIMIT)}
        process = stack.enter_context(operator(line, directory, "operator", kubeconfig, **environment))
        yield Running(server, cluster, process)


def test_forged_jobs_and_large_objects_hold_up_no_backup(running: Running) -> None:
    running.back_up("first")
    wait_for("readiness", running.process.is_ready, 120)

    pending = [f"large-{number}" for number in range(200)]

    async def ended(client: KubeClient) -> bool:
        # One at a time: a list of them has 48 MB, which would keep server and test busy while they wait.
        while pending:
            found = await client.get(kinds.VOLUME_BACKUP, pending[-1], "evil")
            if ((found or {}).get("status") or {}).get("phase") != "error":
                return False
            pending.pop()
        return True

    async def count(client: KubeClient) -> int:
        return len(await client.list(kinds.VOLUME_BACKUP, "evil", fields="status.phase=error"))

    # The other 40 wait for their volume, which is not bound.
    wait_for("the backups of the attacker", lambda: running.do(ended), 300)
    assert running.do(count) == 200
    lines = Path(f"/proc/{running.process.process.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))
    assert peak < MEMORY_MIB


def test_status_cannot_be_forged_without_its_own_right(running: Running) -> None:
    """The role ``edit`` may change VolumeBackups, but not their status: the API server drops it."""

    async def forge(client: KubeClient) -> dict[str, Any]:
        mover = {"mover": {"uid": "00000000-0000-0000-0000-000000000001"}, "phase": "creating"}
        return await client.merge_patch(kinds.VOLUME_BACKUP, "large-1", "evil", {"status": mover})

    assert "mover" not in running.do(forge).get("status", {})


def test_operator_records_the_mover_and_forgets_it(running: Running) -> None:
    running.cluster.hold("Job")
    try:

        async def begin(client: KubeClient) -> None:
            await client.create(kinds.PVC, a_claim("shop", "held"))
            body = {"metadata": {"name": "held", "namespace": "shop"}, "spec": {"volumeId": "held"}}
            await client.create(kinds.VOLUME_BACKUP, body)

        async def look(client: KubeClient) -> tuple[str | None, list[str]]:
            backup = await client.get(kinds.VOLUME_BACKUP, "held", "shop")
            recorded = ((backup or {}).get("status") or {}).get("mover") or {}
            jobs = await client.list(kinds.JOB, "shop")
            return recorded.get("uid"), [job["metadata"]["uid"] for job in jobs]

        running.do(begin)
        wait_for("the mover", lambda: running.do(look)[0] is not None, 60)
        recorded, jobs = running.do(look)
        assert recorded in jobs

        async def find(client: KubeClient) -> list[str]:
            selected = await client.list(kinds.VOLUME_BACKUP, fields="status.phase=creating")
            return [item["metadata"]["name"] for item in selected if item["status"].get("mover")]

        assert running.do(find) == ["held"]
    finally:
        running.cluster.release("Job")
    wait_for("the end", lambda: running.do(look)[0] is None, 60)
