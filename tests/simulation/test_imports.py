"""Adopting a backup that is in the store already: nothing is copied, and nothing is taken from anybody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api import layout
from tests.support.simulation.simulation import Simulation, summary
from tests.support.store.faults import Crash


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        yield simulation


@pytest.fixture
def left(simulation: Simulation) -> str:
    """Id of a backup that is in the store, and whose VolumeBackup is gone."""
    backup_id = str(simulation.backup("full", "data", deletionPolicy="Retain")["metadata"]["uid"])
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    return backup_id


def said(simulation: Simulation, name: str) -> tuple[str, str]:
    return simulation.phase("VolumeBackup", name), simulation.reason("VolumeBackup", name)


def test_an_adopted_backup_is_available_under_its_old_id(simulation: Simulation, left: str) -> None:
    adopted = simulation.adopt("again", left, name="rescued")
    simulation.settle()
    status = simulation.get("VolumeBackup", "again")["status"]
    assert (status["phase"], status["id"], status["importedBy"]) == ("available", left, adopted["metadata"]["uid"])
    assert (status["volumeName"], status["name"], status["manifestKey"]) == (
        "data",
        "rescued",
        layout.manifest_key("", status["volumeId"], left),
    )
    assert summary(simulation)["children"] == []


@pytest.mark.parametrize("by", ["id", "name", "uid"])
def test_an_adopted_backup_is_restored_by(simulation: Simulation, left: str, by: str) -> None:
    uid = simulation.adopt("again", left)["metadata"]["uid"]
    simulation.write("data", "second")
    simulation.settle()
    simulation.restore("back", {"id": left, "name": "again", "uid": uid}[by], name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
    assert simulation.get("VolumeRestore", "back")["status"]["backupId"] == left


def test_an_incremental_backup_builds_on_an_adopted_one_of_its_volume(simulation: Simulation, left: str) -> None:
    simulation.adopt("again", left)
    simulation.settle()
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "child")["status"]["parentId"] == left
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "gone"
    assert any(left in key for key in simulation.stored())


def test_deleting_an_adopted_backup_leaves_the_data_unless_asked(simulation: Simulation, left: str) -> None:
    before = simulation.stored()
    simulation.adopt("again", left)
    simulation.settle()
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "again"), simulation.stored()) == ("gone", before)


def test_data_of_an_adopted_backup_is_deleted_when_that_is_asked_for(simulation: Simulation, left: str) -> None:
    simulation.adopt("again", left, deletionPolicy="Delete")
    simulation.settle()
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "again"), simulation.stored()) == ("gone", [])


def test_what_can_be_restored_already_is_not_adopted_a_second_time(simulation: Simulation) -> None:
    backup_id = simulation.backup("full", "data")["metadata"]["uid"]
    simulation.settle()
    simulation.adopt("again", backup_id, deletionPolicy="Delete")
    simulation.settle()
    assert said(simulation, "again") == ("error", "IdTaken")
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert any(backup_id in key for key in simulation.stored())


def test_of_two_that_adopt_one_backup_only_the_older_gets_it(simulation: Simulation, left: str) -> None:
    simulation.adopt("one", left)
    simulation.advance(1)
    simulation.adopt("two", left)
    simulation.settle()
    assert (said(simulation, "one")[0], said(simulation, "two")) == ("available", ("error", "IdTaken"))


def test_a_backup_that_is_not_in_the_store_is_an_error(simulation: Simulation) -> None:
    simulation.adopt("again", "0f8fad5b-d9cb-469f-a165-70867728950e")
    simulation.settle()
    assert said(simulation, "again") == ("error", "ManifestMissing")
    assert simulation.get("VolumeBackup", "again")["metadata"].get("finalizers", []) == []


@pytest.mark.parametrize(
    "key", ["../other/{id}.manifest", "elsewhere/backups/v/{id}.manifest", "backups/v/w/{id}.manifest"]
)
def test_a_key_beside_the_stores_prefix_is_refused(simulation: Simulation, left: str, key: str) -> None:
    simulation.adopt("again", left, manifest=key.format(id=left))
    simulation.settle()
    assert said(simulation, "again") == ("error", "ManifestMisplaced")


def test_a_manifest_that_names_another_backup_is_refused(simulation: Simulation, left: str) -> None:
    key = next(key for key in simulation.stored("backups/") if left in key)
    disguise = "0f8fad5b-d9cb-469f-a165-70867728950e"
    simulation.cluster.store.put(key.replace(left, disguise), simulation.cluster.store.get(key))
    simulation.adopt("again", disguise, deletionPolicy="Delete")
    simulation.settle()
    assert said(simulation, "again") == ("error", "ForeignManifest")
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert key in simulation.stored()


def test_an_adopted_backup_whose_status_is_lost_is_adopted_again(simulation: Simulation, left: str) -> None:
    simulation.adopt("again", left)
    simulation.settle()
    before = summary(simulation)
    pins = simulation.get("VolumeBackup", "again")["status"]["pins"]
    simulation.erase_status("VolumeBackup", "again")
    simulation.resync()
    simulation.settle()
    after = summary(simulation)
    assert after.pop("phases")["again"] == ("available", "Available,StatusLost", "None")
    assert before.pop("phases")["again"] == ("available", "Available", "None")
    assert after == before
    assert simulation.get("VolumeBackup", "again")["status"]["pins"] == pins


def test_a_copied_status_does_not_make_a_backup_adopted(simulation: Simulation) -> None:
    foreign = {"id": "0f8fad5b-d9cb-469f-a165-70867728950e", "importedBy": "somebody", "phase": "available"}
    simulation.objects.update(simulation.adopt("again", foreign["id"]), status=foreign)
    simulation.settle()
    assert said(simulation, "again") == ("error", "ManifestMissing")


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
@pytest.mark.parametrize("done", [False, True])
def test_the_operator_may_die_at_any_write_of_an_adoption_and_its_deletion(policy: str, done: bool) -> None:
    reference, writes = adopted_and_deleted(policy)
    assert writes > 2
    for at in range(writes):
        assert adopted_and_deleted(policy, at, done=done)[0] == reference, f"write {at}"


def adopted_and_deleted(policy: str, at: int | None = None, *, done: bool = False) -> tuple[object, int]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        backup_id = simulation.backup("full", "data", deletionPolicy="Retain")["metadata"]["uid"]
        simulation.settle()
        simulation.delete("VolumeBackup", "full")
        simulation.settle()
        before = simulation.faults.writes
        if at is not None:
            simulation.faults.plan(at, Crash("scripted"), done=done)
        simulation.adopt("again", backup_id, deletionPolicy=policy)
        simulation.settle()
        middle = simulation.phase("VolumeBackup", "again")
        simulation.delete("VolumeBackup", "again")
        simulation.settle()
        end = (middle, summary(simulation) | {"stored": len(simulation.stored())})
        return end, simulation.faults.writes - before


def test_data_is_imported_under_a_second_id_while_the_first_is_there(simulation: Simulation) -> None:
    first = str(simulation.backup("full", "data")["metadata"]["uid"])
    simulation.settle()
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    simulation.adopt("second", "another-id", manifest=key, deletionPolicy="Delete")
    simulation.settle()
    assert said(simulation, "second")[0] == "available"
    assert simulation.get("VolumeBackup", "second")["status"]["id"] == "another-id"
    simulation.restore("back", "another-id", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert said(simulation, "full") == ("deleting", "HasDependentBackups")
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "second"), simulation.phase("VolumeBackup", "full")) == ("gone", "gone")
    assert not [key for key in simulation.stored() if first in key]


def test_a_second_name_takes_nothing_with_it_and_is_nobodys_parent(simulation: Simulation) -> None:
    first = str(simulation.backup("full", "data")["metadata"]["uid"])
    simulation.settle()
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    simulation.adopt("second", "another-id", manifest=key, deletionPolicy="Delete")
    simulation.settle()
    simulation.backup("more", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "more")["status"]["parentId"] == first
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
