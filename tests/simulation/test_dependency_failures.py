"""Stores that go, lost Secrets, hours without an endpoint, namespaces that end, an operator that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api import labels
from cinderblock.errors import CinderblockError, ContainerNotFound, NotFound, StoreUnreachable
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary
from tests.support.store.faults import Crash

HOUR = 3600
NO_SECRET = NotFound("Secret s3 of BackupStore default does not exist in namespace shop", reason="SecretNotFound")
NO_BUCKET = ContainerNotFound("There is no container volumebackups")


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
    simulation.write("data", "second")
    return simulation


def run_for(simulation: Simulation, seconds: float) -> None:
    """Let time pass in which everybody does what is due."""
    end = simulation.now.timestamp() + seconds
    while simulation.now.timestamp() < end:
        simulation.step()


# -- the store


def test_a_store_in_use_is_held_and_names_who_uses_it(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.settle()
    assert stored.exists("BackupStore", "default")
    said = stored.get("BackupStore", "default")["status"]["conditions"][0]
    assert (said["reason"], said["message"]) == ("InUse", "VolumeBackups need this store: full")


def test_what_is_in_a_store_that_is_going_can_still_be_restored_and_deleted(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"
    stored.delete("VolumeBackup", "full")
    stored.settle()
    assert (stored.exists("BackupStore", "default"), stored.stored()) == (False, [])


def test_nothing_new_goes_into_a_store_that_is_going(stored: Simulation) -> None:
    stored.delete("BackupStore", "default")
    stored.backup("next", "data", storeName="default")
    stored.settle()
    assert (stored.phase("VolumeBackup", "next"), stored.reason("VolumeBackup", "next")) == (
        "error",
        "StoreBeingDeleted",
    )


def test_a_backup_under_way_in_a_store_that_is_being_deleted_is_finished(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.delete("BackupStore", "default")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.exists("BackupStore", "default")


def test_a_store_whose_finalizer_somebody_took_off_leaves_the_backups_and_says_what_is_missing(
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


# -- Secrets, endpoint, bucket


@pytest.mark.parametrize(
    "trouble", [NO_SECRET, NO_BUCKET, StoreUnreachable("no answer")], ids=["Secret", "bucket", "endpoint"]
)
def test_a_finished_backup_stays_what_it_is_while_its_store_is_away(
    stored: Simulation, trouble: CinderblockError
) -> None:
    before = stored.get("VolumeBackup", "full")["metadata"]["resourceVersion"]
    stored.store.trouble = trouble
    run_for(stored, HOUR)
    assert stored.get("VolumeBackup", "full")["metadata"]["resourceVersion"] == before
    assert stored.reason("BackupStore", "default") == trouble.reason
    stored.store.trouble = None
    run_for(stored, 5 * 60)
    assert stored.reason("BackupStore", "default") == "Answers"


@pytest.mark.parametrize(
    "trouble", [NO_SECRET, NO_BUCKET, StoreUnreachable("no answer")], ids=["Secret", "bucket", "endpoint"]
)
def test_a_deletion_waits_for_the_store_as_long_as_it_takes_and_then_ends_by_itself(
    stored: Simulation, trouble: CinderblockError
) -> None:
    stored.store.trouble = trouble
    stored.delete("VolumeBackup", "full")
    run_for(stored, HOUR)
    assert (stored.phase("VolumeBackup", "full"), stored.reason("VolumeBackup", "full")) == (
        "error_deleting",
        trouble.reason,
    )
    told = [count for reason, count in stored.events() if reason == trouble.reason]
    assert sum(told) <= 3, "told when it begins and when it is an error, and by the store itself; not every minute"
    stored.store.trouble = None
    stored.settle()
    assert (stored.phase("VolumeBackup", "full"), stored.stored()) == ("gone", [])


def test_an_endpoint_that_is_away_for_an_hour_ends_what_waits_for_it_and_hurts_nothing(stored: Simulation) -> None:
    stored.store.trouble = StoreUnreachable("no answer")
    stored.backup("next", "data")
    stored.restore("again", "full", volumeId="data")
    run_for(stored, HOUR)
    assert (stored.phase("VolumeBackup", "next"), stored.reason("VolumeBackup", "next")) == (
        "error",
        "StoreUnreachable",
    )
    assert stored.phase("VolumeRestore", "again") == "error_restoring"
    assert stored.content("data") == "second"
    stored.store.trouble = None
    stored.settle()
    assert summary(stored)["children"] == []
    assert stored.phase("VolumeBackup", "full") == "error_restoring", "the newest restore of it has failed"


def test_an_endpoint_that_goes_while_the_manifest_is_read_back_comes_back_in_time(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.store.trouble = StoreUnreachable("no answer")
    run_for(simulation, 4 * 60)
    assert simulation.phase("VolumeBackup", "full") == "creating"
    simulation.store.trouble = None
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


# -- the namespace


@pytest.mark.parametrize("store_answers", [True, False])
def test_a_namespace_goes_with_everything_in_it(stored: Simulation, store_answers: bool) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.restore("again", "full", name="new")
    stored.backup("running", "data")
    stored.until("VolumeBackup", "running", "MoverRunning")
    namespace = stored.get("Namespace", NAMESPACE)
    stored.objects.update(namespace, metadata=namespace["metadata"] | {"finalizers": ["kubernetes"]})
    stored.objects.delete(namespace)
    if not store_answers:
        stored.store.trouble = NO_SECRET
    for kind in ("BackupStore", "VolumeBackup", "VolumeRestore", "Job", "Pod", "VolumeSnapshot"):
        for item in stored.objects.all(kind, NAMESPACE):
            stored.objects.delete(item)
    for item in stored.objects.all("PersistentVolumeClaim", NAMESPACE):
        stored.objects.delete(item)
    stored.settle()
    kinds = ("BackupStore", "VolumeBackup", "VolumeRestore", "Job", "PersistentVolumeClaim", "VolumeSnapshot")
    assert [item["metadata"]["name"] for kind in kinds for item in stored.objects.all(kind)] == []
    assert (stored.stored() == []) == store_answers, "what cannot be asked about is left, never guessed"


# -- the operator


def test_who_deletes_while_no_operator_runs_is_served_when_one_does(stored: Simulation) -> None:
    stored.backup("child", "data", incremental=True)
    stored.settle()
    stored.delete("VolumeBackup", "full")
    stored.delete("VolumeBackup", "child")
    stored.advance(24 * HOUR)
    stored.restart()
    stored.settle()
    assert (stored.stored(), summary(stored)["phases"]) == ([], {})


def test_an_operator_that_was_uninstalled_first_leaves_data_and_no_object_that_hangs(stored: Simulation) -> None:
    for kind in ("VolumeBackup", "BackupStore"):
        for item in stored.objects.all(kind, NAMESPACE):
            stored.objects.update(item, metadata=item["metadata"] | {"finalizers": []})
    stored.delete("VolumeBackup", "full")
    stored.delete("BackupStore", "default")
    assert stored.phase("VolumeBackup", "full") == "gone"
    assert stored.stored() != []


@pytest.mark.parametrize("moment", ["SnapshotNotReady", "MoverPending", "MoverRunning"])
@pytest.mark.parametrize("again", [False, True], ids=["and gone", "and made again under its name"])
def test_a_backup_whose_finalizer_was_taken_off_by_force_leaves_no_child(
    simulation: Simulation, moment: str, again: bool
) -> None:
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


def tear_away(simulation: Simulation, restore: str) -> None:
    """Somebody removes a VolumeRestore by force."""
    simulation.delete("VolumeRestore", restore)
    simulation.objects.drop_finalizer(simulation.get("VolumeRestore", restore), labels.RESTORE_FINALIZER)


@pytest.mark.parametrize("away", [False, True], ids=["at once", "while no operator runs"])
@pytest.mark.parametrize(
    "moment",
    [
        "MoverRunning",
        "keeping the filled volume",
        "releasing the hidden claim",
        "reserving the volume",
        "creating claim",
    ],
)
def test_a_restore_whose_finalizer_was_taken_off_by_force_leaves_no_mover_and_no_volume(
    stored: Simulation, moment: str, away: bool
) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", moment)
    tear_away(stored, "again")
    if away:
        stored.restart()
    stored.settle()
    assert summary(stored)["children"] == []
    assert not stored.exists("PersistentVolumeClaim", "new")
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")]


def test_a_volume_that_somebody_takes_whose_restore_was_torn_away_is_theirs(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.until("VolumeRestore", "again", "reserving the volume")
    (volume,) = [item for item in stored.objects.all("PersistentVolume") if item["metadata"].get("labels")]
    stored.unbound_claim("new")
    claim = stored.get("PersistentVolumeClaim", "new")
    stored.objects.update(claim, spec=claim["spec"] | {"volumeName": volume["metadata"]["name"]})
    tear_away(stored, "again")
    stored.settle()
    assert stored.content("new") == "first"
    assert summary(stored)["volumes"] == [("Bound", "Delete", "")] * 2


def test_a_volume_that_a_claim_was_bound_to_is_kept_if_its_restore_was_torn_away(stored: Simulation) -> None:
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
    """A namespace that is deleted after so many steps of a restore; the operator dies at a write after that.

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


def test_a_namespace_that_goes_at_any_moment_of_a_restore_leaves_no_volume() -> None:
    steps, has_ended = 0, False
    while not has_ended:
        for at in (None, 0, 1, 2, 3, 5):
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
