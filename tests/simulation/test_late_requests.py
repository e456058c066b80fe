"""Late requests of a former leader, which arrive after another operator has finished the work."""

from __future__ import annotations

import copy

import pytest

from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation

pytestmark = pytest.mark.usefixtures("backed_up")


def _sent(simulation: Simulation) -> list[Object]:
    """Return the list of Jobs to which every created Job is added from now on."""
    sent: list[Object] = []
    create = simulation.objects.create

    def remembering(kind: str, body: Object) -> Object | None:
        if kind == "Job":
            sent.append(copy.deepcopy(body))
        return create(kind, body)

    simulation.objects.create = remembering  # type: ignore[method-assign]
    return sent


def _arrives(simulation: Simulation, late: Object) -> None:
    """Let the request arrive, and let the cluster act before the present leader."""
    simulation.objects.create("Job", late)
    for _ in range(20):
        moves = [move for move in simulation.cluster.moves() if not move.is_bad]
        if not moves:
            break
        simulation.move(moves[0])
    simulation.settle()


def _pods_of(simulation: Simulation, body: Object) -> list[str]:
    return [line for line in simulation.history if f"{body['metadata']['name']} starts a pod" in line]


def test_late_job_of_an_ended_restore_writes_nothing(simulation: Simulation) -> None:
    sent = _sent(simulation)
    simulation.restore("again", "full", volumeId="data")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "available"
    simulation.write("data", "written since")
    [late] = sent
    _arrives(simulation, late)
    assert simulation.content("data") == "written since"
    assert not simulation.exists("Job", late["metadata"]["name"])
    assert len(_pods_of(simulation, late)) == 1


def test_late_job_of_an_ended_backup_copies_nothing(simulation: Simulation) -> None:
    sent = _sent(simulation)
    simulation.backup("second", "data")
    simulation.settle()
    stored = simulation.stored()
    [late] = sent
    _arrives(simulation, late)
    assert not simulation.exists("Job", late["metadata"]["name"])
    assert simulation.stored() == stored


def test_late_job_on_the_volume_itself_starts_no_mover() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        sent = _sent(simulation)
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"
        [late] = sent
        _arrives(simulation, late)
        assert not simulation.exists("Job", late["metadata"]["name"])
        assert len(_pods_of(simulation, late)) == 1


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_late_job_of_a_deleted_backup_stores_nothing(simulation: Simulation, is_made_anew: bool) -> None:
    sent = _sent(simulation)
    simulation.backup("second", "data")
    simulation.settle()
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    if is_made_anew:
        simulation.backup("second", "data")
        simulation.settle()
    stored = simulation.stored()
    late = sent[0]
    _arrives(simulation, late)
    assert not simulation.exists("Job", late["metadata"]["name"])
    assert simulation.stored() == stored


def test_mover_of_a_backup_removed_by_force_is_stopped(simulation: Simulation) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "MoverRunning")
    backup = simulation.get("VolumeBackup", "second")
    simulation.objects.update(backup, metadata=backup["metadata"] | {"finalizers": []})
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    assert not simulation.objects.all("Job")


class LateClaim:
    """A delayed request that creates the restored claim."""

    def __init__(self, simulation: Simulation) -> None:
        self.body: Object = {}
        self._create = simulation.objects.create
        simulation.objects.create = self._hold  # type: ignore[method-assign]

    def _hold(self, kind: str, body: Object) -> Object | None:
        if kind != "PersistentVolumeClaim" or body["metadata"]["name"] != "new":
            return self._create(kind, body)
        self.body = copy.deepcopy(body)
        return None

    def arrives(self, simulation: Simulation) -> None:
        """Let the request arrive, and stop delaying requests."""
        simulation.objects.create = self._create  # type: ignore[method-assign]
        assert simulation.objects.create("PersistentVolumeClaim", self.body)
        simulation.settle()


def _no_claim_and_no_volume_is_left(simulation: Simulation) -> None:
    assert not simulation.exists("PersistentVolumeClaim", "new")
    assert [claim["metadata"]["name"] for claim in simulation.objects.all("PersistentVolumeClaim")] == ["data"]
    assert len(simulation.objects.all("PersistentVolume")) == 1


def test_late_claim_of_a_deleted_restore_is_removed(simulation: Simulation) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "creating PersistentVolumeClaim new")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)


def test_late_claim_of_a_failed_restore_is_removed(simulation: Simulation) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "error_restoring"
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)
    assert simulation.exists("VolumeRestore", "again")


def test_late_claim_of_a_deleted_volume_is_removed(
    simulation: Simulation,
) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "creating PersistentVolumeClaim new")
    late.arrives(simulation)
    assert (simulation.phase("VolumeRestore", "again"), simulation.content("new")) == ("available", "first")
    simulation.delete("PersistentVolumeClaim", "new")
    simulation.settle()
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)


def test_restored_claim_outlives_its_restore(simulation: Simulation) -> None:
    simulation.restore("again", "full", name="new", labels={"app": "shop"}, annotations={"note": "mine"})
    simulation.settle()
    metadata = simulation.get("PersistentVolumeClaim", "new")["metadata"]
    assert (metadata["labels"], metadata["ownerReferences"]) == ({"app": "shop"}, [])
    assert set(metadata["annotations"]) == {"note", "cinderblock.io/volume-id"}
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_claim_owned_by_the_restore_is_not_treated_as_child(simulation: Simulation) -> None:
    restore = simulation.restore("again", "full", name="new")
    simulation.settle()
    claim = simulation.get("PersistentVolumeClaim", "new")
    owner = {"apiVersion": "v1", "kind": "VolumeRestore", "name": "again", "uid": restore["metadata"]["uid"]}
    simulation.objects.update(claim, metadata=claim["metadata"] | {"ownerReferences": [owner]})
    simulation.resync()
    simulation.settle()
    assert simulation.content("new") == "first"
