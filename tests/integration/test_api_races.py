"""The operator as a process on a real API server that refuses, is late, loses answers; and people who interfere.

tests.support.simulation.controllers plays snapshots, Jobs and movers; the S3 server is real. Each story ends as
the one without a fault: the backup is whole and nothing of ours is left but the VolumeBackup.
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
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

CHILDREN = (kinds.JOB, kinds.POD, kinds.VOLUME_SNAPSHOT)


@dataclass
class Scene:
    """A namespace of its own in a world that all tests of this file share."""

    server: ApiServer
    cluster: Cluster
    process: OperatorProcess
    objects: Path
    namespace: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")

    @property
    def line(self) -> FaultyApi:
        """The operator's way to the API server."""
        return self.process.line

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Do something as the administrator, past the line."""

        async def do() -> Any:
            async with aclosing(await connect(kubeconfig=str(self.server.kubeconfig))) as client:
                return await work(client)

        return asyncio.run(do())

    def get(self, kind: Kind, name: str) -> Any:
        """An object of the namespace, or None."""
        return self.call(lambda client: client.get(kind, name, self.namespace))

    def backup(self, name: str, **spec: Any) -> dict[str, Any]:
        """Ask for a backup of the volume."""
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": {"volumeId": "data"} | spec}
        made: dict[str, Any] = self.call(lambda client: client.create(kinds.VOLUME_BACKUP, body))
        return made

    def delete(self, name: str) -> None:
        """Ask for a backup's deletion, and wait until it has gone."""
        self.call(lambda client: client.delete(kinds.VOLUME_BACKUP, name, self.namespace))
        wait_for(f"end of {name}", lambda: self.get(kinds.VOLUME_BACKUP, name) is None)

    def reaches(self, name: str, phase: str) -> Any:
        """Wait until a backup has this phase."""

        def seen() -> Any:
            found = self.get(kinds.VOLUME_BACKUP, name)
            return found if found and found.get("status", {}).get("phase") == phase else None

        return wait_for(f"{name} {phase}", seen)

    def says(self, name: str, reason: str) -> None:
        """Wait until a backup waits for this reason."""

        def seen() -> bool:
            status = (self.get(kinds.VOLUME_BACKUP, name) or {}).get("status", {})
            return any(condition["reason"] == reason for condition in status.get("conditions", ()))

        wait_for(f"{name} with {reason}", seen)

    def children(self) -> list[str]:
        """What there is of ours besides our own kinds."""

        async def look(client: KubeClient) -> list[str]:
            found = [item for kind in CHILDREN for item in await client.list(kind, self.namespace)]
            claims = await client.list(
                kinds.PVC, self.namespace, labels=f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"
            )
            return [f"{item['kind']} {item['metadata']['name']}" for item in (*found, *claims)]

        listed: list[str] = self.call(look)
        return listed

    def stored(self) -> list[str]:
        """Manifests of the namespace in the store, by id of the backup."""
        return sorted(path.stem for path in self.objects.glob(f"races/{self.namespace}/backups/*/*.manifest"))

    def is_clean_with(self, *backups: dict[str, Any]) -> None:
        """Wait until only these backups are stored, and nothing that was made on the way is left."""
        wait_for("end of the children", lambda: not self.children())
        assert self.stored() == sorted(backup["metadata"]["uid"] for backup in backups)

    def writes(self, since: int = 0) -> list[Seen]:
        """The operator's writes to this namespace, Events among them."""
        mine = f"/namespaces/{self.namespace}/"
        return [seen for seen in self.line.seen[since:] if seen.is_write and mine in seen.path]

    def movers(self, backup: dict[str, Any]) -> int:
        """How many movers have begun to work for a backup."""
        return len(self.cluster.movers[backup["metadata"]["uid"]])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Scene]]:
    """The servers, the controllers and one operator; gives scenes in them."""
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
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        directory = tmp_path_factory.mktemp("operator")
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", line.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(line, directory, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)

        def scene() -> Scene:
            made = Scene(server, cluster, process, store.directory)
            made.call(lambda client: furnish_namespace(client, made.namespace, store, "races"))
            made.call(lambda client: client.create(kinds.PVC, a_claim(made.namespace, "data")))
            wait_for("bound volume", lambda: made.get(kinds.PVC, "data").get("status", {}).get("phase") == "Bound")
            return made

        yield scene


@pytest.fixture
def scene(world: Callable[[], Scene]) -> Iterator[Scene]:
    made = world()
    yield made
    made.line.rule = lambda seen: None
    made.line.mute = False
    for kind in tuple(made.cluster.held):
        made.cluster.release(kind)


def once_each(scene: Scene, fault: Fault) -> Callable[[Seen], Fault | None]:
    """A rule that spoils the first write to every path of the namespace; Events are left in peace."""
    spoiled: Counter[tuple[str, str]] = Counter()

    def rule(seen: Seen) -> Fault | None:
        if not seen.is_write or f"/namespaces/{scene.namespace}/" not in seen.path or "/events" in seen.path:
            return None
        spoiled[seen.method, seen.path] += 1
        return fault if spoiled[seen.method, seen.path] == 1 else None

    return rule


FAULTS = {
    "its answer is lost": Fault(504, is_done=True),
    "it is a conflict": Fault(409),
    "the server fails": Fault(500),
    "there are too many requests": Fault(429, retry_after=1),
    "it is forbidden for a moment": Fault(403),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_every_first_write_fails_because(scene: Scene, fault: Fault) -> None:
    scene.line.rule = once_each(scene, fault)
    backup = scene.backup("full")
    scene.reaches("full", "available")
    scene.is_clean_with(backup)
    assert scene.movers(backup) == 1
    scene.delete("full")
    scene.is_clean_with()


def test_watches_that_bring_nothing_hold_no_backup_up(scene: Scene) -> None:
    backup = scene.backup("full")
    scene.says("full", "Accepted")
    scene.line.mute = True
    scene.reaches("full", "available")
    scene.is_clean_with(backup)


def test_somebody_who_writes_to_the_same_object_all_the_time(scene: Scene) -> None:
    backup = scene.backup("full")

    async def disturb(client: KubeClient) -> None:
        for number in range(1000):
            patch = {"metadata": {"annotations": {"example.org/disturbed": str(number)}}}
            seen = await client.merge_patch(kinds.VOLUME_BACKUP, "full", scene.namespace, patch)
            if seen.get("status", {}).get("phase") == "available":
                return
            await asyncio.sleep(0.01)

    scene.call(disturb)
    scene.reaches("full", "available")
    scene.is_clean_with(backup)


def test_a_backup_that_is_deleted_and_asked_for_again_while_its_mover_waits(scene: Scene) -> None:
    scene.cluster.hold("Job")
    first = scene.backup("full")
    scene.says("full", "MoverPending")
    scene.delete("full")
    again = scene.backup("full")
    scene.says("full", "MoverPending")
    scene.cluster.release("Job")
    scene.reaches("full", "available")
    scene.is_clean_with(again)
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_backup_whose_finalizer_was_taken_off_by_force_leaves_no_job(scene: Scene) -> None:
    """There is no garbage collector here: what it does to the Job, the test does."""
    scene.cluster.hold("Job")
    first = scene.backup("full")
    scene.says("full", "MoverPending")
    child = labels.child_name(first["metadata"]["uid"])
    scene.line.rule = lambda seen: Fault(500) if seen.is_write else None
    scene.call(lambda client: client.delete(kinds.VOLUME_BACKUP, "full", scene.namespace))
    patch = {"metadata": {"finalizers": None}}
    scene.call(lambda client: client.merge_patch(kinds.VOLUME_BACKUP, "full", scene.namespace, patch))
    scene.line.rule = lambda seen: None
    scene.call(lambda client: client.delete(kinds.JOB, child, scene.namespace))
    wait_for("end of the Job", lambda: scene.get(kinds.JOB, child) is None)


def test_a_copy_with_somebody_elses_status_and_finalizer_is_made_anew(scene: Scene) -> None:
    original = scene.backup("full")
    status = scene.reaches("full", "available")["status"]
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
    own = scene.reaches("copied", "available")["status"]
    assert own["manifestKey"].endswith(f"/{uid}.manifest")
    scene.is_clean_with(original, copied)


@pytest.mark.parametrize("kind", [kinds.VOLUME_SNAPSHOT, kinds.PVC, kinds.JOB], ids=lambda kind: kind.kind)
def test_a_child_that_somebody_deletes(scene: Scene, kind: Kind) -> None:
    """The backup is made, or says why not; in both cases nothing is left."""
    scene.cluster.hold(kind.kind)
    backup = scene.backup("full")
    scene.says("full", "SnapshotNotReady" if kind is kinds.VOLUME_SNAPSHOT else "MoverPending")
    child = labels.child_name(backup["metadata"]["uid"])
    scene.call(lambda client: client.delete(kind, child, scene.namespace))
    scene.cluster.release(kind.kind)

    def ended() -> Any:
        phase = scene.get(kinds.VOLUME_BACKUP, "full").get("status", {}).get("phase")
        return phase if phase in ("available", "error") else None

    phase = wait_for("end of the backup", ended)
    wait_for("end of the children", lambda: not scene.children())
    assert (len(scene.stored()) == 1) == (phase == "available")
    scene.delete("full")
    scene.is_clean_with()


def test_a_backup_takes_nine_writes_and_its_events(scene: Scene) -> None:
    """As it is counted in tests/simulation/test_write_budget.py; the store has had its own before."""
    first = scene.backup("first")
    scene.reaches("first", "available")
    scene.is_clean_with(first)
    since = len(scene.line.seen)
    backup = scene.backup("full")
    scene.reaches("full", "available")
    scene.is_clean_with(first, backup)
    until = next(
        index for index, seen in enumerate(scene.line.seen)
        if index >= since and seen.method == "DELETE" and scene.namespace in seen.path
    )  # fmt: skip
    mine = [seen for seen in scene.writes(since) if "/backupstores/" not in seen.path]
    before = [seen for seen in mine if scene.line.seen.index(seen) < until]
    events = [seen for seen in before if "/events" in seen.path]
    released = [seen for seen in before if seen.method == "PATCH" and "/jobs/" in seen.path]
    told = [f"{seen.method} {seen.path}" for seen in before]
    assert len(before) - len(events) - len(released) <= 9, told
    assert len(events) <= 3, told
