"""Deletions in buckets with versions and locks: what the operator waits for, and what it says at the end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.errors import AccessDenied, StoreUnreachable
from tests.support.simulation.cluster import NAMESPACE, WHOLE_PACK
from tests.support.simulation.simulation import Simulation
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.faults import Crash

PERIOD = timedelta(days=2)
LOCK = {"has_lock": True, "default": ("COMPLIANCE", PERIOD)}


def use_bucket(simulation: Simulation, **rules: Any) -> Bucket:
    """Keep the backups of a simulation in a bucket."""
    bucket = Bucket(lambda: simulation.now, **rules)
    simulation.cluster.store = BucketStore(bucket)
    return bucket


def delete_locked(simulation: Simulation, **rules: Any) -> Bucket:
    """Make a backup, delete it, and wait until nothing happens any more."""
    bucket = use_bucket(simulation, **(LOCK | rules))
    simulation.backup("full", "data")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    return bucket


def condition(simulation: Simulation) -> dict[str, Any]:
    (found,) = (c for c in simulation.get("VolumeBackup", "full")["status"]["conditions"] if c["type"] == "Reconciling")
    return dict(found)


def end_of(bucket: Bucket) -> datetime:
    return max(version.until for versions in bucket.versions.values() for version in versions if version.until)


def wait(simulation: Simulation, until: datetime) -> None:
    while simulation.now < until and simulation.phase("VolumeBackup", "full") != "gone":
        simulation.step()


def test_deletion_waits_for_the_lock_and_says_until_when(simulation: Simulation) -> None:
    bucket = delete_locked(simulation)
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    found = condition(simulation)
    manifest = next(version for key, (version,) in bucket.versions.items() if key.startswith("backups/"))
    assert found["reason"] == "Locked"
    assert f"until {manifest.until:%Y-%m-%dT%H:%M:%SZ}. Nothing was deleted." in found["message"]
    assert len(simulation.stored()) == len(bucket.versions)
    assert [event for event in simulation.events() if event[0] in ("Locked", "AccessDenied")] == [("Locked", 1)]


def test_deletion_ends_soon_after_the_date(simulation: Simulation) -> None:
    bucket = delete_locked(simulation)
    end = end_of(bucket)
    wait(simulation, end)
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    assert len(simulation.stored()) == len(bucket.versions)
    wait(simulation, end + timedelta(minutes=5))
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.stored() == []
    assert ("Deleted", 1) in simulation.events()
    assert "error_deleting" not in simulation.story()


def test_waiting_deletion_asks_rarely_and_writes_nothing(simulation: Simulation) -> None:
    delete_locked(simulation)
    version = simulation.get("VolumeBackup", "full")["metadata"]["resourceVersion"]
    simulation.store.asked.clear()
    wait(simulation, simulation.now + timedelta(hours=12))
    assert simulation.get("VolumeBackup", "full")["metadata"]["resourceVersion"] == version
    assert sum(simulation.store.asked.values()) <= 12 * 8


def test_restart_during_the_wait_changes_nothing(simulation: Simulation) -> None:
    bucket = delete_locked(simulation)
    before = condition(simulation)
    simulation.restart()
    simulation.settle()
    assert condition(simulation) == before
    wait(simulation, end_of(bucket) + timedelta(hours=2))
    assert simulation.phase("VolumeBackup", "full") == "gone"


def test_legal_hold_is_a_wait_without_a_date(simulation: Simulation) -> None:
    bucket = use_bucket(simulation, has_lock=True)
    simulation.backup("full", "data")
    simulation.settle()
    (pack,) = (versions[0] for key, versions in bucket.versions.items() if key.startswith("packs/"))
    pack.legal_hold = True
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    assert "legal hold" in condition(simulation)["message"]
    assert len(simulation.stored()) == len(bucket.versions)
    pack.legal_hold = False
    wait(simulation, simulation.now + timedelta(hours=1, minutes=5))
    assert simulation.phase("VolumeBackup", "full") == "gone"


def test_invisible_lock_is_a_slow_wait_too(simulation: Simulation) -> None:
    bucket = use_bucket(simulation, **LOCK)
    store = simulation.cluster.store
    assert isinstance(store, BucketStore)
    store.kept.shows_locks = False
    simulation.backup("full", "data")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), condition(simulation)["reason"]) == ("deleting", "Locked")
    wait(simulation, end_of(bucket) + timedelta(hours=1, minutes=5))
    assert simulation.phase("VolumeBackup", "full") == "gone"


def test_failed_backup_with_locked_packs_waits(simulation: Simulation) -> None:
    bucket = use_bucket(simulation, **LOCK)
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    volume = simulation.get("PersistentVolumeClaim", "data")["metadata"]["uid"]
    bucket.put(f"packs/{volume}/{uid}/{WHOLE_PACK}", b"begun")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), condition(simulation)["reason"]) == ("deleting", "Locked")
    assert "until" in condition(simulation)["message"]
    wait(simulation, end_of(bucket) + timedelta(hours=1))
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.stored() == []


def test_annotation_ends_the_wait_and_leaves_the_data(simulation: Simulation) -> None:
    bucket = delete_locked(simulation)
    assert "leave-data" in condition(simulation)["message"]
    full = simulation.get("VolumeBackup", "full")
    given_up = full["metadata"] | {"annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}
    simulation.objects.update(full, metadata=given_up)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert len(simulation.stored()) == len(bucket.versions)
    assert ("DataLeft", 1) in simulation.events()


def test_locked_deletion_triggers_no_alert_and_holds_up_nobody(simulation: Simulation) -> None:
    delete_locked(simulation)
    simulation.backup("next", "data")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "next") == "available"
    assert simulation.metrics().value("oldest_pending_operation_age_seconds", operation="delete") == 0


def note(simulation: Simulation, reason: str) -> str:
    return next(str(event["note"]) for event in simulation.objects.all("Event") if event["reason"] == reason)


def test_deletion_in_a_versioned_bucket_says_that_data_is_hidden(simulation: Simulation) -> None:
    bucket = delete_locked(simulation, versioning="Enabled")
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.stored() == []
    kept = [version for versions in bucket.versions.values() for version in versions if not version.is_marker]
    assert f"its data is hidden. {len(kept)} versions remain in the store" in note(simulation, "Hidden")
    assert not [event for event in simulation.events() if event[0] in ("Deleted", "Locked")]


def test_without_permissions_versions_are_not_counted(simulation: Simulation) -> None:
    use_bucket(simulation, versioning="Enabled")
    store = simulation.cluster.store
    assert isinstance(store, BucketStore)
    store.kept.errors = dict.fromkeys(("versions", "versioning"), AccessDenied("no"))
    simulation.backup("full", "data")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert "cannot be counted: the credentials lack a permission. Allow s3:ListBucketVersions" in note(
        simulation, "Hidden"
    )


def test_server_without_an_answer_about_versions_holds_up_no_deletion(simulation: Simulation) -> None:
    use_bucket(simulation)
    store = simulation.cluster.store
    assert isinstance(store, BucketStore)
    simulation.backup("full", "data")
    simulation.settle()
    store.kept.errors = dict.fromkeys(("versions", "versioning"), StoreUnreachable("no answer"))
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"


@pytest.mark.parametrize("versioning", ["", "Enabled"], ids=["locked", "hidden"])
def test_death_at_any_write_of_a_deletion_ends_the_same(versioning: str) -> None:
    deaths = 0
    for done in (False, True):
        for at in range(40):
            with Simulation() as simulation:
                simulation.claim("data", "first")
                bucket = use_bucket(
                    simulation, versioning=versioning, has_lock=True, default=("COMPLIANCE", timedelta(hours=2))
                )
                simulation.backup("full", "data")
                simulation.settle()
                held = len(bucket.versions)
                simulation.delete("VolumeBackup", "full")
                simulation.faults.plan(at, Crash("scripted"), done=done)
                simulation.settle()
                if simulation.faults.at is not None:
                    break
                deaths += 1
                if not versioning:
                    assert condition(simulation)["reason"] == "Locked"
                    assert len(simulation.stored()) == held
                    wait(simulation, end_of(bucket) + timedelta(hours=1))
                assert simulation.phase("VolumeBackup", "full") == "gone"
                assert simulation.stored() == []
    assert deaths >= 2


def test_store_shows_the_rules_of_its_bucket(simulation: Simulation) -> None:
    use_bucket(simulation, versioning="Enabled", **LOCK)
    simulation.backup("full", "data")
    simulation.settle()
    found = simulation.objects.get("BackupStore", "default", NAMESPACE)
    assert found is not None
    shown = {c["type"]: (c["status"], c["reason"]) for c in found["status"]["conditions"]}
    assert shown == {
        "Ready": ("True", "Answers"),
        "Versioned": ("True", "VersionsKept"),
        "ObjectLock": ("True", "DefaultRetention"),
        "HarmfulLifecycle": ("False", "NoHarmfulRule"),
    }
