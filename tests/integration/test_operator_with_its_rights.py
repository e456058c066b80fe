"""The operator as a process with the rights and policies of the chart, in some namespaces only, on a real API server.

tests.support.simulation.controllers plays everything else with an administrator's rights; the S3 server is real.
"""

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
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.support.cluster.admission import enforce, wait_until_refused
from tests.support.cluster.chart import render
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import FaultyApi, faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.cluster.rights import call_as_admin, connect_as, create_token, grant
from tests.support.simulation.controllers import a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

RELEASE, WATCHED, OTHER, GONE = "backup-system", ("demo", "shop"), "elsewhere", "gone"
VALUES = ("watchNamespaces={demo,shop}", "image.repository=example/cinderblock")
FOREIGN_LEASE = {"metadata": {"name": "other", "namespace": RELEASE}}
NAMESPACED = ("jobs", "pods", "persistentvolumeclaims", "volumesnapshots", "backupstores", "volumebackups")


@dataclass(frozen=True, slots=True)
class Scene:
    """The servers and the operator of this file."""

    server: ApiServer
    store: s3.S3Server
    process: OperatorProcess

    @property
    def api(self) -> FaultyApi:
        """The proxy between the operator and the API server."""
        return self.process.line

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Run a function with the administrator's client, which bypasses the proxy."""
        return call_as_admin(self.server.kubeconfig, work)

    def create(self, kind: Kind, namespace: str, name: str, /, **spec: Any) -> None:
        """Create an object."""
        body = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
        self.call(lambda client: client.create(kind, body))

    def get(self, kind: Kind, namespace: str | None, name: str) -> Any:
        """Return an object, or None."""
        return self.call(lambda client: client.get(kind, name, namespace))

    def wait_for_phase(self, kind: Kind, namespace: str, name: str, phase: str) -> None:
        """Wait until an operation has this phase."""

        def has_phase() -> bool:
            status: dict[str, Any] = self.get(kind, namespace, name).get("status", {})
            assert status.get("phase") == phase or not str(status.get("phase")).startswith("error"), status
            return status.get("phase") == phase

        wait_for(f"{name} {phase}", has_phase)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("operator")
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))
        asyncio.run(_prepare(server, store, directory))
        stack.enter_context(controllers(server, store))
        api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        token = create_token(server.kubeconfig, RELEASE, "cinderblock")
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", api.url, server.authority, token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": RELEASE, "CINDERBLOCK_WATCH_NAMESPACES": ",".join((*WATCHED, GONE))}
        process = stack.enter_context(operator(api, directory, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)
        yield Scene(server, store, process)


async def _prepare(server: ApiServer, store: s3.S3Server, directory: Path) -> None:
    async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
        for resource in RESOURCES:
            await install(client, resource)
        await furnish(client)
        await client.create(kinds.NAMESPACE, {"metadata": {"name": RELEASE}})
        for namespace in (*WATCHED, OTHER):
            await furnish_namespace(client, namespace, store, "watched")
            await client.create(kinds.PVC, a_claim(namespace, "data"))
        chart = render(*VALUES)
        await grant(client, chart)
        await enforce(client, chart)
        async with aclosing(await connect_as(server.kubeconfig, RELEASE, "cinderblock", directory)) as account:
            await wait_until_refused(lambda: account.create(kinds.LEASE, FOREIGN_LEASE), "only the Lease of its own")


def test_whole_life_passes_the_rights_and_the_policies(scene: Scene) -> None:
    for namespace in WATCHED:
        scene.create(kinds.VOLUME_BACKUP, namespace, "full", volumeId="data")
        scene.wait_for_phase(kinds.VOLUME_BACKUP, namespace, "full", "available")
        scene.create(kinds.VOLUME_BACKUP, namespace, "more", volumeId="data", incremental=True)
        scene.wait_for_phase(kinds.VOLUME_BACKUP, namespace, "more", "available")
        scene.create(kinds.VOLUME_RESTORE, namespace, "back", backupId="more", name="new")
        scene.wait_for_phase(kinds.VOLUME_RESTORE, namespace, "back", "available")
        volume = scene.get(kinds.PVC, namespace, "new")["spec"]["volumeName"]
        wait_for("hand-over", lambda volume=volume: _is_handed_over(scene, volume))
        scene.create(kinds.VOLUME_RESTORE, namespace, "over", backupId="full", volumeId="new")
        scene.wait_for_phase(kinds.VOLUME_RESTORE, namespace, "over", "available")
        scene.create(kinds.BACKUP_VERIFICATION, namespace, "proof", level="Data", volumeId="data")
        scene.wait_for_phase(kinds.BACKUP_VERIFICATION, namespace, "proof", "verified")
        verified = scene.get(kinds.VOLUME_BACKUP, namespace, "more")["status"]["verification"]
        assert (verified["result"], verified["coverage"]) == ("Verified", 100)
        scene.call(lambda client, n=namespace: client.delete(kinds.BACKUP_VERIFICATION, "proof", n))
        wait_for("end of proof", lambda n=namespace: scene.get(kinds.BACKUP_VERIFICATION, n, "proof") is None)
        for name in ("more", "full"):
            scene.call(lambda client, n=namespace, name=name: client.delete(kinds.VOLUME_BACKUP, name, n))
            wait_for(f"end of {name}", lambda n=namespace, name=name: scene.get(kinds.VOLUME_BACKUP, n, name) is None)
        wait_for("end of the movers", lambda n=namespace: not scene.call(lambda c: c.list(kinds.JOB, n)))
    refused = [line["message"] for line in scene.process.lines() if "refused it" in line["message"]]
    assert [message for message in refused if f"Namespace {GONE} is skipped" not in message] == []


def _is_handed_over(scene: Scene, volume: str) -> bool:
    found = scene.get(kinds.PV, None, volume)
    is_marked = RESTORE_LABEL in found["metadata"].get("labels", {})
    return not is_marked and found["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


def set_import(scene: Scene, namespace: str, **settings: Any) -> None:
    """Change the import of the default store."""
    patch = {"spec": {"import": settings}}
    scene.call(lambda client: client.merge_patch(kinds.BACKUP_STORE, "default", namespace, patch))


def store_status(scene: Scene, namespace: str) -> dict[str, Any]:
    status: dict[str, Any] = scene.get(kinds.BACKUP_STORE, namespace, "default")["status"]
    return status


def test_import_passes_the_rights_and_brings_no_released_backup_back(scene: Scene) -> None:
    namespace, names = WATCHED[1], ("kept", "released")
    for name in names:
        scene.create(kinds.VOLUME_BACKUP, namespace, name, volumeId="data", deletionPolicy="Retain")
        scene.wait_for_phase(kinds.VOLUME_BACKUP, namespace, name, "available")
    ids = {name: scene.get(kinds.VOLUME_BACKUP, namespace, name)["metadata"]["uid"] for name in names}

    def delete(name: str) -> None:
        scene.call(lambda client: client.delete(kinds.VOLUME_BACKUP, name, namespace))
        wait_for(f"end of {name}", lambda: scene.get(kinds.VOLUME_BACKUP, namespace, name) is None)

    for name in names:
        delete(name)
    set_import(scene, namespace, mode="Always", interval="2h")
    for name in names:
        wait_for(f"import of {name}", lambda name=name: scene.get(kinds.VOLUME_BACKUP, namespace, name) is not None)
        scene.wait_for_phase(kinds.VOLUME_BACKUP, namespace, name, "available")
        assert scene.get(kinds.VOLUME_BACKUP, namespace, name)["status"]["id"] == ids[name]
    wait_for("the inventory", lambda: store_status(scene, namespace).get("inventory", {}).get("imported") == 2)
    delete("released")
    assert store_status(scene, namespace)["released"] == [ids["released"]]
    before = store_status(scene, namespace)["inventory"]["settings"]
    set_import(scene, namespace, interval="3h")
    wait_for("the next import", lambda: store_status(scene, namespace)["inventory"]["settings"] != before)
    assert scene.get(kinds.VOLUME_BACKUP, namespace, "released") is None
    scene.create(kinds.VOLUME_RESTORE, namespace, "rescue", backupId="kept", name="rescued")
    scene.wait_for_phase(kinds.VOLUME_RESTORE, namespace, "rescue", "available")
    refused = [line["message"] for line in scene.process.lines() if "refused it" in line["message"]]
    assert [message for message in refused if f"Namespace {GONE} is skipped" not in message] == []


def test_nothing_is_done_and_nothing_is_read_in_other_namespaces(scene: Scene) -> None:
    scene.create(kinds.VOLUME_BACKUP, OTHER, "full", volumeId="data")
    scene.create(kinds.VOLUME_BACKUP, WATCHED[0], "next", volumeId="data")
    scene.wait_for_phase(kinds.VOLUME_BACKUP, WATCHED[0], "next", "available")
    assert "phase" not in scene.get(kinds.VOLUME_BACKUP, OTHER, "full").get("status", {})
    paths = {request.path.partition("?")[0] for request in scene.api.seen}
    assert not [path for path in paths if f"/namespaces/{OTHER}/" in path]
    assert not [path for path in paths if path.rpartition("/")[2] in NAMESPACED and "/namespaces/" not in path]


def test_namespace_that_does_not_exist_is_skipped_until_it_does(scene: Scene) -> None:
    """All other tests of this file run next to a listed namespace that is gone."""
    wait_for("the report", lambda: scene.process.says(f"Namespace {GONE} is skipped"))
    assert scene.process.is_ready()
    assert not scene.process.logged("Restarting kopf")

    async def create(client: KubeClient) -> None:
        await furnish_namespace(client, GONE, scene.store, "watched")
        await client.create(kinds.PVC, a_claim(GONE, "data"))
        bindings = [
            item for item in render(f"watchNamespaces={{{GONE}}}", *VALUES[1:]) if item["kind"] == "RoleBinding"
        ]
        await grant(client, [item for item in bindings if item["metadata"]["namespace"] == GONE])

    scene.call(create)
    scene.create(kinds.VOLUME_BACKUP, GONE, "full", volumeId="data")
    scene.wait_for_phase(kinds.VOLUME_BACKUP, GONE, "full", "available")
    assert scene.process.is_ready()
