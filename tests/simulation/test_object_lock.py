"""Stores with spec.objectLock: what the operator checks before, promises in the status, and waits for at the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.store.lock_probe import PROBE_NAME
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.real_movers import RealMovers
from tests.support.simulation.simulation import Simulation
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore

DAY = timedelta(days=1)
LOCK = {"mode": "COMPLIANCE", "period": "1d", "generation": "1d"}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A cluster with real movers, and a bucket that can lock."""
    with Simulation(cluster=RealMovers) as made:
        made.claim("data", "shop-one")
        use_bucket(made)
        yield made


def use_bucket(simulation: Simulation, **rules: Any) -> Bucket:
    bucket = Bucket(lambda: simulation.now, **({"versioning": "Enabled", "has_lock": True} | rules))
    simulation.cluster.store = BucketStore(bucket)
    set_spec(simulation, objectLock=LOCK)
    return bucket


def bucket_of(simulation: Simulation) -> Bucket:
    assert isinstance(simulation.cluster.store, BucketStore)
    return simulation.cluster.store.bucket


def set_spec(simulation: Simulation, **fields: Any) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | fields)


def back_up(simulation: Simulation, name: str, **spec: Any) -> dict[str, Any]:
    simulation.backup(name, "data", **spec)
    simulation.settle()
    status: dict[str, Any] = simulation.get("VolumeBackup", name)["status"]
    return status


def condition(simulation: Simulation, kind: str, name: str, wanted: str) -> dict[str, Any]:
    shown = simulation.get(kind, name)["status"]["conditions"]
    return next(dict(c) for c in shown if c["type"] == wanted)


def locked_until(status: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(status["lockedUntil"])


def wait(simulation: Simulation, until: datetime, name: str) -> None:
    while simulation.now < until and simulation.phase("VolumeBackup", name) != "gone":
        simulation.step()


def test_status_says_until_when_the_store_keeps_the_backup(simulation: Simulation) -> None:
    before = simulation.now
    status = back_up(simulation, "full")
    assert status["phase"] == "available"
    until = locked_until(status)
    assert before + 2 * DAY - timedelta(hours=1) <= until <= simulation.now + 2 * DAY
    manifest = bucket_of(simulation).current(status["manifestKey"])
    assert manifest is not None
    assert manifest.until == until
    assert condition(simulation, "BackupStore", "default", "Ready")["status"] == "True"


def test_incremental_extends_the_packs_of_its_parent(simulation: Simulation) -> None:
    first = locked_until(back_up(simulation, "full"))
    simulation.advance((1.5 * DAY).total_seconds())
    simulation.write("data", "shop-two")
    second = locked_until(back_up(simulation, "next", incremental=True))
    assert second > first
    packs = [v[-1] for key, v in bucket_of(simulation).versions.items() if "/packs/" in f"/{key}" and v[-1].until]
    assert packs
    assert all(pack.until is not None and pack.until >= second for pack in packs)


def test_deletion_waits_for_the_lock_although_it_would_only_hide(simulation: Simulation) -> None:
    until = locked_until(back_up(simulation, "full"))
    held = simulation.stored()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    found = condition(simulation, "VolumeBackup", "full", "Reconciling")
    assert found["reason"] == "Locked"
    assert f"until {until:%Y-%m-%dT%H:%M:%SZ}" in found["message"]
    assert simulation.stored() == held
    wait(simulation, until + timedelta(hours=2), "full")
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.now > until
    assert [key for key in simulation.stored() if not key.endswith(PROBE_NAME)] == []


def test_deletion_waits_after_the_setting_was_removed(simulation: Simulation) -> None:
    back_up(simulation, "full")
    set_spec(simulation, objectLock=None)
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert condition(simulation, "VolumeBackup", "full", "Reconciling")["reason"] == "Locked"


def test_expired_backup_waits_for_the_lock(simulation: Simulation) -> None:
    until = locked_until(back_up(simulation, "full"))
    simulation.expire("full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "deleting"
    assert condition(simulation, "VolumeBackup", "full", "Reconciling")["reason"] == "Locked"
    wait(simulation, until + timedelta(hours=2), "full")
    assert simulation.phase("VolumeBackup", "full") == "gone"


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"versioning": ""}, "no versioning"),
        ({"versioning": "Suspended"}, "no versioning"),
        ({"has_lock": False}, "no Object Lock"),
    ],
)
def test_bucket_without_locks_gets_no_backup(simulation: Simulation, rules: dict[str, Any], told: str) -> None:
    bucket = use_bucket(simulation, **rules)
    status = back_up(simulation, "full")
    assert status["phase"] == "error"
    assert condition(simulation, "VolumeBackup", "full", "Stalled")["reason"] == "ObjectLockUnavailable"
    ready = condition(simulation, "BackupStore", "default", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ObjectLockUnavailable")
    assert told in ready["message"]
    assert bucket.versions == {}


def test_missing_permission_to_see_locks_is_told(simulation: Simulation) -> None:
    assert isinstance(simulation.cluster.store, BucketStore)
    simulation.cluster.store.kept.shows_locks = False
    assert back_up(simulation, "full")["phase"] == "error"
    assert "s3:GetObjectRetention" in condition(simulation, "BackupStore", "default", "Ready")["message"]


def test_stored_backups_stay_usable_without_locks(simulation: Simulation) -> None:
    back_up(simulation, "full")
    bucket_of(simulation).has_lock = False
    simulation.restart()
    simulation.settle()
    assert condition(simulation, "BackupStore", "default", "Ready")["reason"] == "ObjectLockUnavailable"
    simulation.restore("back", "full")
    simulation.settle()
    assert simulation.phase("VolumeRestore", "back") == "available"


def test_lost_status_is_locked_again(simulation: Simulation) -> None:
    before = back_up(simulation, "full")["lockedUntil"]
    backup = simulation.get("VolumeBackup", "full")
    simulation.objects.update(backup, status={})
    simulation.settle()
    assert simulation.get("VolumeBackup", "full")["status"]["lockedUntil"] == before


def test_store_is_probed_rarely(simulation: Simulation) -> None:
    for number in range(4):
        back_up(simulation, f"b{number}")
    probes = bucket_of(simulation).versions[PROBE_NAME]
    assert len(probes) == 1
    assert simulation.objects.get("BackupStore", "default", NAMESPACE) is not None
