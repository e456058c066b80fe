"""A deleted VolumeBackup stays until its children are really gone, and says so when that takes its time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api import labels
from tests.support.simulation.simulation import Simulation

HELD = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
"""The finalizer by which a snapshot controller keeps a VolumeSnapshot until the driver has removed it."""
MOMENTS = {"VolumeSnapshot": "SnapshotNotReady", "PersistentVolumeClaim": "MoverRunning", "Job": "MoverRunning"}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        yield simulation


def hold(simulation: Simulation, kind: str) -> str:
    """Have somebody else's finalizer keep the child of this kind. Returns its name."""
    backup = simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", MOMENTS[kind])
    child = simulation.get(kind, labels.child_name(backup["metadata"]["uid"]))
    finalizers = [*child["metadata"].get("finalizers", ()), HELD]
    simulation.objects.update(child, metadata=child["metadata"] | {"finalizers": finalizers})
    return str(child["metadata"]["name"])


@pytest.mark.parametrize("kind", MOMENTS)
def test_the_backup_names_what_is_left_and_goes_by_itself_when_that_has_gone(simulation: Simulation, kind: str) -> None:
    child = hold(simulation, kind)
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", f"ChildrenRemain: Still being removed by the cluster: {kind} {child}")
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    simulation.objects.drop_finalizer(simulation.get(kind, child), HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.stored() == []


def test_what_never_goes_is_an_error_that_says_what_to_do_and_still_ends_by_itself(simulation: Simulation) -> None:
    child = hold(simulation, "VolumeSnapshot")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error_deleting"
    said = simulation.get("VolumeBackup", "full")["status"]["conditions"][0]["message"]
    assert "take its finalizers off" in said
    assert ("ChildrenRemain", 1) in simulation.events()
    simulation.objects.drop_finalizer(simulation.get("VolumeSnapshot", child), HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"


def test_a_snapshot_that_hangs_does_not_keep_a_finished_backup_from_being_available(simulation: Simulation) -> None:
    hold(simulation, "VolumeSnapshot")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", "ChildrenRemain")
    assert simulation.stored() != [], "the data stays as long as anything of ours may still touch it"
