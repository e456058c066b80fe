"""BackupStores with spec.access ReadOnly: nothing in the bucket changes, and everything says why."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from cinderblock.api.mover import MoverReport
from cinderblock.errors import StoreUnreachable
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn

CRASHES = 14
"""More writes than a deletion takes that waits for the access, and ends."""


def set_access(simulation: Simulation, access: str) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"access": access})


def read_only(simulation: Simulation) -> Simulation:
    """Make a full and an incremental backup, and make their store read-only."""
    simulation.backup("full", "data")
    simulation.settle()
    simulation.write("data", "second")
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    set_access(simulation, "ReadOnly")
    simulation.settle()
    return simulation


def message(item: Object, kind: str) -> str:
    return str(next(c["message"] for c in item["status"]["conditions"] if c["type"] == kind))


def test_new_backup_fails_at_once_and_touches_nothing(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    simulation.backup("late", "data", force=True)
    simulation.settle()
    late = simulation.get("VolumeBackup", "late")
    assert (late["status"]["phase"], simulation.reason("VolumeBackup", "late")) == ("error", "StoreReadOnly")
    assert "BackupStore default is read-only" in late["status"]["failReason"]
    assert "Set its spec.access to ReadWrite" in late["status"]["failReason"]
    assert simulation.objects.all("VolumeSnapshot") == []
    assert simulation.objects.all("Job") == []
    assert not late["metadata"].get("finalizers")
    assert simulation.stored() == stored
    simulation.delete("VolumeBackup", "late")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "late")


def test_new_backup_fails_although_store_and_volume_are_not_ready(simulation: Simulation) -> None:
    read_only(simulation)
    simulation.store.error = StoreUnreachable("The store does not answer")
    simulation.unbound_claim("pending")
    simulation.backup("late", "pending")
    while simulation.phase("VolumeBackup", "late") != "error":
        simulation.step()
    assert simulation.reason("VolumeBackup", "late") == "StoreReadOnly"


def test_ready_and_status_show_the_access(simulation: Simulation) -> None:
    read_only(simulation)
    store = simulation.get("BackupStore", "default")
    ready = next(c for c in store["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Answers")
    assert "read-only" in ready["message"]
    assert store["status"]["access"] == "ReadOnly"
    set_access(simulation, "ReadWrite")
    simulation.settle()
    assert "read-only" not in message(simulation.get("BackupStore", "default"), "Ready")
    assert simulation.get("BackupStore", "default")["status"]["access"] == "ReadWrite"


@pytest.mark.parametrize("level", ["Structure", "Data"])
def test_restores_imports_and_verifications_work_as_before(simulation: Simulation, level: str) -> None:
    stored = read_only(simulation).stored()
    simulation.restore("back", "child", name="new")
    simulation.verify("proof", level, backupId="child")
    simulation.settle()
    assert simulation.content("new") == "second"
    assert simulation.phase("BackupVerification", "proof") == "verified"
    backup_id = simulation.get("VolumeBackup", "child")["status"]["id"]
    simulation.remove_by_force("child")
    simulation.import_backup("again", backup_id, deletionPolicy="Retain")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "available"
    simulation.delete("VolumeBackup", "again")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "again")
    assert simulation.stored() == stored


def test_deletion_waits_and_continues_when_the_access_changes(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    for name in ("child", "full"):
        simulation.delete("VolumeBackup", name)
    simulation.settle()
    assert simulation.reason("VolumeBackup", "child") == "StoreReadOnly"
    assert simulation.phase("VolumeBackup", "child") == "deleting"
    assert simulation.reason("VolumeBackup", "full") == "HasDependentBackups"
    assert "let-go=leave-data" in message(simulation.get("VolumeBackup", "child"), "Reconciling")
    assert simulation.stored() == stored
    before = simulation.now
    set_access(simulation, "ReadWrite")
    while simulation.exists("VolumeBackup", "full"):
        simulation.step()
    assert simulation.now - before < timedelta(minutes=3), "the change of the store is noticed"
    assert simulation.stored() == []


def test_waiting_deletion_asks_rarely(simulation: Simulation) -> None:
    read_only(simulation)
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    version = simulation.get("VolumeBackup", "child")["metadata"]["resourceVersion"]
    simulation.store.asked.clear()
    end = simulation.now + timedelta(hours=6)
    while simulation.now < end:
        simulation.step()
    assert simulation.get("VolumeBackup", "child")["metadata"]["resourceVersion"] == version
    assert sum(simulation.store.asked.values()) <= 6 * 4


def test_retained_backup_goes_and_its_data_stays(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    backup = simulation.get("VolumeBackup", "child")
    simulation.objects.update(backup, spec=backup["spec"] | {"deletionPolicy": "Retain"})
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "child")
    assert ("Retained", 1) in simulation.events()
    assert simulation.stored() == stored


def test_policy_that_changes_during_the_wait_ends_it(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    backup = simulation.get("VolumeBackup", "child")
    simulation.objects.update(backup, spec=backup["spec"] | {"deletionPolicy": "Retain"})
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "child")
    assert simulation.stored() == stored


def test_expired_backup_waits_as_well(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    simulation.expire("full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "StoreReadOnly"
    assert simulation.stored() == stored
    set_access(simulation, "ReadWrite")
    while simulation.exists("VolumeBackup", "full"):
        simulation.step()
    assert simulation.phase("VolumeBackup", "child") == "available"


def test_namespace_in_deletion_is_not_held_up(simulation: Simulation) -> None:
    stored = read_only(simulation).stored()
    namespace = simulation.objects.get("Namespace", NAMESPACE)
    assert namespace is not None
    ends = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes"]}
    simulation.objects.update(namespace, metadata=namespace["metadata"] | ends)
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "child")
    assert simulation.stored() == stored


def test_running_mover_ends_when_the_access_changes(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    set_access(simulation, "ReadOnly")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_mover_that_is_refused_fails_with_the_reason(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    set_access(simulation, "ReadOnly")
    simulation.end_mover(MoverReport(succeeded=False, permanent=True, reason="StoreReadOnly", message="read-only"))
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "StoreReadOnly",
    )


def test_backup_that_waits_for_its_snapshot_starts_no_mover(simulation: Simulation) -> None:
    simulation.pod("web", "data")
    simulation.backup("full", "data", force=True)
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    set_access(simulation, "ReadOnly")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "StoreReadOnly"
    assert [simulation.objects.all(kind) for kind in ("Job", "VolumeSnapshot")] == [[], []]
    assert simulation.stored() == []
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full"), "nothing was stored"


def outcome(simulation: Simulation) -> dict[str, Any]:
    return {
        "reasons": [simulation.reason("VolumeBackup", name) for name in ("full", "child", "late")],
        "phases": [simulation.phase("VolumeBackup", name) for name in ("full", "child", "late")],
        "stored": simulation.stored(),
    }


def use(simulation: Simulation) -> None:
    """Delete one backup and make another one in a store that is read-only."""
    simulation.delete("VolumeBackup", "child")
    simulation.backup("late", "data")
    simulation.settle()


@cache
def undisturbed_outcome() -> dict[str, Any]:
    """Return the outcome without a crash, with which each crash is compared."""
    with Simulation() as undisturbed:
        undisturbed.claim("data", "first")
        use(read_only(undisturbed))
        return outcome(undisturbed)


@pytest.mark.parametrize(("at", "done"), pairs_in_turn(range(CRASHES), [False, True]))
def test_crash_at_any_write_changes_nothing(at: int, done: bool) -> None:
    expected = undisturbed_outcome()
    with Simulation() as simulation:
        simulation.claim("data", "first")
        read_only(simulation)
        simulation.faults.plan(at, Crash(), done=done)
        use(simulation)
        found = outcome(simulation)
        assert found["reasons"] == expected["reasons"] == ["Available", "StoreReadOnly", "StoreReadOnly"]
        assert found["phases"] == expected["phases"]
        assert len(found["stored"]) == len(expected["stored"])
        set_access(simulation, "ReadWrite")
        simulation.settle()
        assert not simulation.exists("VolumeBackup", "child")
        assert simulation.phase("VolumeBackup", "full") == "available"
