"""The mover of a lost node never ends: the operator reports that, and its volume stays locked."""

from __future__ import annotations

import pytest

from cinderblock.api import labels
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation

pytestmark = pytest.mark.usefixtures("backed_up")

HELD = "example.org/held"
"""The finalizer that represents the missing confirmation of a lost kubelet."""


def lose_node(simulation: Simulation) -> Object:
    """Lose the node of the only mover. Return the pod."""
    (pod,) = simulation.objects.all("Pod")
    metadata = pod["metadata"] | {"finalizers": [HELD]}
    simulation.objects.update(
        pod, metadata=metadata, spec=pod["spec"] | {"nodeName": "node-7"}, status={"phase": "Unknown"}
    )
    return pod


def condition(simulation: Simulation, kind: str, name: str) -> str:
    shown = simulation.get(kind, name)["status"]["conditions"]
    assert [item["type"] for item in shown] == ["Ready", "Stalled"]
    return f"{shown[1]['reason']}: {shown[1]['message']}"


def test_deleted_backup_names_the_lost_node_and_waits(simulation: Simulation) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "MoverRunning")
    pod = lose_node(simulation)
    simulation.delete("VolumeBackup", "second")
    simulation.until("VolumeBackup", "second", "StoppingMover: The mover is being stopped (until ")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "error_deleting"
    text = condition(simulation, "VolumeBackup", "second")
    assert f"StoppingMover: Cannot stop the mover: Pod {pod['metadata']['name']} on node node-7" in text
    assert "node.kubernetes.io/out-of-service" in text
    assert ("StoppingMover", 1) in simulation.events()
    simulation.objects.drop_finalizer(pod, HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "gone"
    assert not [key for key in simulation.stored() if "second" in key]


def test_deleted_restore_locks_its_volume_until_the_pod_ends(
    simulation: Simulation,
) -> None:
    simulation.restore("again", "full", volumeId="data")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    pod = lose_node(simulation)
    simulation.delete("VolumeRestore", "again")
    simulation.until("VolumeRestore", "again", "Cancelling: The restore is being stopped (until ")
    simulation.restore("other", "full", volumeId="data")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "error_restoring"
    assert "on node node-7 does not end. Nothing else uses" in condition(simulation, "VolumeRestore", "again")
    assert simulation.events().count(("Cancelling", 1)) == 1
    assert simulation.reason("VolumeRestore", "other") == "VolumeBusy"
    assert simulation.objects.all("Pod") == [pod], "a second writer"
    simulation.objects.drop_finalizer(pod, HELD)
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"
    assert simulation.phase("VolumeRestore", "other") == "available"


def test_successful_restore_stays_available_during_its_deletion(simulation: Simulation) -> None:
    simulation.restore("again", "full", volumeId="data")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    (job,) = simulation.objects.all("Job")
    metadata = job["metadata"] | {"finalizers": [*job["metadata"]["finalizers"], HELD]}
    simulation.objects.update(job, metadata=metadata)
    simulation.until("VolumeRestore", "again", "Restored")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "available"
    assert "The cluster is still removing Job" in condition(simulation, "VolumeRestore", "again")
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.objects.drop_finalizer(job, HELD)
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"


@pytest.mark.parametrize("snapshots", [True, False])
def test_volume_stays_locked_by_the_pod_of_a_removed_restore(simulation: Simulation, snapshots: bool) -> None:
    if not snapshots:
        simulation.objects.delete(simulation.get("VolumeSnapshotClass", "snap"))
    simulation.restore("again", "full", volumeId="data")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    pod = lose_node(simulation)
    simulation.delete("VolumeRestore", "again")
    simulation.objects.drop_finalizer(simulation.get("VolumeRestore", "again"), labels.RESTORE_FINALIZER)
    assert simulation.phase("VolumeRestore", "again") == "gone"
    simulation.attach("data", "node-7")
    simulation.backup("next", "data")
    simulation.restore("other", "full", volumeId="data")
    simulation.settle()
    words = f"Pod {pod['metadata']['name']} of another restore may still write to volume data."
    assert words in simulation.get("VolumeBackup", "next")["status"]["conditions"][0]["message"]
    assert simulation.reason("VolumeRestore", "other") == "VolumeBusy"
    simulation.objects.drop_finalizer(pod, HELD)
    simulation.detach("data")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "next"), simulation.phase("VolumeRestore", "other")) == (
        "available",
        "available",
    )
