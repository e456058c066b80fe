"""A start and a resync reconcile everything except objects that have ended and are in a steady state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.controller.request import ObjectKey
from tests.support.simulation.simulation import Simulation

FULL = ObjectKey("VolumeBackup", "shop", "full")
RESTORE = ObjectKey("VolumeRestore", "shop", "again")


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Run a simulation with a full backup, an incremental one and a restore, all finished."""
    with Simulation() as simulated:
        simulated.claim("data", "first")
        simulated.backup("full", "data")
        simulated.settle()
        simulated.backup("child", "data", incremental=True)
        simulated.restore("again", "full", name="new")
        simulated.settle()
        yield simulated


def test_finished_objects_are_left_out_and_stores_are_not(simulation: Simulation) -> None:
    assert simulation.pending() == {ObjectKey("BackupStore", "shop", "default")}


def test_new_objects_and_objects_in_deletion_are_pending(simulation: Simulation) -> None:
    simulation.backup("young", "data")
    simulation.delete("VolumeBackup", "full")
    assert {ObjectKey("VolumeBackup", "shop", "young"), FULL} <= simulation.pending()


@pytest.mark.parametrize("kind", ["Job", "PersistentVolumeClaim", "VolumeSnapshot"])
def test_object_with_a_remaining_child_is_pending(simulation: Simulation, kind: str) -> None:
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    labels = {"app.kubernetes.io/managed-by": "cinderblock", "cinderblock.io/owner-uid": uid}
    metadata = {"name": f"cinderblock-{uid}", "namespace": "shop", "labels": labels}
    simulation.make(kind, {"metadata": metadata, "spec": {"suspend": True, "resources": {}}})
    assert FULL in simulation.pending()


def test_backup_whose_dependent_vanished_unnoticed_is_pending(simulation: Simulation) -> None:
    child = simulation.get("VolumeBackup", "child")
    simulation.objects.update(child, metadata=child["metadata"] | {"finalizers": []})
    simulation.objects.delete(child)
    assert FULL in simulation.pending()


def test_backup_whose_restore_failed_unnoticed_is_pending(simulation: Simulation) -> None:
    again = simulation.get("VolumeRestore", "again")
    simulation.objects.update(again, status=again["status"] | {"phase": "error_restoring", "failReason": "broken"})
    assert FULL in simulation.pending()


def test_changed_object_is_pending(simulation: Simulation) -> None:
    full = simulation.get("VolumeBackup", "full")
    simulation.objects.update(full, spec=full["spec"] | {"name": "Monday"})
    assert FULL in simulation.pending()


@pytest.mark.parametrize("key", [FULL, RESTORE])
def test_object_with_a_lost_status_is_pending(simulation: Simulation, key: ObjectKey) -> None:
    simulation.erase_status(key.kind, key.name)
    assert key in simulation.pending()


def test_object_that_does_not_parse_is_pending(simulation: Simulation) -> None:
    full = simulation.get("VolumeBackup", "full")
    simulation.objects.update(full, status=full["status"] | {"size": "large"})
    assert FULL in simulation.pending()


def test_recorded_dependents_are_trusted_without_reading_the_store(simulation: Simulation) -> None:
    simulation.backup("grandchild", "data", incremental=True)
    simulation.settle()
    simulation.remove_by_force("child")
    simulation.settle()
    assert simulation.get("VolumeBackup", "full")["status"]["hasDependentBackups"]
    simulation.store.asked.clear()
    assert simulation.pending() == {ObjectKey("BackupStore", "shop", "default")}
    assert not simulation.store.asked
    simulation.remove_by_force("grandchild")
    assert FULL in simulation.pending()


def test_missing_right_to_restore_sources_keeps_nothing_else_waiting(simulation: Simulation) -> None:
    simulation.ask("copy", "bootstrap")
    asking = ObjectKey("PersistentVolumeClaim", "shop", "copy")
    assert asking in simulation.pending()
    simulation.backup("young", "data")

    simulation.api.unreadable_kinds.add("RestoreSource")

    young = ObjectKey("VolumeBackup", "shop", "young")
    assert simulation.pending() & {asking, young} == {young}
