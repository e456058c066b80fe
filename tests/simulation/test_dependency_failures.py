"""Deleted stores, lost Secrets, long outages, deleted namespaces, and times without an operator."""

from __future__ import annotations

import pytest

from cinderblock.api import labels
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.errors import CinderblockError, ContainerNotFound, NotFound, StoreUnreachable
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation, summary
from tests.support.store.faults import Crash

HOUR = 3600
NO_SECRET = NotFound("Secret s3 of BackupStore default does not exist in namespace shop", reason="SecretNotFound")
NO_BUCKET = ContainerNotFound("There is no container volumebackups")


def run_for(simulation: Simulation, seconds: float) -> None:
    """Run the simulation for some time."""
    end = simulation.now.timestamp() + seconds
    while simulation.now.timestamp() < end:
        simulation.step()


# The store


def test_deleted_store_stays_and_names_its_users(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.settle()
    assert stored.exists("BackupStore", "default")
    condition = stored.get("BackupStore", "default")["status"]["conditions"][0]
    assert (condition["reason"], condition["message"]) == ("InUse", "VolumeBackups need this store: full")


def test_backups_in_a_deleted_store_stay_usable(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert (stored.exists("BackupStore", "default"), stored.stored()) == (False, [])


def test_deleted_store_accepts_no_new_backup(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.backup("next", "data", storeName="default")
    stored.settle()
    assert (stored.phase("VolumeBackup", "next"), stored.reason("VolumeBackup", "next")) == (
        "error",
        "StoreBeingDeleted",
    )


def test_deleted_store_finishes_a_running_backup(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.delete("BackupStore", "default")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.exists("BackupStore", "default")


def test_backups_outlive_a_store_removed_by_force(
    stored: Simulation,
) -> None:
    stored.objects.drop_finalizer(stored.get("BackupStore", "default"), labels.STORE_FINALIZER)
    stored.delete("BackupStore", "default")
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert (stored.phase("VolumeBackup", "full"), stored.reason("VolumeBackup", "full")) == (
        "error_deleting",
        "StoreNotFound",
    )
    assert stored.stored() != []


# Secrets, endpoint, bucket


@pytest.mark.parametrize(
    "error", [NO_SECRET, NO_BUCKET, StoreUnreachable("no answer")], ids=["Secret", "bucket", "endpoint"]
)
def test_complete_backup_is_unaffected_by_a_store_outage(stored: Simulation, error: CinderblockError) -> None:
    before = stored.get("VolumeBackup", "full")["metadata"]["resourceVersion"]
    stored.store.error = error
    run_for(stored, HOUR)
    assert stored.get("VolumeBackup", "full")["metadata"]["resourceVersion"] == before
    assert stored.reason("BackupStore", "default") == error.reason
    stored.store.error = None
    run_for(stored, 5 * 60)
    assert stored.reason("BackupStore", "default") == "Answers"


@pytest.mark.parametrize(
    "error", [NO_SECRET, NO_BUCKET, StoreUnreachable("no answer")], ids=["Secret", "bucket", "endpoint"]
)
def test_deletion_waits_for_the_store_without_limit(stored: Simulation, error: CinderblockError) -> None:
    stored.store.error = error
    stored.delete("VolumeBackup", "full")
    run_for(stored, HOUR)
    assert (stored.phase("VolumeBackup", "full"), stored.reason("VolumeBackup", "full")) == (
        "error_deleting",
        error.reason,
    )
    counts = [count for reason, count in stored.events() if reason == error.reason]
    assert sum(counts) <= 3, "one Event at the start, one for the error, one of the store"
    stored.store.error = None
    stored.settle()
    assert (stored.phase("VolumeBackup", "full"), stored.stored()) == ("gone", [])


def test_hour_long_outage_fails_only_waiting_operations(stored: Simulation) -> None:
    stored.store.error = StoreUnreachable("no answer")
    stored.backup("next", "data")
    stored.restore("again", "full", volumeId="data")
    run_for(stored, HOUR)
    assert (stored.phase("VolumeBackup", "next"), stored.reason("VolumeBackup", "next")) == (
        "error",
        "StoreUnreachable",
    )
    assert stored.phase("VolumeRestore", "again") == "error_restoring"
    assert stored.content("data") == "second"
    stored.store.error = None
    stored.settle()
    assert summary(stored)["children"] == []
    assert stored.phase("VolumeBackup", "full") == "error_restoring", "the newest restore of it has failed"


def test_short_outage_while_reading_the_manifest_back_is_survived(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.store.error = StoreUnreachable("no answer")
    run_for(simulation, 4 * 60)
    assert simulation.phase("VolumeBackup", "full") == "creating"
    simulation.store.error = None
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


# The namespace


@pytest.mark.parametrize("store_answers", [True, False])
def test_namespace_can_be_deleted_with_its_contents(stored: Simulation, store_answers: bool) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.restore("again", "full", name="new")
    stored.backup("running", "data")
    stored.until("VolumeBackup", "running", "MoverRunning")
    namespace = stored.get("Namespace", NAMESPACE)
    stored.objects.update(namespace, metadata=namespace["metadata"] | {"finalizers": ["kubernetes"]})
    stored.objects.delete(namespace)
    if not store_answers:
        stored.store.error = NO_SECRET
    for kind in ("BackupStore", "VolumeBackup", "VolumeRestore", "Job", "Pod", "VolumeSnapshot"):
        for item in stored.objects.all(kind, NAMESPACE):
            stored.objects.delete(item)
    for item in stored.objects.all("PersistentVolumeClaim", NAMESPACE):
        stored.objects.delete(item)
    stored.settle()
    kinds = ("BackupStore", "VolumeBackup", "VolumeRestore", "Job", "PersistentVolumeClaim", "VolumeSnapshot")
    assert [item["metadata"]["name"] for kind in kinds for item in stored.objects.all(kind)] == []
    assert (stored.stored() == []) == store_answers, "data stays if the store does not answer"


# The operator


def test_deletion_without_operator_is_completed_later(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.delete("VolumeBackup", "full")
    stored.delete("VolumeBackup", "child")
    stored.advance(24 * HOUR)
    stored.restart()
    stored.settle()
    assert (stored.stored(), summary(stored)["phases"]) == ([], {})


def test_uninstalled_operator_leaves_data_and_no_stuck_objects(stored: Simulation) -> None:
    for kind in ("VolumeBackup", "BackupStore"):
        for item in stored.objects.all(kind, NAMESPACE):
            stored.objects.update(item, metadata=item["metadata"] | {"finalizers": []})
    stored.delete("VolumeBackup", "full")
    stored.delete("BackupStore", "default")
    assert stored.phase("VolumeBackup", "full") == "gone"
    assert stored.stored() != []


@pytest.mark.parametrize("moment", ["SnapshotNotReady", "MoverPending", "MoverRunning"])
@pytest.mark.parametrize("again", [False, True], ids=["and gone", "and made again under its name"])
def test_backup_removed_by_force_leaves_no_child(simulation: Simulation, moment: str, again: bool) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", moment)
    simulation.delete("VolumeBackup", "full")
    simulation.objects.drop_finalizer(simulation.get("VolumeBackup", "full"), labels.BACKUP_FINALIZER)
    assert simulation.phase("VolumeBackup", "full") == "gone"
    if again:
        simulation.backup("full", "data")
    simulation.settle()
    assert summary(simulation)["children"] == []
    assert simulation.phase("VolumeBackup", "full") == ("available" if again else "gone")


def remove_by_force(simulation: Simulation, restore: str) -> None:
    """Remove a VolumeRestore by force."""
    simulation.delete("VolumeRestore", restore)
    simulation.objects.drop_finalizer(simulation.get("VolumeRestore", restore), labels.RESTORE_FINALIZER)


@pytest.mark.parametrize("away", [False, True], ids=["at once", "while no operator runs"])
@pytest.mark.parametrize(
    "moment",
    [
        "MoverRunning",
        "retaining its PersistentVolume",
        "deleting the staging claim",
        "reserving its PersistentVolume",
        "creating PersistentVolumeClaim",
    ],
)
def test_restore_removed_by_force_leaves_no_mover_or_volume(stored: Simulation, moment: str, away: bool) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", moment)
    remove_by_force(stored, "again")
    if away:
        stored.restart()
    stored.settle()
    assert summary(stored)["children"] == []
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_volume_of_a_removed_restore_can_be_claimed(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving its PersistentVolume")
    (volume,) = [item for item in stored.objects.all("PersistentVolume") if item["metadata"].get("labels")]
    stored.unbound_claim("new")
    claim = stored.get("PersistentVolumeClaim", "new")
    stored.objects.update(claim, spec=claim["spec"] | {"volumeName": volume["metadata"]["name"]})
    remove_by_force(stored, "again")
    stored.settle()
    assert stored.content("new") == "first"
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")] * 2


def test_once_bound_volume_of_a_removed_restore_is_kept(stored: Simulation) -> None:
    stored.claim("theirs", "written since")
    volume = stored.cluster.volume_of(stored.get("PersistentVolumeClaim", "theirs"))
    assert volume is not None
    metadata = volume["metadata"] | {"labels": {RESTORE_LABEL: "of-nobody"}}
    stored.objects.update(volume, metadata=metadata, spec=volume["spec"] | {"persistentVolumeReclaimPolicy": "Retain"})
    stored.delete("PersistentVolumeClaim", "theirs")
    stored.settle()
    assert ("Released", "Retain", "") in summary(stored)["volumes"]
    assert ("VolumeKept", 1) in stored.events()


def _ending(stored: Simulation, steps: int, at: int | None) -> bool:
    """Delete the namespace after ``steps`` steps of a restore, and crash the operator at a later write.

    Returns whether the restore had ended.
    """
    stored.restore("again", "full", name="new")
    for _ in range(steps):
        stored.step()
    has_ended = stored.phase("VolumeRestore", "again") == "available"
    if at is not None:
        stored.faults.plan(at, Crash("scripted"), done=at % 2 == 0)
    namespace = stored.get("Namespace", NAMESPACE)
    stored.objects.update(namespace, metadata=namespace["metadata"] | {"finalizers": ["kubernetes"]})
    stored.objects.delete(namespace)
    order = ("PersistentVolumeClaim", "Pod", "Job", "VolumeSnapshot", "BackupStore", "VolumeBackup", "VolumeRestore")
    for kind in order if steps % 2 else reversed(order):
        for item in stored.objects.all(kind, NAMESPACE):
            stored.objects.delete(item)
        stored.step()
    stored.settle()
    return has_ended


@some_or_all_moments
def test_namespace_deleted_during_a_restore_leaves_no_volume(moments: Moments) -> None:
    steps, has_ended = 0, False
    while not has_ended:
        for at in moments(steps, (0, 1, 2, 3, 5)):
            with Simulation() as simulation:
                simulation.claim("data", "first")
                simulation.backup("full", "data")
                simulation.settle()
                has_ended = _ending(simulation, steps, at)
                end = summary(simulation)
            story = f"step {steps}, write {at}: {end}\n{simulation.story()}"
            assert (end["volumes"], end["claims"], end["children"], end["phases"]) == ([], {}, [], {}), story
        steps += 1
    assert steps > 10
