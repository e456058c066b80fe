"""The operator as a process on a real API server that rejects, delays and loses requests, while users interfere.

tests.support.simulation.controllers plays snapshots, Jobs and movers; the S3 server is real. Each test ends as it would
without a fault: the backup is complete, and no child is left.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
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
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import Fault, FaultyApi, Seen, faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

CHILDREN = (kinds.JOB, kinds.POD, kinds.VOLUME_SNAPSHOT)


@dataclass
class Scene:
    """A namespace for one test. All tests of this file share the servers and the operator."""

    server: ApiServer
    cluster: Cluster
    process: OperatorProcess
    objects: Path
    namespace: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")

    @property
    def api(self) -> FaultyApi:
        """The proxy between the operator and the API server."""
        return self.process.line

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Run a function with the administrator's client, which bypasses the proxy."""
        return call_as_admin(self.server.kubeconfig, work)

    def get(self, kind: Kind, name: str) -> Any:
        """Return an object of the namespace, or None."""
        return self.call(lambda client: client.get(kind, name, self.namespace))

    def backup(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a VolumeBackup of the volume."""
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": {"volumeId": "data"} | spec}
        made: dict[str, Any] = self.call(lambda client: client.create(kinds.VOLUME_BACKUP, body))
        return made

    def delete(self, name: str) -> None:
        """Delete a VolumeBackup, and wait until it is gone."""
        self.call(lambda client: client.delete(kinds.VOLUME_BACKUP, name, self.namespace))
        wait_for(f"end of {name}", lambda: self.get(kinds.VOLUME_BACKUP, name) is None)

    def wait_for_phase(self, name: str, phase: str) -> Any:
        """Wait until a backup has this phase, and return it."""

        def find() -> Any:
            found = self.get(kinds.VOLUME_BACKUP, name)
            return found if found and found.get("status", {}).get("phase") == phase else None

        return wait_for(f"{name} {phase}", find)

    def wait_for_reason(self, name: str, reason: str) -> None:
        """Wait until a condition of a backup has this reason."""

        def has_reason() -> bool:
            status = (self.get(kinds.VOLUME_BACKUP, name) or {}).get("status", {})
            return any(condition["reason"] == reason for condition in status.get("conditions", ()))

        wait_for(f"{name} with {reason}", has_reason)

    def children(self) -> list[str]:
        """Return the children that exist in the namespace."""

        async def list_children(client: KubeClient) -> list[str]:
            found = [item for kind in CHILDREN for item in await client.list(kind, self.namespace)]
            claims = await client.list(
                kinds.PVC, self.namespace, labels=f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"
            )
            return [f"{item['kind']} {item['metadata']['name']}" for item in (*found, *claims)]

        listed: list[str] = self.call(list_children)
        return listed

    def stored(self) -> list[str]:
        """Return the ids of the backups whose manifests are in the store."""
        return sorted(path.stem for path in self.objects.glob(f"races/{self.namespace}/backups/*/*.manifest"))

    def wait_for_clean_up(self, *backups: dict[str, Any]) -> None:
        """Wait until no child is left, and check that only these backups are stored."""
        wait_for("end of the children", lambda: not self.children())
        assert self.stored() == sorted(backup["metadata"]["uid"] for backup in backups)

    def writes(self, since: int = 0) -> list[Seen]:
        """Return the operator's writes to this namespace, including Events."""
        prefix = f"/namespaces/{self.namespace}/"
        return [request for request in self.api.seen[since:] if request.is_write and prefix in request.path]

    def movers(self, backup: dict[str, Any]) -> int:
        """Return how many movers have started for a backup."""
        return len(self.cluster.movers[backup["metadata"]["uid"]])


@pytest.fixture(scope="module")
def make_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Scene]]:
    """Run servers, controllers and one operator, and make scenes with them."""
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))

        async def prepare() -> None:
            async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
                for resource in RESOURCES:
                    await install(client, resource)
                await furnish(client)

        asyncio.run(prepare())
        cluster = stack.enter_context(controllers(server, store))
        api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        directory = tmp_path_factory.mktemp("operator")
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", api.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(api, directory, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)

        def make() -> Scene:
            made = Scene(server, cluster, process, store.directory)
            made.call(lambda client: furnish_namespace(client, made.namespace, store, "races"))
            made.call(lambda client: client.create(kinds.PVC, a_claim(made.namespace, "data")))
            wait_for("bound volume", lambda: made.get(kinds.PVC, "data").get("status", {}).get("phase") == "Bound")
            return made

        yield make


@pytest.fixture
def scene(make_scene: Callable[[], Scene]) -> Iterator[Scene]:
    made = make_scene()
    yield made
    made.api.rule = lambda request: None
    made.api.mute = False
    for kind in tuple(made.cluster.held):
        made.cluster.release(kind)


def once_each(scene: Scene, fault: Fault) -> Callable[[Seen], Fault | None]:
    """Return a rule that fails the first write to every path of the namespace, except Events."""
    writes: Counter[tuple[str, str]] = Counter()

    def rule(request: Seen) -> Fault | None:
        if not request.is_write or f"/namespaces/{scene.namespace}/" not in request.path or "/events" in request.path:
            return None
        writes[request.method, request.path] += 1
        return fault if writes[request.method, request.path] == 1 else None

    return rule


FAULTS = {
    "its response is lost": Fault(504, is_done=True),
    "it conflicts": Fault(409),
    "the server fails": Fault(500),
    "there are too many requests": Fault(429, retry_after=1),
    "it is forbidden for a moment": Fault(403),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_backup_completes_although_every_first_write_fails(scene: Scene, fault: Fault) -> None:
    scene.api.rule = once_each(scene, fault)
    backup = scene.backup("full")
    scene.wait_for_phase("full", "available")
    scene.wait_for_clean_up(backup)
    assert scene.movers(backup) == 1
    scene.delete("full")
    scene.wait_for_clean_up()


def test_muted_watches_do_not_stop_a_backup(scene: Scene) -> None:
    backup = scene.backup("full")
    scene.wait_for_reason("full", "Accepted")
    scene.api.mute = True
    scene.wait_for_phase("full", "available")
    scene.wait_for_clean_up(backup)


def test_constant_writes_by_somebody_else_do_not_stop_a_backup(scene: Scene) -> None:
    backup = scene.backup("full")

    async def disturb(client: KubeClient) -> None:
        for number in range(1000):
            patch = {"metadata": {"annotations": {"example.org/disturbed": str(number)}}}
            patched = await client.merge_patch(kinds.VOLUME_BACKUP, "full", scene.namespace, patch)
            if patched.get("status", {}).get("phase") == "available":
                return
            await asyncio.sleep(0.01)

    scene.call(disturb)
    scene.wait_for_phase("full", "available")
    scene.wait_for_clean_up(backup)


def test_backup_recreated_while_its_mover_waits_completes(scene: Scene) -> None:
    scene.cluster.hold("Job")
    first = scene.backup("full")
    scene.wait_for_reason("full", "MoverPending")
    scene.delete("full")
    recreated = scene.backup("full")
    scene.wait_for_reason("full", "MoverPending")
    scene.cluster.release("Job")
    scene.wait_for_phase("full", "available")
    scene.wait_for_clean_up(recreated)
    assert recreated["metadata"]["uid"] != first["metadata"]["uid"]


def test_backup_whose_finalizer_was_removed_by_force_leaves_no_job(scene: Scene) -> None:
    """There is no garbage collector here, so the test deletes the Job."""
    scene.cluster.hold("Job")
    first = scene.backup("full")
    scene.wait_for_reason("full", "MoverPending")
    child = labels.child_name(first["metadata"]["uid"])
    scene.api.rule = lambda request: Fault(500) if request.is_write else None
    scene.call(lambda client: client.delete(kinds.VOLUME_BACKUP, "full", scene.namespace))
    patch = {"metadata": {"finalizers": None}}
    scene.call(lambda client: client.merge_patch(kinds.VOLUME_BACKUP, "full", scene.namespace, patch))
    scene.api.rule = lambda request: None
    scene.call(lambda client: client.delete(kinds.JOB, child, scene.namespace))
    wait_for("end of the Job", lambda: scene.get(kinds.JOB, child) is None)


def test_copy_with_foreign_status_and_finalizer_is_backed_up_again(scene: Scene) -> None:
    original = scene.backup("full")
    status = scene.wait_for_phase("full", "available")["status"]
    metadata = {
        "name": "copied",
        "namespace": scene.namespace,
        "finalizers": [labels.BACKUP_FINALIZER],
        "annotations": {"example.org/restored-by": "another tool"},
    }
    body = {"metadata": metadata, "spec": {"volumeId": "data"}}
    copied = scene.call(lambda client: client.create(kinds.VOLUME_BACKUP, body))
    uid = copied["metadata"]["uid"]
    scene.call(
        lambda client: client.merge_patch(
            kinds.VOLUME_BACKUP, "copied", scene.namespace, {"status": status}, subresource="status"
        )
    )
    wait_for("a status of its own", lambda: scene.get(kinds.VOLUME_BACKUP, "copied")["status"].get("id") == uid)
    own = scene.wait_for_phase("copied", "available")["status"]
    assert own["manifestKey"].endswith(f"/{uid}.manifest")
    scene.wait_for_clean_up(original, copied)


@pytest.mark.parametrize("kind", [kinds.VOLUME_SNAPSHOT, kinds.PVC, kinds.JOB], ids=lambda kind: kind.kind)
def test_deleted_child_leaves_nothing_behind(scene: Scene, kind: Kind) -> None:
    """The backup completes or fails with a reason. In both cases nothing is left over."""
    scene.cluster.hold(kind.kind)
    backup = scene.backup("full")
    scene.wait_for_reason("full", "MoverPending" if kind is kinds.JOB else "SnapshotNotReady")
    child = labels.child_name(backup["metadata"]["uid"])
    wait_for("the child", lambda: scene.get(kind, child))
    scene.call(lambda client: client.delete(kind, child, scene.namespace))
    scene.cluster.release(kind.kind)

    def ended() -> Any:
        phase = scene.get(kinds.VOLUME_BACKUP, "full").get("status", {}).get("phase")
        return phase if phase in ("available", "error") else None

    phase = wait_for("end of the backup", ended)
    wait_for("end of the children", lambda: not scene.children())
    assert (len(scene.stored()) == 1) == (phase == "available")
    scene.delete("full")
    scene.wait_for_clean_up()


def test_backup_takes_nine_writes_and_three_events(scene: Scene) -> None:
    """The simulation counts the same in test_write_budget. The first backup covers the writes for the store."""
    first = scene.backup("first")
    scene.wait_for_phase("first", "available")
    scene.wait_for_clean_up(first)
    since = len(scene.api.seen)
    backup = scene.backup("full")
    scene.wait_for_phase("full", "available")
    scene.wait_for_clean_up(first, backup)
    until = next(
        index for index, request in enumerate(scene.api.seen)
        if index >= since and request.method == "DELETE" and scene.namespace in request.path
    )  # fmt: skip
    own = [request for request in scene.writes(since) if "/backupstores/" not in request.path]
    before = [request for request in own if scene.api.seen.index(request) < until]
    events = [request for request in before if "/events" in request.path]
    released = [request for request in before if request.method == "PATCH" and "/jobs/" in request.path]
    requests = [f"{request.method} {request.path}" for request in before]
    assert len(before) - len(events) - len(released) <= 9, requests
    assert len(events) <= 3, requests
