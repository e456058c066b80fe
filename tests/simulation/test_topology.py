"""Volumes with topology constraints: the operator reports the messages of the cluster, and has a deadline.

Cinder creates a volume in the requested availability zone or fails. In Kubernetes, a scheduler and a provisioner
decide later, and report on the pod and on the claim (core/v1 PodScheduled; Events of external-provisioner).
"""

from __future__ import annotations

import pytest

from tests.support.simulation.cluster import LATE
from tests.support.simulation.simulation import Simulation, summary

NO_ZONE = "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind."
OTHER_ZONE = "0/3 nodes are available: 3 node(s) had volume node affinity conflict."
NOT_HERE = 'failed to provision volume with StorageClass "late": snapshot is only accessible in zone b'


def ready_text(simulation: Simulation, kind: str, name: str) -> str:
    condition = simulation.get(kind, name)["status"]["conditions"][0]
    return f"{condition['reason']}: {condition['message']}"


def test_mover_is_the_first_consumer_of_a_new_volume(stored: Simulation) -> None:
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.settle()
    assert stored.content("new") == "first"


def test_unschedulable_restore_continues_once_a_node_exists(stored: Simulation) -> None:
    stored.cluster.no_node = NO_ZONE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.until("VolumeRestore", "back", f"MoverUnschedulable: Cannot schedule the mover pod: {NO_ZONE} (until 2026-")
    assert stored.phase("VolumeRestore", "back") == "restoring"
    stored.cluster.no_node = ""
    stored.settle()
    assert (stored.phase("VolumeRestore", "back"), stored.content("new")) == ("available", "first")


def test_unschedulable_restore_fails_without_leftovers(stored: Simulation) -> None:
    stored.cluster.no_node = NO_ZONE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.settle()
    assert stored.phase("VolumeRestore", "back") == "error_restoring"
    assert ready_text(stored, "VolumeRestore", "back") == (
        f"MoverUnschedulable: Cannot schedule the mover pod: {NO_ZONE} (waited 900 s)"
    )
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert (summary(stored)["children"], len(summary(stored)["volumes"])) == ([], 1)
    stored.cluster.no_node = ""
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"


def test_provisioner_error_is_reported_by_the_restore(stored: Simulation) -> None:
    stored.cluster.no_volume = NOT_HERE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.until(
        "VolumeRestore", "back", f"MoverStarting: The mover pod is starting. PersistentVolumeClaim: {NOT_HERE}"
    )
    stored.settle()
    assert stored.phase("VolumeRestore", "back") == "error_restoring"
    assert NOT_HERE in stored.get("VolumeRestore", "back")["status"]["failReason"]
    assert (summary(stored)["children"], list(summary(stored)["claims"])) == ([], ["data"])


@pytest.mark.parametrize(("no_node", "no_volume"), [(OTHER_ZONE, ""), ("", NOT_HERE)])
def test_backup_with_snapshot_in_another_zone_fails(stored: Simulation, no_node: str, no_volume: str) -> None:
    stored.cluster.no_node, stored.cluster.no_volume = no_node, no_volume
    stored.backup("next", "data")
    stored.until("VolumeBackup", "next", no_volume or no_node)
    stored.settle()
    assert stored.phase("VolumeBackup", "next") == "error"
    assert all(words in ready_text(stored, "VolumeBackup", "next") for words in (no_node, no_volume))
    assert (summary(stored)["children"], list(summary(stored)["claims"])) == ([], ["data"])
    assert not [key for key in stored.stored() if stored.get("VolumeBackup", "next")["metadata"]["uid"] in key]
    stored.cluster.no_node = stored.cluster.no_volume = ""
    stored.backup("last", "data")
    stored.settle()
    assert stored.kept("last") == "second"


def test_persistent_warning_is_written_once(stored: Simulation) -> None:
    stored.cluster.no_volume = NOT_HERE
    stored.backup("next", "data")
    stored.until("VolumeBackup", "next", NOT_HERE)
    version, end = stored.objects.version, stored.now.timestamp() + 600
    while stored.now.timestamp() < end:
        stored.step()
    assert stored.objects.version == version
