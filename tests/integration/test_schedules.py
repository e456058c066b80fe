"""Schedules on a real API server, with the rights and policies of the chart, and an operator that is killed.

tests.support.simulation.controllers plays everything else; the S3 server is real.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES
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

RELEASE, SHOP, BARE = "backup-system", "shop", "bare"
CLAIMS = tuple(f"data-{number}" for number in range(6))
VALUES = ("image.repository=example/cinderblock",)
FOREIGN_LEASE = {"metadata": {"name": "other", "namespace": RELEASE}}
RUN_SECONDS = 180.0
"""Time limit for a run: the operator is restarted several times meanwhile."""
LEASE_SECONDS = "6"


@dataclass
class Scene:
    """The servers, and the operator that runs at the moment.

    Attributes:
        starts: number of operators that were started.
    """

    server: ApiServer
    api: FaultyApi
    directory: Path
    kubeconfig: Path
    stack: ExitStack
    starts: int = 0
    process: OperatorProcess = field(init=False)

    def start(self) -> None:
        """Start an operator."""
        self.starts += 1
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": RELEASE, "CINDERBLOCK_LEASE_SECONDS": LEASE_SECONDS}
        started = operator(self.api, self.directory, f"operator-{self.starts}", self.kubeconfig, **settings)
        self.process = self.stack.enter_context(started)

    def kill(self) -> None:
        """Kill the operator."""
        self.process.send(signal.SIGKILL)
        self.process.ended()

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Run a function with the administrator's client, which bypasses the proxy."""
        return call_as_admin(self.server.kubeconfig, work)

    def create(self, kind: Kind, namespace: str | None, name: str, /, **spec: Any) -> None:
        """Create an object."""
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        self.call(lambda client: client.create(kind, {"metadata": metadata, "spec": spec}))

    def change(self, kind: Kind, namespace: str | None, name: str, /, **spec: Any) -> None:
        """Change fields of the spec of an object."""
        self.call(lambda client: client.merge_patch(kind, name, namespace, {"spec": spec}))

    def status(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        """Return the status of an object."""
        found: dict[str, Any] = self.call(lambda client: client.get(kind, name, namespace)).get("status", {})
        return found

    def backups(self, namespace: str = SHOP, part: str = "") -> list[dict[str, Any]]:
        """Return the VolumeBackups whose names contain a text."""
        found = self.call(lambda client: client.list(kinds.VOLUME_BACKUP, namespace))
        return [item for item in found if part in item["metadata"]["name"]]

    def condition(self, kind: Kind, namespace: str | None, name: str, condition: str) -> dict[str, Any]:
        """Return a condition of an object; empty if it has none of the type."""
        return condition_of(self.status(kind, namespace, name), condition)

    def wait_for_run(self, kind: Kind, namespace: str | None, name: str, run: str) -> dict[str, Any]:
        """Wait until a run whose name begins with a text has ended. Return the status of the schedule."""

        def ended() -> dict[str, Any] | None:
            # One reading: the run may end between two.
            status = self.status(kind, namespace, name)
            is_over = condition_of(status, "LastRunSucceeded").get("status") in ("True", "False")
            return status if is_over and status["lastRun"]["name"].startswith(run) else None

        found: dict[str, Any] = wait_for(f"end of run {run} of {name}", ended, RUN_SECONDS)
        return found


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
        scene = Scene(server, api, directory, kubeconfig, stack)
        scene.start()
        wait_for("readiness", scene.process.is_ready)
        yield scene


async def _prepare(server: ApiServer, store: s3.S3Server, directory: Path) -> None:
    async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
        for resource in RESOURCES:
            await install(client, resource)
        await furnish(client)
        await client.create(kinds.NAMESPACE, {"metadata": {"name": RELEASE}})
        await furnish_namespace(client, SHOP, store, "backups")
        await client.create(kinds.NAMESPACE, {"metadata": {"name": BARE}})
        for claim in CLAIMS:
            await client.create(kinds.PVC, a_claim(SHOP, claim))
        await client.create(kinds.PVC, a_claim(BARE, "alone"))
        chart = render(*VALUES)
        await grant(client, chart)
        await enforce(client, chart)
        async with aclosing(await connect_as(server.kubeconfig, RELEASE, "cinderblock", directory)) as account:
            await wait_until_refused(lambda: account.create(kinds.LEASE, FOREIGN_LEASE), "only the Lease of its own")


def condition_of(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of a status; empty if it has none of the type."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def assert_one_of_each(backups: list[dict[str, Any]]) -> None:
    """Assert that there is exactly one backup of each claim, and that it is available."""
    assert {item["status"]["phase"] for item in backups} == {"available"}
    assert Counter(item["status"]["volumeName"] for item in backups) == Counter(CLAIMS)


def test_run_now_makes_each_backup_once_although_the_operator_dies(scene: Scene) -> None:
    scene.create(kinds.BACKUP_SCHEDULE, SHOP, "yearly", schedule="@yearly", runNow="first")
    for number in (1, 3, 5):
        wait_for(f"{number} backups", lambda number=number: len(scene.backups(part="yearly-")) >= number)
        scene.kill()
        scene.start()
    status = scene.wait_for_run(kinds.BACKUP_SCHEDULE, SHOP, "yearly", "now-")
    assert_one_of_each(scene.backups(part="yearly-"))
    assert status["lastRunNow"] == "first"
    assert {name: status["lastRun"][name] for name in ("volumes", "created", "succeeded", "failed")} == {
        "volumes": len(CLAIMS), "created": len(CLAIMS), "succeeded": len(CLAIMS), "failed": 0,
    }  # fmt: skip
    assert not status["failing"]


def test_scheduled_runs_are_incremental_and_belong_to_their_times(scene: Scene) -> None:
    scene.create(kinds.BACKUP_SCHEDULE, SHOP, "often", schedule="* * * * *", spread="5s")
    wait_for("two runs", lambda: len(_runs(scene)) >= 2, RUN_SECONDS)
    scene.change(kinds.BACKUP_SCHEDULE, SHOP, "often", suspend=True)
    first, second = sorted(_runs(scene))[:2]
    wait_for(
        "end", lambda: all("phase" in b["status"] and b["status"]["phase"] != "creating" for b in _of(scene, second))
    )
    assert_one_of_each(_of(scene, first))
    assert not any(backup["spec"].get("incremental") for backup in _of(scene, first))
    assert any(backup["spec"].get("incremental") for backup in _of(scene, second))
    assert scene.condition(kinds.BACKUP_SCHEDULE, SHOP, "often", "Ready")["reason"] == "Suspended"


def _runs(scene: Scene) -> set[str]:
    return {
        backup["metadata"]["annotations"]["cinderblock.io/scheduled-for"] for backup in scene.backups(part="often-")
    }


def _of(scene: Scene, time: str) -> list[dict[str, Any]]:
    found = scene.backups(part="often-")
    return [backup for backup in found if backup["metadata"]["annotations"]["cinderblock.io/scheduled-for"] == time]


def test_cluster_schedule_backs_up_where_it_can_and_names_the_rest(scene: Scene) -> None:
    selector = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [SHOP, BARE]}]}
    spec = {"schedule": "@yearly", "runOnCreate": True, "namespaceSelector": selector}
    scene.create(kinds.CLUSTER_BACKUP_SCHEDULE, None, "all", **spec)
    status = scene.wait_for_run(kinds.CLUSTER_BACKUP_SCHEDULE, None, "all", "first-")
    assert_one_of_each(scene.backups(part="all-"))
    assert not scene.backups(BARE)
    assert status["failing"] == [{"namespace": BARE, "volume": "alone", "reason": "NoStore"}]
    assert status["lastRun"]["skipped"] == 1
    condition = scene.condition(kinds.CLUSTER_BACKUP_SCHEDULE, None, "all", "LastRunSucceeded")
    assert (condition["status"], condition["reason"]) == ("False", "RunIncomplete")


def test_wrong_schedule_says_so_and_is_corrected(scene: Scene) -> None:
    scene.create(kinds.BACKUP_SCHEDULE, SHOP, "wrong", schedule="0 0 30 2 *")
    wait_for("refusal", lambda: _ready(scene)["reason"] == "InvalidSchedule")
    scene.change(kinds.BACKUP_SCHEDULE, SHOP, "wrong", schedule="@monthly", timeZone="Europe/Atlantis")
    wait_for("refusal", lambda: _ready(scene)["reason"] == "InvalidTimeZone")
    scene.change(kinds.BACKUP_SCHEDULE, SHOP, "wrong", timeZone="Europe/Berlin")
    wait_for("acceptance", lambda: _ready(scene)["reason"] == "Scheduled")
    assert scene.status(kinds.BACKUP_SCHEDULE, SHOP, "wrong")["nextScheduleTime"]


def _ready(scene: Scene) -> dict[str, Any]:
    return scene.condition(kinds.BACKUP_SCHEDULE, SHOP, "wrong", "Ready") or {"reason": ""}


def test_deletion_of_a_schedule_leaves_its_backups(scene: Scene) -> None:
    before = scene.backups(part="yearly-")
    scene.call(lambda client: client.delete(kinds.BACKUP_SCHEDULE, "yearly", SHOP))
    scene.create(kinds.BACKUP_SCHEDULE, SHOP, "yearly", schedule="@yearly", runNow="first")
    wait_for("status", lambda: scene.status(kinds.BACKUP_SCHEDULE, SHOP, "yearly").get("lastRunNow") == "first")
    assert [item["metadata"]["uid"] for item in scene.backups(part="yearly-")] == [b["metadata"]["uid"] for b in before]
