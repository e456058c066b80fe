"""Operator processes on a real API server that fails in every way, and several operators that fail.

Each operator has a proxy to the API server that counts requests and can answer instead of the server. An operator
shows that it acts by writing the status of a BackupStore whose Secret is missing.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.errors import KubeUnavailable, NotFound
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import BACKUP_STORE, LEASE, NAMESPACE, Kind
from tests.cluster import apiserver, kubeconfigs
from tests.cluster.apiserver import ApiServer
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import Fault, Seen, faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.cluster.rights import call_as_admin

pytestmark = pytest.mark.integration

LEASE_SECONDS = 6
"""Shorter than the default of 15 s, so that tests wait less. All other times of the election derive from it."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """Run an API server that is restarted when it is killed."""
    with apiserver.running(with_snapshots=True, restarts=True) as running:

        async def prepare() -> None:
            async with aclosing(await connect(kubeconfig=str(running.kubeconfig))) as client:
                for resource in RESOURCES:
                    await install(client, resource)

        asyncio.run(prepare())
        yield running


@dataclass
class Scene:
    """A namespace with a Lease, and the operators that are candidates for it."""

    server: ApiServer
    directory: Path
    namespace: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    stack: ExitStack = field(default_factory=ExitStack)

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Run a function with the administrator's client, which bypasses the proxies."""
        return call_as_admin(self.server.kubeconfig, work)

    def start(self, name: str, **environment: str) -> OperatorProcess:
        """Start an operator with its own proxy, and wait until it is ready."""
        context = ssl.create_default_context(cafile=str(self.server.authority))
        api = self.stack.enter_context(faulty_api(self.server.url, context))
        path = self.directory / f"{name}.kubeconfig"
        kubeconfig = kubeconfigs.write(path, api.url, self.server.authority, self.server.token)
        settings = {
            "CINDERBLOCK_LEASE_NAMESPACE": self.namespace,
            "CINDERBLOCK_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        started = operator(api, self.directory, name, kubeconfig, **(settings | environment))
        process = self.stack.enter_context(started)
        wait_for(f"readiness of {name}", process.is_ready)
        return process

    def pair(self) -> tuple[OperatorProcess, OperatorProcess]:
        """Start two operators. Return the leader and the standby."""
        leader, standby = self.start("first"), self.start("second")
        assert self.leads(leader)
        return leader, standby

    def leads(self, process: OperatorProcess) -> bool:
        """Return whether this operator holds the Lease."""
        [started] = process.logged("Operator started")
        lease = self.get(LEASE, "cinderblock")
        return bool(lease["spec"].get("holderIdentity") == started["identity"])

    def get(self, kind: Kind, name: str) -> Any:
        """Return an object of the namespace."""
        return self.call(lambda client: client.get(kind, name, self.namespace))

    def store(self, name: str) -> None:
        """Create a BackupStore whose Secret is missing."""
        body = {
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"credentialsSecretRef": {"name": "absent"}},
        }
        self.call(lambda client: client.create(BACKUP_STORE, body))

    def has_status(self, name: str) -> bool:
        """Return whether an operator has written the status of a store."""
        return bool(self.get(BACKUP_STORE, name).get("status", {}).get("conditions"))

    def wait_for_action(self, name: str, seconds: float = 60) -> None:
        """Create a store and wait until an operator has written its status."""
        self.store(name)
        wait_for(f"status of store {name}", lambda: self.has_status(name), seconds)


@pytest.fixture
def make_scene(server: ApiServer, tmp_path: Path) -> Iterator[Callable[[str], Scene]]:
    """Make namespaces, without operators."""
    with ExitStack() as stack:

        def make(name: str) -> Scene:
            directory = tmp_path / name
            directory.mkdir()
            scene = Scene(server, directory, stack=stack)
            scene.call(lambda client: client.create(NAMESPACE, {"metadata": {"name": scene.namespace}}))
            return scene

        yield make


@pytest.fixture
def scene(make_scene: Callable[[str], Scene]) -> Scene:
    """Make one namespace."""
    return make_scene("only")


def test_stopped_leader_releases_its_lease_and_exits_cleanly(scene: Scene) -> None:
    leader, standby = scene.pair()
    leader.send(signal.SIGTERM)
    leader.says("Lease released")
    scene.wait_for_action("after")
    assert leader.ended() == 0
    assert scene.leads(standby)


def test_killed_leader_is_replaced_when_its_lease_expires(scene: Scene) -> None:
    leader, standby = scene.pair()
    scene.wait_for_action("before")
    leader.send(signal.SIGKILL)
    scene.wait_for_action("after")
    assert scene.leads(standby)
    assert standby.line.count(lambda request: request.is_write, since=0) > 0


def test_standby_watches_and_writes_nothing(scene: Scene) -> None:
    _, standby = scene.pair()
    scene.wait_for_action("store")
    assert standby.line.count(lambda request: request.is_watch) > 0
    assert not standby.line.count(lambda request: request.is_write)
    assert not standby.line.count(lambda request: request.method != "GET")


def test_paused_leader_does_not_act_when_it_wakes_up(scene: Scene) -> None:
    leader, standby = scene.pair()
    leader.send(signal.SIGSTOP)
    # It has work to do when it wakes up: no event has told it about this store yet.
    scene.wait_for_action("while-it-sleeps")
    assert scene.leads(standby)
    scene.store("unknown-to-it")
    woken = time.monotonic()
    leader.send(signal.SIGCONT)
    leader.says("Lease lost")
    wait_for("readiness", leader.is_ready)
    scene.wait_for_action("after")
    assert not leader.line.count(lambda request: request.is_write, since=woken)
    assert scene.leads(standby)


def test_disconnected_leader_stops_acting_and_the_standby_takes_over(scene: Scene) -> None:
    leader, standby = scene.pair()
    leader.line.down()
    scene.wait_for_action("cut-off")
    assert scene.leads(standby)
    leader.says("Lease lost")
    assert leader.health("/readyz")[0] == 503
    assert leader.health("/healthz")[0] == 200
    leader.line.up()
    wait_for("readiness", leader.is_ready)
    standby.send(signal.SIGTERM)
    scene.wait_for_action("back-again")
    assert scene.leads(leader)


FAILURES: dict[str, Callable[[Seen], Fault | None]] = {
    "hanging": lambda request: Fault(),
    "throttling": lambda request: Fault(429, retry_after=1),
    "broken": lambda request: Fault(500),
    "overloaded": lambda request: Fault(503),
    "unauthenticated": lambda request: Fault(401),
    "forbidden": lambda request: Fault(403),
}
FAILURE_SECONDS = 12


def test_api_failures_cause_neither_a_restart_nor_a_hot_loop(
    make_scene: Callable[[str], Scene],
) -> None:
    scenes = {name: make_scene(name) for name in (*FAILURES, "disconnected")}
    operators = {name: scene.start(name) for name, scene in scenes.items()}
    began = time.monotonic()
    for name, process in operators.items():
        process.line.rule = FAILURES.get(name, process.line.rule)
        # Open watches would continue: close them when the failure begins.
        process.line.down()
        if name != "disconnected":
            process.line.up()
    wait_for("the end of the failures", lambda: time.monotonic() - began > FAILURE_SECONDS)
    ended = time.monotonic()
    requests = {name: process.line.count(lambda request: True, since=began) for name, process in operators.items()}
    for name, process in operators.items():
        process.line.rule = lambda request: None
        if name == "disconnected":
            process.line.up()
    for name, process in operators.items():
        scenes[name].wait_for_action("after", seconds=45)
        wait_for(f"readiness after {name}", process.is_ready)
        assert process.process.poll() is None
        # Seven watches with a growing pause between attempts, and the Lease with up to four attempts every 0.4 s of
        # this short election: 1 to 8 a second.
        assert requests[name] / (ended - began) < 15, name


def test_operator_survives_a_killed_api_server(scene: Scene, server: ApiServer) -> None:
    process = scene.start("only")
    scene.wait_for_action("before")
    server.process().signal(signal.SIGKILL)
    wait_for("another API server", lambda: _answers(scene))
    scene.wait_for_action("after", seconds=45)
    assert process.process.poll() is None


def test_operator_survives_a_paused_api_server(scene: Scene, server: ApiServer) -> None:
    process = scene.start("only")
    scene.wait_for_action("before")
    server_process = server.process()
    server_process.signal(signal.SIGSTOP)
    try:
        process.says("Lease lost")
    finally:
        server_process.signal(signal.SIGCONT)
    scene.wait_for_action("after", seconds=45)
    assert process.process.poll() is None


@pytest.mark.parametrize("code", [410, 500])
def test_error_inside_a_watch_reopens_it(scene: Scene, code: int) -> None:
    process = scene.start("only")
    watches = process.line.count(lambda request: request.is_watch and request.path.endswith("backupstores"))
    status = {"kind": "Status", "apiVersion": "v1", "code": code, "message": "scripted"}
    assert process.line.say_on_watches("backupstores", {"type": "ERROR", "object": status})
    scene.wait_for_action("after", seconds=45)
    wait_for("readiness", process.is_ready)
    assert process.line.count(lambda request: request.is_watch and request.path.endswith("backupstores")) > watches
    assert process.process.poll() is None


@pytest.mark.parametrize("code", [404, 410])
def test_rejected_list_restarts_kopf(scene: Scene, code: int) -> None:
    process = scene.start("only")
    process.line.rule = lambda request: Fault(code) if request.path.endswith("volumebackups") else None
    status = {"kind": "Status", "apiVersion": "v1", "code": 410, "message": "scripted"}
    assert process.line.say_on_watches("volumebackups", {"type": "ERROR", "object": status})
    process.says("Restarting kopf")
    process.line.rule = lambda request: None
    scene.wait_for_action("after", seconds=45)
    wait_for("readiness", process.is_ready)
    assert process.process.poll() is None


def _answers(scene: Scene) -> bool:
    try:
        scene.call(lambda client: client.list(BACKUP_STORE, scene.namespace))
    except (KubeUnavailable, NotFound):
        return False
    return True
