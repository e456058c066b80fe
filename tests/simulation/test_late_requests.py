"""A request of an operator that does not lead any more arrives when another one has finished the work long ago."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A volume, and a full backup of it."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        yield running


def _sent(simulation: Simulation) -> list[Object]:
    """What is sent to create Jobs, from now on."""
    sent: list[Object] = []
    create = simulation.objects.create

    def remembering(kind: str, body: Object) -> Object | None:
        if kind == "Job":
            sent.append(copy.deepcopy(body))
        return create(kind, body)

    simulation.objects.create = remembering  # type: ignore[method-assign]
    return sent


def _arrives(simulation: Simulation, late: Object) -> None:
    """The request arrives, and the cluster is faster than the operator that leads now."""
    simulation.objects.create("Job", late)
    for _ in range(20):
        moves = [move for move in simulation.cluster.moves() if not move.is_bad]
        if not moves:
            break
        simulation.move(moves[0])
    simulation.settle()


def _pods_of(simulation: Simulation, body: Object) -> list[str]:
    return [line for line in simulation.history if f"{body['metadata']['name']} starts a pod" in line]


def test_a_job_that_is_created_after_its_restore_has_ended_writes_nothing_and_goes(simulation: Simulation) -> None:
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


def test_a_job_that_is_created_after_its_backup_has_ended_copies_nothing_and_goes(simulation: Simulation) -> None:
    sent = _sent(simulation)
    simulation.backup("second", "data")
    simulation.settle()
    stored = simulation.stored()
    [late] = sent
    _arrives(simulation, late)
    assert not simulation.exists("Job", late["metadata"]["name"])
    assert simulation.stored() == stored


def test_a_job_for_a_volume_that_is_mounted_itself_starts_no_second_mover_when_it_comes_late() -> None:
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
def test_a_job_whose_backup_is_gone_stores_nothing_and_goes(simulation: Simulation, is_made_anew: bool) -> None:
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


def test_a_mover_whose_backup_was_torn_away_by_force_is_stopped(simulation: Simulation) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "MoverRunning")
    backup = simulation.get("VolumeBackup", "second")
    simulation.objects.update(backup, metadata=backup["metadata"] | {"finalizers": []})
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    assert not simulation.objects.all("Job")


class LateClaim:
    """The request for the restored claim is on its way, and arrives when it is told to."""

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
        """It arrives now; others pass from now on."""
        simulation.objects.create = self._create  # type: ignore[method-assign]
        assert simulation.objects.create("PersistentVolumeClaim", self.body)
        simulation.settle()


def _no_claim_and_no_volume_is_left(simulation: Simulation) -> None:
    assert not simulation.exists("PersistentVolumeClaim", "new")
    assert [claim["metadata"]["name"] for claim in simulation.objects.all("PersistentVolumeClaim")] == ["data"]
    assert len(simulation.objects.all("PersistentVolume")) == 1


def test_a_claim_that_is_created_after_its_restore_was_deleted_goes(simulation: Simulation) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "creating claim new")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)


def test_a_claim_that_is_created_after_its_restore_has_failed_goes(simulation: Simulation) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "error_restoring"
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)
    assert simulation.exists("VolumeRestore", "again")


def test_a_claim_that_is_created_when_its_restore_is_available_and_the_user_has_deleted_the_volume_goes(
    simulation: Simulation,
) -> None:
    late = LateClaim(simulation)
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "creating claim new")
    late.arrives(simulation)
    assert (simulation.phase("VolumeRestore", "again"), simulation.content("new")) == ("available", "first")
    simulation.delete("PersistentVolumeClaim", "new")
    simulation.settle()
    late.arrives(simulation)
    _no_claim_and_no_volume_is_left(simulation)


def test_a_restored_claim_is_the_users_alone_and_stays_when_the_restore_goes(simulation: Simulation) -> None:
    simulation.restore("again", "full", name="new", labels={"app": "shop"}, annotations={"note": "mine"})
    simulation.settle()
    metadata = simulation.get("PersistentVolumeClaim", "new")["metadata"]
    assert (metadata["labels"], metadata["ownerReferences"]) == ({"app": "shop"}, [])
    assert set(metadata["annotations"]) == {"note", "cinderblock.io/volume-id"}
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_a_claim_whose_owner_the_user_has_made_the_restore_is_not_taken_for_one_of_ours(simulation: Simulation) -> None:
    restore = simulation.restore("again", "full", name="new")
    simulation.settle()
    claim = simulation.get("PersistentVolumeClaim", "new")
    owner = {"apiVersion": "v1", "kind": "VolumeRestore", "name": "again", "uid": restore["metadata"]["uid"]}
    simulation.objects.update(claim, metadata=claim["metadata"] | {"ownerReferences": [owner]})
    simulation.resync()
    simulation.settle()
    assert simulation.content("new") == "first"
