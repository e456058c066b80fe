"""Imports of stored backups copy nothing and take nothing from other backups."""

from __future__ import annotations

import pytest

from cinderblock.api import layout
from tests.support.simulation.simulation import Simulation, summary
from tests.support.store.faults import Crash


@pytest.fixture
def left(simulation: Simulation) -> str:
    """Return the id of a stored backup without a VolumeBackup."""
    backup_id = str(simulation.backup("full", "data", deletionPolicy="Retain")["metadata"]["uid"])
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    return backup_id


def outcome(simulation: Simulation, name: str) -> tuple[str, str]:
    return simulation.phase("VolumeBackup", name), simulation.reason("VolumeBackup", name)


def test_imported_backup_is_available_under_its_old_id(simulation: Simulation, left: str) -> None:
    adopted = simulation.import_backup("again", left, name="rescued")
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
def test_imported_backup_can_be_restored(simulation: Simulation, left: str, by: str) -> None:
    uid = simulation.import_backup("again", left)["metadata"]["uid"]
    simulation.write("data", "second")
    simulation.settle()
    simulation.restore("back", {"id": left, "name": "again", "uid": uid}[by], name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
    assert simulation.get("VolumeRestore", "back")["status"]["backupId"] == left


def test_imported_backup_can_be_a_parent(simulation: Simulation, left: str) -> None:
    simulation.import_backup("again", left)
    simulation.settle()
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "child")["status"]["parentId"] == left
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "gone"
    assert any(left in key for key in simulation.stored())


def test_deleting_an_imported_backup_leaves_the_data(simulation: Simulation, left: str) -> None:
    before = simulation.stored()
    simulation.import_backup("again", left)
    simulation.settle()
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "again"), simulation.stored()) == ("gone", before)


def test_delete_policy_removes_the_data_of_an_import(simulation: Simulation, left: str) -> None:
    simulation.import_backup("again", left, deletionPolicy="Delete")
    simulation.settle()
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "again"), simulation.stored()) == ("gone", [])


def test_existing_backup_cannot_be_imported_again(simulation: Simulation) -> None:
    backup_id = simulation.backup("full", "data")["metadata"]["uid"]
    simulation.settle()
    simulation.import_backup("again", backup_id, deletionPolicy="Delete")
    simulation.settle()
    assert outcome(simulation, "again") == ("error", "IdTaken")
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert any(backup_id in key for key in simulation.stored())


def test_older_of_two_imports_gets_the_backup(simulation: Simulation, left: str) -> None:
    simulation.import_backup("one", left)
    simulation.advance(1)
    simulation.import_backup("two", left)
    simulation.settle()
    assert (outcome(simulation, "one")[0], outcome(simulation, "two")) == ("available", ("error", "IdTaken"))


def test_import_of_a_missing_backup_fails(simulation: Simulation) -> None:
    simulation.import_backup("again", "0f8fad5b-d9cb-469f-a165-70867728950e")
    simulation.settle()
    assert outcome(simulation, "again") == ("error", "ManifestMissing")
    assert simulation.get("VolumeBackup", "again")["metadata"].get("finalizers", []) == []


@pytest.mark.parametrize(
    "key", ["../other/{id}.manifest", "elsewhere/backups/v/{id}.manifest", "backups/v/w/{id}.manifest"]
)
def test_import_outside_the_prefix_fails(simulation: Simulation, left: str, key: str) -> None:
    simulation.import_backup("again", left, manifest=key.format(id=left))
    simulation.settle()
    assert outcome(simulation, "again") == ("error", "ManifestMisplaced")


def test_import_of_a_renamed_manifest_fails(simulation: Simulation, left: str) -> None:
    key = next(key for key in simulation.stored("backups/") if left in key)
    disguise = "0f8fad5b-d9cb-469f-a165-70867728950e"
    simulation.cluster.store.put(key.replace(left, disguise), simulation.cluster.store.get(key))
    simulation.import_backup("again", disguise, deletionPolicy="Delete")
    simulation.settle()
    assert outcome(simulation, "again") == ("error", "ForeignManifest")
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert key in simulation.stored()


def test_import_with_lost_status_is_repeated(simulation: Simulation, left: str) -> None:
    simulation.import_backup("again", left)
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


def test_copied_status_does_not_import_a_backup(simulation: Simulation) -> None:
    foreign = {"id": "0f8fad5b-d9cb-469f-a165-70867728950e", "importedBy": "somebody", "phase": "available"}
    simulation.objects.update(simulation.import_backup("again", foreign["id"]), status=foreign)
    simulation.settle()
    assert outcome(simulation, "again") == ("error", "ManifestMissing")


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
@pytest.mark.parametrize("done", [False, True])
def test_crashes_do_not_change_the_end_of_an_import(policy: str, done: bool) -> None:
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
        simulation.import_backup("again", backup_id, deletionPolicy=policy)
        simulation.settle()
        middle = simulation.phase("VolumeBackup", "again")
        simulation.delete("VolumeBackup", "again")
        simulation.settle()
        end = (middle, summary(simulation) | {"stored": len(simulation.stored())})
        return end, simulation.faults.writes - before


def test_backup_can_be_imported_under_a_second_id(simulation: Simulation) -> None:
    first = str(simulation.backup("full", "data")["metadata"]["uid"])
    simulation.settle()
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    simulation.import_backup("second", "another-id", manifest=key, deletionPolicy="Delete")
    simulation.settle()
    assert outcome(simulation, "second")[0] == "available"
    assert simulation.get("VolumeBackup", "second")["status"]["id"] == "another-id"
    simulation.restore("back", "another-id", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert outcome(simulation, "full") == ("deleting", "HasDependentBackups")
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "second"), simulation.phase("VolumeBackup", "full")) == ("gone", "gone")
    assert not [key for key in simulation.stored() if first in key]


def test_alias_deletes_no_data_and_is_not_a_parent(simulation: Simulation) -> None:
    first = str(simulation.backup("full", "data")["metadata"]["uid"])
    simulation.settle()
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    simulation.import_backup("second", "another-id", manifest=key, deletionPolicy="Delete")
    simulation.settle()
    simulation.backup("more", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "more")["status"]["parentId"] == first
    simulation.delete("VolumeBackup", "second")
    simulation.settle()
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
