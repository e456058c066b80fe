"""A mover whose node is lost never says that it has ended: that is told, and nothing else touches its volume."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api import labels
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation

HELD = "example.org/held"
"""Stands for what keeps a pod of a lost node: the kubelet that never confirms its end."""


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A volume, and a full backup of it."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        yield running


def lose_node(simulation: Simulation) -> Object:
    """The node of the only mover is lost. Returns the pod."""
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


def test_a_deleted_backup_says_which_node_and_what_to_do_and_goes_when_the_pod_has(simulation: Simulation) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "MoverRunning")
    pod = lose_node(simulation)
    simulation.delete("VolumeBackup", "second")
    simulation.until("VolumeBackup", "second", "StoppingMover: The mover is being stopped (until ")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "error_deleting"
    said = condition(simulation, "VolumeBackup", "second")
    assert (
        f"StoppingMover: The mover was told to stop and has not: Pod {pod['metadata']['name']} on node node-7" in said
    )
    assert "node.kubernetes.io/out-of-service" in said
    assert ("StoppingMover", 1) in simulation.events()
    simulation.objects.drop_finalizer(pod, HELD)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "gone"
    assert not [key for key in simulation.stored() if "second" in key]


def test_a_deleted_restore_says_so_too_and_nobody_else_uses_its_volume_before_the_pod_has_gone(
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
    assert "on node node-7. Nothing else touches its volume" in condition(simulation, "VolumeRestore", "again")
    assert simulation.events().count(("Cancelling", 1)) == 1
    assert simulation.reason("VolumeRestore", "other") == "VolumeBusy"
    assert simulation.objects.all("Pod") == [pod], "a second writer"
    simulation.objects.drop_finalizer(pod, HELD)
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"
    assert simulation.phase("VolumeRestore", "other") == "available"


def test_a_restore_that_was_whole_stays_so_while_its_deletion_hangs(simulation: Simulation) -> None:
    simulation.restore("again", "full", volumeId="data")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    (job,) = simulation.objects.all("Job")
    metadata = job["metadata"] | {"finalizers": [*job["metadata"]["finalizers"], HELD]}
    simulation.objects.update(job, metadata=metadata)
    simulation.until("VolumeRestore", "again", "Restored")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "available"
    assert "Still being removed by the cluster: Job" in condition(simulation, "VolumeRestore", "again")
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.objects.drop_finalizer(job, HELD)
    simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "gone"


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_volume_that_a_restore_may_still_write_to_is_left_in_peace_although_nobody_tells_of_it_any_more(
    simulation: Simulation, snapshots: bool
) -> None:
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
