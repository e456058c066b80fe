"""What a start and a resync look at: everything but what has ended and is as it should be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.controller.request import ObjectKey
from tests.support.simulation.simulation import Simulation

FULL = ObjectKey("VolumeBackup", "shop", "full")
AGAIN = ObjectKey("VolumeRestore", "shop", "again")


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A volume with a backup, an incremental one, and a restore, all of which have ended."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        running.backup("child", "data", incremental=True)
        running.restore("again", "full", name="new")
        running.settle()
        yield running


def test_what_has_ended_is_left_out_and_stores_are_not(simulation: Simulation) -> None:
    assert simulation.pending() == {ObjectKey("BackupStore", "shop", "default")}


def test_new_ones_and_those_that_are_being_deleted_are_looked_at(simulation: Simulation) -> None:
    simulation.backup("young", "data")
    simulation.delete("VolumeBackup", "full")
    assert {ObjectKey("VolumeBackup", "shop", "young"), FULL} <= simulation.pending()


@pytest.mark.parametrize("kind", ["Job", "PersistentVolumeClaim", "VolumeSnapshot"])
def test_one_that_has_left_something_behind_is_looked_at(simulation: Simulation, kind: str) -> None:
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    labels = {"app.kubernetes.io/managed-by": "cinderblock", "cinderblock.io/owner-uid": uid}
    metadata = {"name": f"cinderblock-{uid}", "namespace": "shop", "labels": labels}
    simulation.make(kind, {"metadata": metadata, "spec": {"suspend": True, "resources": {}}})
    assert FULL in simulation.pending()


def test_one_whose_child_has_gone_unnoticed_is_looked_at(simulation: Simulation) -> None:
    child = simulation.get("VolumeBackup", "child")
    simulation.objects.update(child, metadata=child["metadata"] | {"finalizers": []})
    simulation.objects.delete(child)
    assert FULL in simulation.pending()


def test_one_whose_restore_has_failed_unnoticed_is_looked_at(simulation: Simulation) -> None:
    again = simulation.get("VolumeRestore", "again")
    simulation.objects.update(again, status=again["status"] | {"phase": "error_restoring", "failReason": "broken"})
    assert FULL in simulation.pending()


def test_one_that_was_changed_is_looked_at(simulation: Simulation) -> None:
    full = simulation.get("VolumeBackup", "full")
    simulation.objects.update(full, spec=full["spec"] | {"name": "Monday"})
    assert FULL in simulation.pending()


@pytest.mark.parametrize("key", [FULL, AGAIN])
def test_one_whose_status_was_lost_is_looked_at(simulation: Simulation, key: ObjectKey) -> None:
    simulation.erase_status(key.kind, key.name)
    assert key in simulation.pending()


def test_one_that_does_not_parse_is_looked_at(simulation: Simulation) -> None:
    full = simulation.get("VolumeBackup", "full")
    simulation.objects.update(full, status=full["status"] | {"size": "large"})
    assert FULL in simulation.pending()


def test_one_whose_volume_has_a_backup_without_its_parent_is_believed(simulation: Simulation) -> None:
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
