"""Operator processes on a real API server that fails in every way, and operators that die beside each other.

Between them is a line that counts every request and can answer in the server's place. What an operator does is seen by
what it writes: the status of a BackupStore whose Secret is missing.
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

pytestmark = pytest.mark.integration

LEASE_SECONDS = 6
"""Short, so that a test need not wait for a whole one of 15 s; all other times of the election follow it."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """An API server that comes back when it is killed."""
    with apiserver.running(with_snapshots=True, restarts=True) as running:

        async def prepare() -> None:
            async with aclosing(await connect(kubeconfig=str(running.kubeconfig))) as client:
                for resource in RESOURCES:
                    await install(client, resource)

        asyncio.run(prepare())
        yield running


@dataclass
class Scene:
    """One namespace with one Lease, and operators that are candidates for it."""

    server: ApiServer
    directory: Path
    namespace: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    stack: ExitStack = field(default_factory=ExitStack)

    def call(self, work: Callable[[KubeClient], Any]) -> Any:
        """Do something as the administrator, past the line."""

        async def do() -> Any:
            async with aclosing(await connect(kubeconfig=str(self.server.kubeconfig))) as client:
                return await work(client)

        return asyncio.run(do())

    def start(self, name: str, **environment: str) -> OperatorProcess:
        """Start an operator on a line of its own, and wait until it is ready."""
        context = ssl.create_default_context(cafile=str(self.server.authority))
        line = self.stack.enter_context(faulty_api(self.server.url, context))
        path = self.directory / f"{name}.kubeconfig"
        kubeconfig = kubeconfigs.write(path, line.url, self.server.authority, self.server.token)
        settings = {
            "CINDERBLOCK_LEASE_NAMESPACE": self.namespace,
            "CINDERBLOCK_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        started = operator(line, self.directory, name, kubeconfig, **(settings | environment))
        one = self.stack.enter_context(started)
        wait_for(f"readiness of {name}", one.is_ready)
        return one

    def pair(self) -> tuple[OperatorProcess, OperatorProcess]:
        """The leader, and one that stands by."""
        leader, other = self.start("first"), self.start("second")
        assert self.leads(leader)
        return leader, other

    def leads(self, one: OperatorProcess) -> bool:
        """Whether this operator holds the Lease."""
        [begun] = one.said("The operator runs")
        lease = self.get(LEASE, "cinderblock")
        return bool(lease["spec"].get("holderIdentity") == begun["identity"])

    def get(self, kind: Kind, name: str) -> Any:
        """An object of the namespace."""
        return self.call(lambda client: client.get(kind, name, self.namespace))

    def store(self, name: str) -> None:
        """Create a BackupStore whose Secret is missing."""
        body = {
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"credentialsSecretRef": {"name": "absent"}},
        }
        self.call(lambda client: client.create(BACKUP_STORE, body))

    def was_seen(self, name: str) -> bool:
        """Whether an operator has written the store's status."""
        return bool(self.get(BACKUP_STORE, name).get("status", {}).get("conditions"))

    def acts(self, name: str, seconds: float = 60) -> float:
        """Create a store and wait until an operator has seen to it; returns the seconds that took."""
        began = time.monotonic()
        self.store(name)
        wait_for(f"status of store {name}", lambda: self.was_seen(name), seconds)
        return time.monotonic() - began


@pytest.fixture
def make_scene(server: ApiServer, tmp_path: Path) -> Iterator[Callable[[str], Scene]]:
    """Makes namespaces, with no operator yet."""
    with ExitStack() as stack:

        def make(name: str) -> Scene:
            directory = tmp_path / name
            directory.mkdir()
            made = Scene(server, directory, stack=stack)
            made.call(lambda client: client.create(NAMESPACE, {"metadata": {"name": made.namespace}}))
            return made

        yield make


@pytest.fixture
def scene(make_scene: Callable[[str], Scene]) -> Scene:
    """One of them."""
    return make_scene("only")


def test_a_leader_that_is_stopped_hands_over_within_three_seconds_and_ends_well(scene: Scene) -> None:
    leader, other = scene.pair()
    leader.send(signal.SIGTERM)
    assert scene.acts("after") < 3
    assert leader.ended() == 0
    assert scene.leads(other)


def test_a_leader_that_is_killed_is_followed_when_its_lease_has_run_out(scene: Scene) -> None:
    leader, other = scene.pair()
    scene.acts("before")
    leader.send(signal.SIGKILL)
    assert scene.acts("after") < LEASE_SECONDS + 5
    assert scene.leads(other)
    assert other.line.count(lambda seen: seen.is_write, since=0) > 0


def test_one_that_stands_by_watches_and_writes_nothing(scene: Scene) -> None:
    _, other = scene.pair()
    scene.acts("store")
    assert other.line.count(lambda seen: seen.is_watch) > 0
    assert not other.line.count(lambda seen: seen.is_write)
    assert not other.line.count(lambda seen: seen.method != "GET")


def test_a_paused_leader_that_wakes_up_does_not_act(scene: Scene) -> None:
    leader, other = scene.pair()
    leader.send(signal.SIGSTOP)
    # It has work in front of it when it wakes up: it has not heard of this store yet.
    scene.acts("while-it-sleeps")
    assert scene.leads(other)
    scene.store("unseen-by-it")
    woken = time.monotonic()
    leader.send(signal.SIGCONT)
    leader.says("This process does not lead any more")
    wait_for("readiness", leader.is_ready)
    scene.acts("after")
    assert not leader.line.count(lambda seen: seen.is_write, since=woken)
    assert scene.leads(other)


def test_a_leader_that_is_cut_off_stops_acting_and_another_one_goes_on(scene: Scene) -> None:
    leader, other = scene.pair()
    leader.line.down()
    scene.acts("cut-off")
    assert scene.leads(other)
    leader.says("This process does not lead any more")
    assert leader.health("/readyz")[0] == 503
    assert leader.health("/healthz")[0] == 200
    leader.line.up()
    wait_for("readiness", leader.is_ready)
    other.send(signal.SIGTERM)
    scene.acts("back-again")
    assert scene.leads(leader)


STORMS: dict[str, Callable[[Seen], Fault | None]] = {
    "hanging": lambda seen: Fault(),
    "throttling": lambda seen: Fault(429, retry_after=1),
    "broken": lambda seen: Fault(500),
    "overloaded": lambda seen: Fault(503),
    "forgetting-who-we-are": lambda seen: Fault(401),
    "forbidding": lambda seen: Fault(403),
}
STORM_SECONDS = 12


def test_storms_of_every_kind_are_survived_without_a_restart_and_without_a_hot_loop(
    make_scene: Callable[[str], Scene],
) -> None:
    scenes = {name: make_scene(name) for name in (*STORMS, "refusing")}
    operators = {name: scene.start(name) for name, scene in scenes.items()}
    began = time.monotonic()
    for name, one in operators.items():
        one.line.rule = STORMS.get(name, one.line.rule)
        # Watches that are open would go on: a new storm begins with their end.
        one.line.down()
        if name != "refusing":
            one.line.up()
    wait_for("the end of the storms", lambda: time.monotonic() - began > STORM_SECONDS)
    ended = time.monotonic()
    asked = {name: one.line.count(lambda seen: True, since=began) for name, one in operators.items()}
    for name, one in operators.items():
        one.line.rule = lambda seen: None
        if name == "refusing":
            one.line.up()
    for name, one in operators.items():
        scenes[name].acts("after", seconds=45)
        wait_for(f"readiness after {name}", one.is_ready)
        assert one.process.poll() is None
        # Seven watches with a growing pause between attempts, and the Lease with up to four attempts every 0.4 s of
        # this short election: 1 to 8 a second.
        assert asked[name] / (ended - began) < 15, name


def test_an_api_server_that_is_killed_and_comes_back_is_met_again(scene: Scene, server: ApiServer) -> None:
    one = scene.start("only")
    scene.acts("before")
    server.process().signal(signal.SIGKILL)
    wait_for("another API server", lambda: _answers(scene))
    scene.acts("after", seconds=45)
    assert one.process.poll() is None


def test_an_api_server_that_is_paused_is_met_again(scene: Scene, server: ApiServer) -> None:
    one = scene.start("only")
    scene.acts("before")
    process = server.process()
    process.signal(signal.SIGSTOP)
    try:
        one.says("This process does not lead any more")
    finally:
        process.signal(signal.SIGCONT)
    scene.acts("after", seconds=45)
    assert one.process.poll() is None


@pytest.mark.parametrize("code", [410, 500])
def test_an_error_inside_a_watch_makes_it_begin_anew(scene: Scene, code: int) -> None:
    one = scene.start("only")
    watches = one.line.count(lambda seen: seen.is_watch and seen.path.endswith("backupstores"))
    status = {"kind": "Status", "apiVersion": "v1", "code": code, "message": "scripted"}
    assert one.line.say_on_watches("backupstores", {"type": "ERROR", "object": status})
    scene.acts("after", seconds=45)
    wait_for("readiness", one.is_ready)
    assert one.line.count(lambda seen: seen.is_watch and seen.path.endswith("backupstores")) > watches
    assert one.process.poll() is None


@pytest.mark.parametrize("code", [404, 410])
def test_a_list_that_is_refused_for_a_while_makes_watching_begin_anew(scene: Scene, code: int) -> None:
    one = scene.start("only")
    one.line.rule = lambda seen: Fault(code) if seen.path.endswith("volumebackups") else None
    status = {"kind": "Status", "apiVersion": "v1", "code": 410, "message": "scripted"}
    assert one.line.say_on_watches("volumebackups", {"type": "ERROR", "object": status})
    one.says("Watching begins anew")
    one.line.rule = lambda seen: None
    scene.acts("after", seconds=45)
    wait_for("readiness", one.is_ready)
    assert one.process.poll() is None


def _answers(scene: Scene) -> bool:
    try:
        scene.call(lambda client: client.list(BACKUP_STORE, scene.namespace))
    except (KubeUnavailable, NotFound):
        return False
    return True
