"""What may come in between, and must lose no data, touch nothing of somebody else's and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.errors import AccessDenied, StoreUnreachable
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary

MARKED = "cinderblock.io/restore-uid"


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        yield simulation


@pytest.fixture
def stored(simulation: Simulation) -> Simulation:
    """With a full backup."""
    simulation.backup("full", "data")
    simulation.settle()
    return simulation


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


# -- children's names that somebody else has taken


@pytest.mark.parametrize("kind", ["VolumeSnapshot", "PersistentVolumeClaim", "Job"])
def test_an_object_that_only_has_a_childs_name_survives_the_backup_and_its_deletion(
    simulation: Simulation, kind: str
) -> None:
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
def test_an_object_that_only_has_a_childs_name_survives_the_restore_and_lets_it_go(
    stored: Simulation, kind: str
) -> None:
    taken = labels.child_name(stored.restore("again", "full", name="new")["metadata"]["uid"])
    stranger(stored, kind, taken)
    stored.settle()
    assert stored.reason("VolumeRestore", "again") == "NameTaken"
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "gone"
    assert stored.exists(kind, taken)


# -- handing a volume over


def test_nothing_waits_for_the_resync_when_a_volume_has_been_handed_over(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.settle()
    assert summary(stored)["finalizers"]["again"] == []


def test_a_volume_that_is_reserved_is_reclaimed_when_the_restore_is_cancelled(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving the volume")
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "gone"
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_a_claim_that_is_not_bound_yet_goes_when_the_restore_is_cancelled(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating claim new")
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_a_claim_that_is_bound_keeps_its_volume_when_the_restore_is_cancelled(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating claim new")
    (binding,) = [move for move in stored.cluster.moves() if move.name == "bind PersistentVolumeClaim new"]
    stored.move(binding)
    stored.delete("VolumeRestore", "again")
    stored.settle()
    assert stored.get("PersistentVolumeClaim", "new")["metadata"]["ownerReferences"] == []
    assert stored.content("new") == "first"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


def test_a_claim_that_is_deleted_before_the_restore_is_recorded_is_made_again(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "creating claim new")
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


def test_a_name_that_is_taken_in_the_middle_ends_the_restore_and_leaves_no_volume(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "releasing the hidden claim")
    stored.claim("new", "somebody else's")
    stored.settle()
    assert stored.reason("VolumeRestore", "again") == "NameTaken"
    assert stored.content("new") == "somebody else's"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


def test_a_name_that_is_taken_after_the_volume_was_reserved_leaves_no_volume_either(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving the volume")
    stored.claim("new", "somebody else's")
    stored.settle()
    assert stored.content("new") == "somebody else's"
    assert summary(stored)["volumes"] == [("Bound", "Delete", ""), ("Bound", "Delete", "")]


@pytest.mark.parametrize("seen", ["MoverPending", "MoverRunning", "keeping the filled volume", "releasing the hidden"])
def test_a_hidden_claim_that_somebody_deletes_ends_in_a_volume_or_in_an_error_but_in_no_half_of_one(
    stored: Simulation, seen: str
) -> None:
    restore = stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", seen)
    stored.delete("PersistentVolumeClaim", labels.child_name(restore["metadata"]["uid"]))
    stored.settle()
    ended = stored.phase("VolumeRestore", "again")
    assert ended in ("available", "error_restoring")
    assert stored.exists("PersistentVolumeClaim", "new") == (ended == "available")
    assert len(summary(stored)["volumes"]) == 1 + (ended == "available")


# -- a status that is lost


def test_an_available_backup_whose_volume_is_gone_gets_its_status_back(stored: Simulation) -> None:
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


def test_an_available_backup_whose_status_is_lost_while_the_store_is_down_waits_for_the_store(
    stored: Simulation,
) -> None:
    stored.erase_status("VolumeBackup", "full")
    stored.store.trouble = StoreUnreachable("no answer")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "creating"
    assert stored.reason("VolumeBackup", "full") == "Recalling"
    stored.store.trouble = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "available"


def test_an_available_backup_whose_status_is_lost_in_bad_hands_is_not_made_anew(stored: Simulation) -> None:
    stored.erase_status("VolumeBackup", "full")
    stored.store.trouble = AccessDenied("the key is refused")
    stored.settle()
    stored.store.trouble = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "available"


@pytest.mark.parametrize("volume_is_there", [True, False])
def test_the_data_of_a_backup_without_status_is_removed_with_it(stored: Simulation, volume_is_there: bool) -> None:
    if not volume_is_there:
        stored.delete("PersistentVolumeClaim", "data")
        stored.settle()
    stored.erase_status("VolumeBackup", "full")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "gone"
    assert stored.stored() == []


def test_a_parent_without_status_is_kept_while_a_dependent_lives(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.erase_status("VolumeBackup", "full")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "deleting"
    stored.delete("VolumeBackup", "child")
    stored.settle()
    assert stored.stored() == []


def test_an_unfinished_backup_without_status_leaves_no_packs_behind(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.move(next(move for move in simulation.cluster.moves() if move.name.endswith("fails for now")))
    simulation.erase_status("VolumeBackup", "full")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.stored(), summary(simulation)["children"]) == ([], [])


def test_a_foreign_status_of_a_restore_does_not_hold_a_deletion_up(stored: Simulation) -> None:
    uid = stored.get("VolumeBackup", "full")["metadata"]["uid"]
    copied = stored.restore("copied", "nowhere", name="new")
    stored.objects.update(copied, status={"id": "another", "phase": "restoring", "backupId": uid})
    stored.delete("VolumeBackup", "full")
    key = next(key for key in stored.due() if key.name == "full")
    for _ in range(5):
        stored.reconcile(key)
    assert stored.phase("VolumeBackup", "full") == "gone"


def test_a_restore_whose_status_is_lost_does_not_write_to_its_volume_once_more(stored: Simulation) -> None:
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


def test_a_restore_that_had_failed_does_not_begin_anew_when_its_status_is_lost(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.until("VolumeRestore", "again", "MoverRunning")
    stored.move(next(move for move in stored.cluster.moves() if move.name.endswith("fails for good")))
    stored.settle()
    stored.write("data", "repaired by hand")
    stored.erase_status("VolumeRestore", "again")
    stored.settle()
    assert stored.phase("VolumeRestore", "again") == "error_restoring"
    assert stored.content("data") == "repaired by hand"


def test_a_copy_of_an_ended_restore_is_a_request_of_its_own(stored: Simulation) -> None:
    ended = stored.restore("again", "full", volumeId="data")
    stored.settle()
    stored.write("data", "written by the application")
    copied = stored.restore("copied", "full", volumeId="data")
    annotations = dict(ended["metadata"]["annotations"])
    stored.objects.update(copied, metadata=copied["metadata"] | {"annotations": annotations})
    stored.settle()
    assert (stored.phase("VolumeRestore", "copied"), stored.content("data")) == ("available", "first")


# -- a store that refuses


def test_data_that_may_not_be_removed_ends_in_error_deleting_which_says_why(stored: Simulation) -> None:
    stored.store.refuses_removal = AccessDenied("DeleteObject is not allowed")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "error_deleting"
    assert stored.get("VolumeBackup", "full")["status"]["failReason"] == "DeleteObject is not allowed"
    stored.store.refuses_removal = None
    stored.settle()
    assert stored.phase("VolumeBackup", "full") == "gone"


def test_a_manifest_of_somebody_else_stops_a_deletion_and_is_told(stored: Simulation) -> None:
    stored.backup("other", "data")
    stored.settle()
    uids = {name: stored.get("VolumeBackup", name)["metadata"]["uid"] for name in ("full", "other")}
    (mine,) = [key for key in stored.stored("backups/") if uids["full"] in key]
    (theirs,) = [key for key in stored.stored("backups/") if uids["other"] in key]
    stored.cluster.store.put(mine, stored.cluster.store.get(theirs))
    before = stored.stored()
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert (stored.phase("VolumeBackup", "full"), stored.stored()) == ("error_deleting", before)
    assert stored.reason("VolumeBackup", "full") == "ForeignManifest"


def test_a_short_outage_after_a_long_wait_for_dependents_is_no_error(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.delete("VolumeBackup", "full")
    stored.settle()
    stored.delete("VolumeBackup", "child")
    for _ in range(3):
        key = next(key for key in stored.due() if key.name == "child")
        stored.reconcile(key)
    assert stored.phase("VolumeBackup", "child") == "gone"
    stored.store.trouble = StoreUnreachable("no answer")
    for _ in range(20):
        stored.step()
    assert stored.phase("VolumeBackup", "full") == "deleting"
    stored.store.trouble = None
    stored.settle()
    assert stored.stored() == []


# -- volumes and snapshots


def test_what_was_asked_for_is_backed_up_even_if_the_snapshot_goes_while_the_mover_is_queued(
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
    backup = simulation.backup("asked", "data", snapshotId="yesterday")
    simulation.until("VolumeBackup", "asked", "Queued")
    for move in simulation.cluster.moves():
        if move.name.startswith("provision"):
            simulation.move(move)
    simulation.delete("VolumeSnapshot", "yesterday")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "asked") == "available"
    assert simulation.cluster.kept[backup["metadata"]["uid"]] == "first"
    assert simulation.get("VolumeBackup", "asked")["status"]["dataTimestamp"] == taken


def test_a_mover_that_is_started_again_after_hours_gets_its_time_to_start(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.advance(3 * 3600)
    simulation.move(next(move for move in simulation.cluster.moves() if move.name.endswith("is evicted")))
    for key in simulation.due():
        simulation.reconcile(key)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_nobody_writes_to_a_volume_that_a_failed_restore_may_still_write_to(stored: Simulation) -> None:
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


def test_of_two_restores_without_a_name_the_younger_waits_and_then_finds_the_name_taken(stored: Simulation) -> None:
    stored.restore("a", "full")
    stored.advance(1)
    stored.restore("b", "full")
    stored.until("VolumeRestore", "b", "VolumeBusy")
    stored.settle()
    assert (stored.phase("VolumeRestore", "a"), stored.reason("VolumeRestore", "b")) == ("available", "NameTaken")
