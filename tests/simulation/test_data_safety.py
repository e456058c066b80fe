"""Interference that must lose no data, change no foreign object and leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.errors import AccessDenied, StoreUnreachable
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary

MARKED = "cinderblock.io/restore-uid"


@pytest.fixture
def stored(backed_up: Simulation) -> Simulation:
    return backed_up


def child_of(simulation: Simulation, kind: str, name: str) -> str:
    return labels.child_name(simulation.get(kind, name)["metadata"]["uid"])


STRANGERS: dict[str, dict[str, Any]] = {
    "VolumeSnapshot": {"source": {"persistentVolumeClaimName": "data"}},
    "PersistentVolumeClaim": {"storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}},
    "Job": {"suspend": True},
}


def stranger(simulation: Simulation, kind: str, name: str) -> None:
    body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": STRANGERS[kind]}
    assert simulation.objects.create(kind, body) is not None


# Children's names that are already taken


@pytest.mark.parametrize("kind", ["VolumeSnapshot", "PersistentVolumeClaim", "Job"])
def test_foreign_object_with_a_child_name_survives_the_backup(simulation: Simulation, kind: str) -> None:
    taken = labels.child_name(simulation.backup("full", "data")["metadata"]["uid"])
    stranger(simulation, kind, taken)
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "NameTaken",
    )
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.exists(kind, taken)


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "Job"])
def test_foreign_object_with_a_child_name_survives_the_restore(stored: Simulation, kind: str) -> None:
    taken = labels.child_name(stored.restore("again", "full", name="new")["metadata"]["uid"])
    stranger(stored, kind, taken)
    stored.settle()
    assert stored.reason("VolumeRestore", "again") == "NameTaken"
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "gone"
    assert stored.exists(kind, taken)


# The hand-over of a volume


def test_finalizer_is_removed_without_a_resync(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.settle()
    assert summary(stored)["finalizers"]["again"] == []


def test_cancelled_restore_reclaims_its_reserved_volume(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving its PersistentVolume")
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "gone"
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_cancelled_restore_deletes_its_unbound_claim(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating PersistentVolumeClaim new")
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_cancelled_restore_releases_its_bound_claim(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating PersistentVolumeClaim new")
    (binding,) = [move for move in stored.cluster.moves() if move.name == "bind PersistentVolumeClaim new"]
    stored.move(binding)
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.get("PersistentVolumeClaim", "new")["metadata"]["ownerReferences"] == []
    assert stored.content("new") == "first"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


def test_claim_deleted_before_the_result_is_created_again(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating PersistentVolumeClaim new")
    for move in stored.cluster.moves():
        if move.name == "bind PersistentVolumeClaim new":
            stored.move(move)
    stored.delete("PersistentVolumeClaim", "new")
    for move in stored.cluster.moves():
        if "new" in move.name:
            stored.move(move)
    assert not stored.exists("PersistentVolumeClaim", "new")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "available"
    assert stored.content("new") == "first"


def test_name_taken_during_rebinding_fails_without_leftovers(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "deleting the staging claim")
    stored.claim("new", "somebody else's")
    stored.settle()
    assert stored.reason("VolumeRestore", "again") == "NameTaken"
    assert stored.content("new") == "somebody else's"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


def test_name_taken_after_reservation_leaves_no_volume(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving its PersistentVolume")
    stored.claim("new", "somebody else's")
    stored.settle()
    assert stored.content("new") == "somebody else's"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


@pytest.mark.parametrize(
    "step", ["MoverPending", "MoverRunning", "retaining its PersistentVolume", "deleting the staging"]
)
def test_deleted_staging_claim_never_yields_a_half_restored_volume(stored: Simulation, step: str) -> None:
    restore = stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", step)
    stored.delete("PersistentVolumeClaim", labels.child_name(restore["metadata"]["uid"]))
    stored.settle()
    ended = stored.phase("VolumeRestore", "again")
    assert ended in ("available", "error_restoring")
    assert stored.exists("PersistentVolumeClaim", "new") == (ended == "available")
    assert len(summary(stored)["volumes"]) == 1 + (ended == "available")


# A lost status


def test_lost_status_is_recovered_without_the_volume(stored: Simulation) -> None:
    before = stored.get("VolumeBackup", "full")["status"]
    stored.delete("PersistentVolumeClaim", "data")
    stored.settle()
    stored.erase_status("VolumeBackup", "full")
    stored.settle()
    after = stored.get("VolumeBackup", "full")["status"]
    moved = {"updatedAt", "conditions", "completedAt", "duration"}
    assert {key: after.get(key) for key in before if key not in moved} == {
        key: value for key, value in before.items() if key not in moved
    }


def test_lost_status_waits_for_a_silent_store(
    stored: Simulation,
) -> None:
    stored.erase_status("VolumeBackup", "full")
    stored.store.error = StoreUnreachable("no answer")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "creating"
    assert stored.reason("VolumeBackup", "full") == "Recalling"
    stored.store.error = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "available"


def test_backup_with_lost_status_is_not_copied_again(stored: Simulation) -> None:
    stored.erase_status("VolumeBackup", "full")
    stored.store.error = AccessDenied("the key is refused")
    stored.settle()
    stored.store.error = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "available"


@pytest.mark.parametrize("volume_is_there", [True, False])
def test_deletion_without_status_removes_the_data(stored: Simulation, volume_is_there: bool) -> None:
    if not volume_is_there:
        stored.delete("PersistentVolumeClaim", "data")
        stored.settle()
    stored.erase_status("VolumeBackup", "full")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "gone"
    assert stored.stored() == []


def test_parent_without_status_waits_for_its_dependents(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.erase_status("VolumeBackup", "full")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "deleting"
    stored.delete("VolumeBackup", "child")
    stored.settle()
    assert stored.stored() == []


def test_unfinished_backup_without_status_leaves_no_packs(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.move(next(move for move in simulation.cluster.moves() if move.name.endswith("fails for now")))
    simulation.erase_status("VolumeBackup", "full")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.stored(), summary(simulation)["children"]) == ([], [])


def test_foreign_restore_status_does_not_block_a_deletion(stored: Simulation) -> None:
    uid = stored.get("VolumeBackup", "full")["metadata"]["uid"]
    copied = stored.restore("copied", "nowhere", name="new")
    stored.objects.update(copied, status={"id": "another", "phase": "restoring", "backupId": uid})
    stored.delete("VolumeBackup", "full")
    key = next(key for key in stored.due() if key.name == "full")
    for _ in range(5):
        stored.reconcile(key)
    assert stored.phase("VolumeBackup", "full") == "gone"


def test_restore_with_lost_status_does_not_write_again(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.settle()
    stored.write("data", "written by the application")
    stored.erase_status("VolumeRestore", "again")
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.reason("VolumeRestore", "again")) == (
        "available",
        "StatusLost",
    )
    assert stored.content("data") == "written by the application"


def test_failed_restore_with_lost_status_does_not_restart(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.until("VolumeRestore", "again", "MoverRunning")
    stored.move(next(move for move in stored.cluster.moves() if move.name.endswith("fails for good")))
    stored.settle()
    stored.write("data", "repaired by hand")
    stored.erase_status("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "error_restoring"
    assert stored.content("data") == "repaired by hand"


def test_copy_of_an_ended_restore_runs(stored: Simulation) -> None:
    ended = stored.restore("again", "full", volumeId="data")
    stored.settle()
    stored.write("data", "written by the application")
    copied = stored.restore("copied", "full", volumeId="data")
    annotations = dict(ended["metadata"]["annotations"])
    stored.objects.update(copied, metadata=copied["metadata"] | {"annotations": annotations})
    stored.settle()
    assert (stored.phase("VolumeRestore", "copied"), stored.content("data")) == ("available", "first")


# A store that rejects requests


def test_denied_removal_leads_to_error_deleting(stored: Simulation) -> None:
    stored.store.removal_error = AccessDenied("DeleteObject is not allowed")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "error_deleting"
    assert stored.get("VolumeBackup", "full")["status"]["failReason"] == "DeleteObject is not allowed"
    stored.store.removal_error = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "gone"


def test_foreign_manifest_stops_the_deletion(stored: Simulation) -> None:
    stored.backup("other", "data")
    stored.settle()
    uids = {name: stored.get("VolumeBackup", name)["metadata"]["uid"] for name in ("full", "other")}
    (own_key,) = [key for key in stored.stored("backups/") if uids["full"] in key]
    (foreign_key,) = [key for key in stored.stored("backups/") if uids["other"] in key]
    stored.cluster.store.put(own_key, stored.cluster.store.get(foreign_key))
    before = stored.stored()
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert (stored.phase("VolumeBackup", "full"), stored.stored()) == ("error_deleting", before)
    assert stored.reason("VolumeBackup", "full") == "ForeignManifest"


def test_short_outage_after_a_long_wait_is_not_an_error(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.delete("VolumeBackup", "full")
    stored.settle()
    stored.delete("VolumeBackup", "child")
    for _ in range(3):
        key = next(key for key in stored.due() if key.name == "child")
        stored.reconcile(key)
    assert stored.phase("VolumeBackup", "child") == "gone"
    stored.store.error = StoreUnreachable("no answer")
    for _ in range(20):
        stored.step()
    assert stored.phase("VolumeBackup", "full") == "deleting"
    stored.store.error = None
    stored.settle()
    assert stored.stored() == []


# Volumes and snapshots


def test_queued_backup_survives_the_deletion_of_its_snapshot(
    simulation: Simulation,
) -> None:
    spec = {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "snap"}
    body = {"metadata": {"name": "yesterday", "namespace": NAMESPACE}, "spec": spec}
    assert simulation.objects.create("VolumeSnapshot", body) is not None
    simulation.settle()
    taken = simulation.get("VolumeSnapshot", "yesterday")["status"]["creationTime"]
    simulation.write("data", "second")
    simulation.claim("a", "a"), simulation.claim("b", "b")
    simulation.backup("first", "a"), simulation.backup("next", "b")
    simulation.until("VolumeBackup", "first", "MoverPending")
    simulation.until("VolumeBackup", "next", "MoverPending")
    backup = simulation.backup("queued", "data", snapshotId="yesterday")
    simulation.until("VolumeBackup", "queued", "Queued")
    for move in simulation.cluster.moves():
        if move.name.startswith("provision"):
            simulation.move(move)
    simulation.delete("VolumeSnapshot", "yesterday")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "queued") == "available"
    assert simulation.cluster.kept[backup["metadata"]["uid"]] == "first"
    assert simulation.get("VolumeBackup", "queued")["status"]["dataTimestamp"] == taken


def test_mover_restarted_after_hours_gets_its_time_to_start(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.advance(3 * 3600)
    simulation.move(next(move for move in simulation.cluster.moves() if move.name.endswith("is evicted")))
    for key in simulation.due():
        simulation.reconcile(key)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_volume_of_a_stopping_restore_stays_locked(stored: Simulation) -> None:
    stored.restore("broken", "full", volumeId="data")
    stored.until("VolumeRestore", "broken", "MoverRunning")
    stored.delete("Job", child_of(stored, "VolumeRestore", "broken"))
    while stored.phase("VolumeRestore", "broken") != "error_restoring":
        stored.reconcile(stored.due()[0])
    stored.restore("again", "full", volumeId="data")
    for _ in range(3):
        ready = [key for key in stored.due() if key.name == "again"]
        for key in ready:
            stored.reconcile(key)
    assert stored.reason("VolumeRestore", "again") == "VolumeBusy"
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.content("data")) == ("available", "first")


def test_younger_unnamed_restore_waits_and_fails(stored: Simulation) -> None:
    stored.restore("a", "full")
    stored.advance(1)
    stored.restore("b", "full")
    stored.until("VolumeRestore", "b", "VolumeBusy")
    stored.settle()
    assert (stored.phase("VolumeRestore", "a"), stored.reason("VolumeRestore", "b")) == ("available", "NameTaken")
