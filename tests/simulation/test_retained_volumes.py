"""A StorageClass with the reclaim policy Retain: temporary volumes go, and volumes of users keep the policy.

Each fault happens at every write in turn. An undisturbed run counts the writes.
"""

from __future__ import annotations

import pytest

from cinderblock.api import labels as api_labels
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import DRIVER, KEPT, NAMESPACE, PROTECTION
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation
from tests.support.store.faults import Crash


def volumes(simulation: Simulation) -> list[tuple[str, str, str]]:
    """Return phase, reclaim policy and claim of all PersistentVolumes."""
    found = simulation.objects.all("PersistentVolume")
    return sorted(
        (item["status"]["phase"], item["spec"]["persistentVolumeReclaimPolicy"], item["spec"]["claimRef"]["name"])
        for item in found
    )


def backed_up(simulation: Simulation) -> None:
    """Create a volume of the class, and a backup of it."""
    simulation.claim("data", "first", KEPT)
    simulation.backup("full", "data")
    simulation.settle()


def backup(crash_at: int | None = None, *, done: bool = False) -> tuple[Simulation, int]:
    """Make a backup, and crash at a write. Return the simulation and the number of writes."""
    with Simulation() as simulation:
        simulation.claim("data", "first", KEPT)
        if crash_at is not None:
            simulation.faults.plan(crash_at, Crash("scripted"), done=done)
        simulation.backup("full", "data")
        simulation.settle()
    return simulation, simulation.faults.writes


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_backup_leaves_no_volume_whenever_the_operator_dies(*, done: bool) -> None:
    for crash_at in (None, *range(backup()[1])):
        simulation, _ = backup(crash_at, done=done)
        assert simulation.phase("VolumeBackup", "full") == "available"
        assert volumes(simulation) == [("Bound", "Retain", "data")], f"write {crash_at}\n{simulation.story()}"


def cancel_restore(steps: int, crash_at: int | None) -> tuple[Simulation, bool]:
    """Delete a restore after some steps, and crash at a later write. Return whether it had ended before."""
    with Simulation() as simulation:
        backed_up(simulation)
        simulation.restore("again", "full", name="new")
        for _ in range(steps):
            simulation.step()
        has_ended = simulation.phase("VolumeRestore", "again") == "available"
        if crash_at is not None:
            simulation.faults.plan(crash_at, Crash("scripted"), done=crash_at % 2 == 0)
        simulation.delete("VolumeRestore", "again")
        simulation.settle()
    return simulation, has_ended


@some_or_all_moments
def test_cancelled_restore_leaves_no_volume_at_any_step(moments: Moments) -> None:
    has_ended, steps = False, 0
    while not has_ended:
        for crash_at in moments(steps, (0, 1, 2)):
            simulation, has_ended = cancel_restore(steps, crash_at)
            claims = {item["metadata"]["name"] for item in simulation.objects.all("PersistentVolumeClaim")}
            expected = [("Bound", "Retain", name) for name in sorted(claims)]
            assert volumes(simulation) == expected, f"step {steps}, write {crash_at}\n{simulation.story()}"
        steps += 1
    assert steps > 10


def test_deleted_backup_leaves_no_volume() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first", KEPT)
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        simulation.delete("VolumeBackup", "full")
        simulation.settle()
    assert volumes(simulation) == [("Bound", "Retain", "data")]


def test_failed_restore_leaves_no_volume() -> None:
    with Simulation() as simulation:
        backed_up(simulation)
        simulation.restore("again", "full", name="new")
        simulation.until("VolumeRestore", "again", "MoverRunning")
        simulation.end_mover(None, code=3)
        simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "error_restoring"
    assert volumes(simulation) == [("Bound", "Retain", "data")]


def test_restored_volume_keeps_the_policy_of_its_class() -> None:
    with Simulation() as simulation:
        backed_up(simulation)
        simulation.restore("again", "full", name="new")
        simulation.settle()
        assert volumes(simulation) == [("Bound", "Retain", "data"), ("Bound", "Retain", "new")]
        simulation.delete("VolumeRestore", "again")
        simulation.delete("PersistentVolumeClaim", "new")
        simulation.settle()
    assert ("Released", "Retain", "new") in volumes(simulation), "it is the user's"


def administrators_volume(simulation: Simulation, claim: Object) -> None:
    """Bind a claim to a volume that existed before it, as the volume controller does."""
    spec = {
        "csi": {"driver": DRIVER},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": KEPT,
        "claimRef": {"namespace": NAMESPACE, "name": claim["metadata"]["name"]},
    }
    volume = simulation.make("PersistentVolume", {"metadata": {"name": "pv-theirs"}, "spec": spec})
    simulation.cluster.contents["pv-theirs"] = "of an administrator"
    simulation.cluster._bind(claim, volume)


@pytest.mark.parametrize("until", ["MoverRunning", "releas"], ids=["copying", "marked"])
def test_volume_of_an_administrator_keeps_its_policy(until: str) -> None:
    with Simulation() as simulation:
        backed_up(simulation)
        simulation.restore("again", "full", name="new")
        staging = api_labels.child_name(simulation.get("VolumeRestore", "again")["metadata"]["uid"])
        while not simulation.exists("PersistentVolumeClaim", staging):
            simulation.step()
        administrators_volume(simulation, simulation.get("PersistentVolumeClaim", staging))
        simulation.until("VolumeRestore", "again", until)
        simulation.delete("VolumeRestore", "again")
        simulation.settle()
    theirs = simulation.get("PersistentVolume", "pv-theirs")
    assert theirs["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_labels_of_a_user_do_not_delay_the_release() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        restore = simulation.restore("again", "full", name="new")
        uid = restore["metadata"]["uid"]
        while simulation.phase("VolumeRestore", "again") != "available":
            simulation.step()
        claim = simulation.get("PersistentVolumeClaim", "new")
        owner = {"kind": "VolumeRestore", "name": "again", "uid": uid}
        forged = {"labels": {api_labels.OWNER_UID_LABEL: uid}, "ownerReferences": [owner]}
        simulation.objects.update(claim, metadata=claim["metadata"] | forged)
        simulation.reconcile(simulation.due()[0])
        assert ("Bound", "Delete", "new") in volumes(simulation), "it is not held back with Retain"
        simulation.settle()
    assert simulation.phase("VolumeRestore", "again") == "available"


@pytest.mark.parametrize("kind", ["VolumeBackup", "VolumeRestore"])
def test_temporary_volume_goes_even_if_its_claim_is_deleted_first(kind: str) -> None:
    with Simulation() as simulation:
        backed_up(simulation)
        if kind == "VolumeBackup":
            operation = simulation.backup("again", "data")
        else:
            operation = simulation.restore("again", "full", name="new")
        while not simulation.objects.all("Job"):
            simulation.step()
        child = api_labels.child_name(operation["metadata"]["uid"])
        assert ("Bound", "Delete", child) in volumes(simulation)
        simulation.delete("PersistentVolumeClaim", child)
        simulation.objects.drop_finalizer(simulation.get("PersistentVolumeClaim", child), PROTECTION)
        simulation.delete(kind, "again")
        simulation.settle()
    assert volumes(simulation) == [("Bound", "Retain", "data")]
