"""Volumes that can only be had in some places: what is in the way is told in the cluster's own words, and has an end.

Cinder makes a volume in the availability zone that was asked for, or refuses; in Kubernetes a scheduler and a
provisioner decide, each in its own time, and what they say is on the pod and on the claim (core/v1 PodScheduled; Events
of external-provisioner).
"""

from __future__ import annotations

import pytest

from tests.support.simulation.cluster import LATE
from tests.support.simulation.simulation import Simulation, summary

NO_ZONE = "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind."
OTHER_ZONE = "0/3 nodes are available: 3 node(s) had volume node affinity conflict."
NOT_HERE = 'failed to provision volume with StorageClass "late": snapshot is only accessible in zone b'


def said(simulation: Simulation, kind: str, name: str) -> str:
    condition = simulation.get(kind, name)["status"]["conditions"][0]
    return f"{condition['reason']}: {condition['message']}"


def test_a_class_that_waits_for_its_consumer_gets_the_mover_as_one(stored: Simulation) -> None:
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.settle()
    assert stored.content("new") == "first"


def test_a_restore_to_where_no_node_is_says_so_until_there_is_one(stored: Simulation) -> None:
    stored.cluster.no_node = NO_ZONE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.until("VolumeRestore", "back", f"MoverUnschedulable: No node for the mover: {NO_ZONE} (until 2026-")
    assert stored.phase("VolumeRestore", "back") == "restoring"
    stored.cluster.no_node = ""
    stored.settle()
    assert (stored.phase("VolumeRestore", "back"), stored.content("new")) == ("available", "first")


def test_a_restore_to_where_no_node_ever_is_ends_and_leaves_nothing(stored: Simulation) -> None:
    stored.cluster.no_node = NO_ZONE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.settle()
    assert stored.phase("VolumeRestore", "back") == "error_restoring"
    assert said(stored, "VolumeRestore", "back") == (
        f"MoverUnschedulable: No node for the mover: {NO_ZONE} (waited 900 s)"
    )
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert (summary(stored)["children"], len(summary(stored)["volumes"])) == ([], 1)
    stored.cluster.no_node = ""
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"


def test_a_volume_that_cannot_be_made_where_the_mover_is_tells_it_in_the_provisioners_words(stored: Simulation) -> None:
    stored.cluster.no_volume = NOT_HERE
    stored.restore("back", "full", name="new", storageClassName=LATE)
    stored.until("VolumeRestore", "back", f"MoverStarting: The mover's pod is starting. Its volume: {NOT_HERE}")
    stored.settle()
    assert stored.phase("VolumeRestore", "back") == "error_restoring"
    assert NOT_HERE in stored.get("VolumeRestore", "back")["status"]["failReason"]
    assert (summary(stored)["children"], list(summary(stored)["claims"])) == ([], ["data"])


@pytest.mark.parametrize(("no_node", "no_volume"), [(OTHER_ZONE, ""), ("", NOT_HERE), (OTHER_ZONE, NOT_HERE)])
def test_a_backup_whose_snapshot_can_only_be_had_in_another_zone_says_so_and_ends(
    stored: Simulation, no_node: str, no_volume: str
) -> None:
    stored.cluster.no_node, stored.cluster.no_volume = no_node, no_volume
    stored.backup("next", "data")
    stored.until("VolumeBackup", "next", no_volume or no_node)
    stored.settle()
    assert stored.phase("VolumeBackup", "next") == "error"
    assert all(words in said(stored, "VolumeBackup", "next") for words in (no_node, no_volume))
    assert (summary(stored)["children"], list(summary(stored)["claims"])) == ([], ["data"])
    assert not [key for key in stored.stored() if stored.get("VolumeBackup", "next")["metadata"]["uid"] in key]
    stored.cluster.no_node = stored.cluster.no_volume = ""
    stored.backup("last", "data")
    stored.settle()
    assert stored.kept("last") == "second"


def test_what_hinders_a_volume_is_not_written_with_every_look(stored: Simulation) -> None:
    stored.cluster.no_volume = NOT_HERE
    stored.backup("next", "data")
    stored.until("VolumeBackup", "next", NOT_HERE)
    version, end = stored.objects.version, stored.now.timestamp() + 600
    while stored.now.timestamp() < end:
        stored.step()
    assert stored.objects.version == version
