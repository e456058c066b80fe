"""A deleted VolumeBackup stays until its children are removed, and reports slow removals."""

from __future__ import annotations

import pytest

from cinderblock.api import labels
from tests.support.simulation.simulation import Simulation

HELD = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
"""The finalizer of a snapshot controller, which it removes after the driver has deleted the snapshot."""
MOMENTS = {"VolumeSnapshot": "SnapshotNotReady", "PersistentVolumeClaim": "MoverRunning", "Job": "MoverRunning"}


def hold(simulation: Simulation, kind: str) -> str:
    """Add a foreign finalizer to the child of this kind. Return its name."""
    backup = simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", MOMENTS[kind])
    child = simulation.get(kind, labels.child_name(backup["metadata"]["uid"]))
    finalizers = [*child["metadata"].get("finalizers", ()), HELD]
    simulation.objects.update(child, metadata=child["metadata"] | {"finalizers": finalizers})
    return str(child["metadata"]["name"])


@pytest.mark.parametrize("kind", MOMENTS)
def test_deletion_names_the_remaining_child_and_waits(simulation: Simulation, kind: str) -> None:
    child = hold(simulation, kind)
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", f"ChildrenRemain: The cluster is still removing {kind} {child}")
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    simulation.objects.drop_finalizer(simulation.get(kind, child), HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.stored() == []


def test_stuck_child_leads_to_error_deleting_with_advice(simulation: Simulation) -> None:
    child = hold(simulation, "VolumeSnapshot")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error_deleting"
    message = simulation.get("VolumeBackup", "full")["status"]["conditions"][0]["message"]
    assert "remove the finalizer" in message
    assert ("ChildrenRemain", 1) in simulation.events()
    simulation.objects.drop_finalizer(simulation.get("VolumeSnapshot", child), HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"


def test_stuck_snapshot_does_not_delay_the_available_phase(simulation: Simulation) -> None:
    hold(simulation, "VolumeSnapshot")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", "ChildrenRemain")
    assert simulation.stored() != [], "the data stays as long as anything of ours may still touch it"
