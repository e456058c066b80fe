"""A BackupStore whose spec.mover exceeds what the operator allows, as an upgrade may find it."""

from __future__ import annotations

from tests.support.simulation.simulation import Simulation

PRIVILEGED = {"securityContext": {"privileged": True}}


def set_mover(simulation: Simulation, mover: dict[str, object]) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"mover": mover})


def test_store_says_which_field_and_loses_nothing(stored: Simulation) -> None:
    set_mover(stored, PRIVILEGED)
    stored.settle()
    condition = stored.get("BackupStore", "default")["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "False", "MoverNotPermitted")
    assert "spec.mover.securityContext.privileged is true" in condition["message"]
    assert stored.phase("VolumeBackup", "full") == "available"
    assert stored.get("BackupStore", "default")["spec"]["mover"] == PRIVILEGED


def test_new_operations_fail_and_deletions_work(stored: Simulation) -> None:
    set_mover(stored, PRIVILEGED)
    stored.backup("next", "data")
    stored.restore("back", "full", name="new")
    stored.settle()
    assert (stored.phase("VolumeBackup", "next"), stored.reason("VolumeBackup", "next")) == (
        "error",
        "MoverNotPermitted",
    )
    assert stored.reason("VolumeRestore", "back") == "MoverNotPermitted"
    assert not stored.exists("PersistentVolumeClaim", "new")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.stored() == []


def test_permitted_store_works_again(stored: Simulation) -> None:
    set_mover(stored, PRIVILEGED)
    stored.settle()
    set_mover(stored, {})
    stored.restore("back", "full", name="new")
    stored.settle()
    assert stored.reason("BackupStore", "default") == "Answers"
    assert stored.content("new") == "first"
