"""Queues and other controllers that suspend Jobs: the operator waits, and does not fight them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from cinderblock.lifecycle.mover.suspension import QUEUE_LABEL
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import Cluster, Move
from tests.support.simulation.simulation import Simulation


class QueuedCluster(Cluster):
    """A cluster whose queue adopts all Jobs, as Kueue does in a namespace with a LocalQueue ``default``.

    Attributes:
        admits: whether the queue has room.
        labels: whether it labels the Jobs that it adopts.
        fights: number of Jobs that it had to suspend again.
    """

    admits = False
    labels = True
    fights = 0

    def moves(self) -> list[Move]:
        """Act as the queue before anybody else: its webhook changes a Job while it is created."""
        queued = [*self._queue()]
        return queued or super().moves()

    def _queue(self) -> Iterator[Move]:
        for job in self.objects.all("Job"):
            is_adopted = job["metadata"]["uid"] in self._adopted
            if "status" in job or "deletionTimestamp" in job["metadata"]:
                continue
            if not is_adopted or (not job["spec"].get("suspend") and not self.admits):
                yield Move(f"the queue holds {job['metadata']['name']}", partial(self._hold, job))
            elif job["spec"].get("suspend") and self.admits:
                spec = job["spec"] | {"suspend": False}
                yield Move(f"the queue admits {job['metadata']['name']}", partial(self.objects.update, job, spec=spec))

    def _hold(self, job: Object) -> None:
        self.fights += job["metadata"]["uid"] in self._adopted
        self._adopted.add(job["metadata"]["uid"])
        added = {QUEUE_LABEL: "default"} if self.labels else {}
        labels = job["metadata"]["labels"] | added
        self.objects.update(job, metadata=job["metadata"] | {"labels": labels}, spec=job["spec"] | {"suspend": True})

    @property
    def _adopted(self) -> set[str]:
        found: set[str] = self.__dict__.setdefault("_adopted_uids", set())
        return found


@pytest.fixture(params=[True, False], ids=["labelled", "without a label"])
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """Return a simulation with a complete backup, and a queue that is full from now on."""
    with Simulation(cluster=QueuedCluster) as running:
        queue = running.cluster
        assert isinstance(queue, QueuedCluster)
        queue.admits = True
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        running.write("data", "second")
        queue.admits, queue.labels, queue.fights = False, request.param, 0
        yield running


STARTS = {
    "VolumeBackup": lambda s: s.backup("next", "data"),
    "VolumeRestore": lambda s: s.restore("next", "full", volumeId="data"),
}


@pytest.mark.parametrize("kind", STARTS)
def test_held_mover_waits_for_its_queue(simulation: Simulation, kind: str) -> None:
    queue = simulation.cluster
    assert isinstance(queue, QueuedCluster)
    STARTS[kind](simulation)
    simulation.until(kind, "next", "MoverSuspended")
    writes = len(simulation.faults.log)
    end = simulation.now.timestamp() + 3600
    while simulation.now.timestamp() < end:
        simulation.step()
    assert simulation.reason(kind, "next") == "MoverSuspended", "no deadline of ours ends the wait of a queue"
    assert queue.fights <= 1, "a Job without a label shows only by its suspension that it is held"
    assert len(simulation.faults.log) - writes <= 2
    assert ("MoverSuspended", "Normal") in {(e["reason"], e["type"]) for e in simulation.objects.all("Event")}
    queue.admits = True
    simulation.settle()
    assert simulation.phase(kind, "next") == "available"


def test_held_movers_take_no_slots(simulation: Simulation) -> None:
    names = [f"held-{number}" for number in range(4)]
    for name in names:
        simulation.claim(f"of-{name}", name)
        simulation.backup(name, f"of-{name}")
    for name in names:
        simulation.until("VolumeBackup", name, "MoverSuspended")


def test_held_mover_can_be_cancelled(simulation: Simulation) -> None:
    simulation.restore("next", "full", volumeId="data")
    simulation.until("VolumeRestore", "next", "MoverSuspended")
    simulation.delete("VolumeRestore", "next")
    simulation.settle()
    assert (simulation.phase("VolumeRestore", "next"), simulation.content("data")) == ("gone", "second")
    assert not simulation.objects.all("Job")


def wait_beyond_the_deadline(simulation: Simulation) -> None:
    """Let more than the 15 minutes pass that a mover has to start."""
    end = simulation.now.timestamp() + 1000
    while simulation.now.timestamp() < end:
        simulation.step()


@pytest.mark.parametrize("next_wait", ["", "no node"])
def test_gated_pod_waits_for_its_queue_and_then_has_the_full_time(next_wait: str) -> None:
    """Kueue holds pods back with scheduling gates where it does not integrate with Jobs."""
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.cluster.gates = True
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverSuspended: The mover pod has scheduling gates")
        wait_beyond_the_deadline(simulation)
        assert simulation.reason("VolumeBackup", "full") == "MoverSuspended", "no deadline of ours ends the wait"
        simulation.cluster.gates, simulation.cluster.no_node = False, next_wait
        if next_wait:
            simulation.until("VolumeBackup", "full", "MoverUnschedulable")
            simulation.cluster.no_node = ""
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"


def test_gated_pods_take_no_slots() -> None:
    names = [f"held-{number}" for number in range(4)]
    with Simulation() as simulation:
        simulation.cluster.gates = True
        for name in names:
            simulation.claim(f"of-{name}", name)
            simulation.backup(name, f"of-{name}")
        for name in names:
            simulation.until("VolumeBackup", name, "MoverSuspended")
