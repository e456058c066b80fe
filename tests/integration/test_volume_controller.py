"""Kubernetes' own volume controller binds restored volumes to their claims at once, not only with its next resync."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.labels import POPULATED_ANNOTATION, RESTORE_LABEL
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from tests.cluster import apiserver, kubeconfigs, s3, volumes
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import FaultyApi, faulty_api
from tests.support.cluster.operators import operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.simulation.controllers import a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

NAMESPACE = "rebinding"
RESTORES = 8
"""Restores at the same time. The volume controller conflicts with itself in every second binding."""
RESYNC_PERIOD = "10m"
"""Resync period of the volume controller, longer than the test."""

WRITES = 22 + 1 + 3
"""Writes of a restore to a new volume until it is available, for a half-done binding, and after it."""

Call = Callable[[Callable[[KubeClient], Any]], Any]


@dataclass(frozen=True)
class Stage:
    """A cluster with an operator.

    Attributes:
        call: runs a function with the administrator's client.
        api: the proxy between the operator and the API server.
    """

    call: Call
    api: FaultyApi


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run a cluster with one volume, where Kubernetes itself binds claims."""
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))

        async def prepare(client: KubeClient) -> None:
            for resource in RESOURCES:
                await install(client, resource)
            await furnish(client)
            await furnish_namespace(client, NAMESPACE, store, "rebinding")
            await client.create(kinds.PVC, a_claim(NAMESPACE, "data"))

        call_as_admin(server.kubeconfig, prepare)
        stack.enter_context(volumes.controlled(server.kubeconfig, resync=RESYNC_PERIOD))
        stack.enter_context(controllers(server, store, binds=False))
        api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(tmp_path / "kubeconfig", api.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(api, tmp_path, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)
        yield Stage(partial(call_as_admin, server.kubeconfig), api)


def _phase(call: Call, kind: kinds.Kind, name: str) -> str:
    found = call(lambda client: client.get(kind, name, NAMESPACE))
    return str((found or {}).get("status", {}).get("phase"))


def test_restored_volumes_are_bound_without_waiting_for_a_resync(stage: Stage) -> None:
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
    since = len(stage.api.seen)
    call(restore)
    for number in range(RESTORES):
        name = f"again-{number}"
        wait_for(f"end of {name}", lambda n=name: _phase(call, kinds.VOLUME_RESTORE, n) == "available")
        claim = call(lambda client, n=number: client.get(kinds.PVC, f"restored-{n}", NAMESPACE))
        assert claim["status"]["phase"] == "Bound"
        assert "cinderblock.io/nudged" not in claim["metadata"]["annotations"]
    marked_volumes = lambda: call(lambda client: client.list(kinds.PV, labels=RESTORE_LABEL))  # noqa: E731
    wait_for("volumes without the restore mark", lambda: not marked_volumes())
    policies = [volume["spec"]["persistentVolumeReclaimPolicy"] for volume in call(lambda c: c.list(kinds.PV))]
    assert set(policies) == {"Delete"}
    writes = [request for request in stage.api.seen[since:] if request.is_write and "/events" not in request.path]
    assert len(writes) <= RESTORES * WRITES, [f"{request.method} {request.path}" for request in writes]


def test_read_only_volume_is_restored_and_bound(stage: Stage) -> None:
    """The staging claim can be written to; the volume gets the access mode of the claim that it is bound to."""
    call, shared = stage.call, a_claim(NAMESPACE, "shared")
    shared["spec"]["accessModes"] = ["ReadOnlyMany"]
    backup = {"metadata": {"name": "full", "namespace": NAMESPACE}, "spec": {"volumeId": "shared"}}
    restore = {"metadata": {"name": "again", "namespace": NAMESPACE}, "spec": {"backupId": "full", "name": "restored"}}
    call(lambda client: client.create(kinds.PVC, shared))
    wait_for("volume", lambda: _phase(call, kinds.PVC, "shared") == "Bound")
    call(lambda client: client.create(kinds.VOLUME_BACKUP, backup))
    wait_for("backup", lambda: _phase(call, kinds.VOLUME_BACKUP, "full") == "available")
    call(lambda client: client.create(kinds.VOLUME_RESTORE, restore))
    wait_for("restore", lambda: _phase(call, kinds.VOLUME_RESTORE, "again") == "available")
    claim = call(lambda client: client.get(kinds.PVC, "restored", NAMESPACE))
    volume = call(lambda client: client.get(kinds.PV, claim["spec"]["volumeName"]))
    assert claim["status"]["phase"] == "Bound"
    assert claim["status"]["accessModes"] == volume["spec"]["accessModes"] == ["ReadOnlyMany"]


def test_claims_that_ask_for_a_backup_are_bound_to_restored_volumes(stage: Stage) -> None:
    """The volume is reserved by the UID of the claim, and nothing writes to the claim but Kubernetes itself."""
    call = stage.call
    wait_for("volume", lambda: _phase(call, kinds.PVC, "data") == "Bound")
    backup = {"metadata": {"name": "full", "namespace": NAMESPACE}, "spec": {"volumeId": "data"}}
    call(lambda client: client.create(kinds.VOLUME_BACKUP, backup))
    wait_for("backup", lambda: _phase(call, kinds.VOLUME_BACKUP, "full") == "available")
    names = [f"asking-{number}" for number in range(RESTORES)]
    for name in names:
        body = a_claim(NAMESPACE, name)
        body["spec"]["dataSourceRef"] = {"apiGroup": "cinderblock.io", "kind": "VolumeBackup", "name": "full"}
        call(lambda client, body=body: client.create(kinds.PVC, body))
    for name in names:
        wait_for(f"bound {name}", lambda name=name: _phase(call, kinds.PVC, name) == "Bound")
        claim = call(lambda client, name=name: client.get(kinds.PVC, name, NAMESPACE))
        volume = call(lambda client, claim=claim: client.get(kinds.PV, claim["spec"]["volumeName"]))
        assert volume["metadata"]["annotations"][POPULATED_ANNOTATION] == claim["metadata"]["uid"]
        assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    marked_volumes = lambda: call(lambda client: client.list(kinds.PV, labels=RESTORE_LABEL))  # noqa: E731
    wait_for("volumes without the restore mark", lambda: not marked_volumes())
    policies = [volume["spec"]["persistentVolumeReclaimPolicy"] for volume in call(lambda c: c.list(kinds.PV))]
    assert set(policies) == {"Delete"}
    written = [request.path for request in stage.api.seen if request.is_write]
    assert not [path for path in written if path.rpartition("/")[2] in names]
