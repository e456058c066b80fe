"""spec.copies into a BackupStore with spec.objectLock: copies are locked as that store asks, and stay locked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.errors import AccessDenied, ObjectLocked
from tests.simulation.test_copies import (
    COPIED,
    back_up,
    condition,
    configure,
    copies_of,
    jobs,
    lose_primary,
    numbers,
    run,
    started,
    store_status,
    stored_in,
)
from tests.support.simulation.real_movers import RealMovers
from tests.support.simulation.simulation import Simulation
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.faults import FaultyStore

DAY = timedelta(days=1)
LOCK = {"mode": "COMPLIANCE", "period": "2d", "generation": "1d"}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A cluster with real movers and a bucket that can lock. Only the second store asks for locks."""
    with started() as made:
        use_bucket(made)
        configure(made, "offsite", objectLock=LOCK)
        yield made


def use_bucket(simulation: Simulation, **rules: Any) -> None:
    bucket = Bucket(lambda: simulation.now, **({"versioning": "Enabled", "has_lock": True} | rules))
    simulation.cluster.store = BucketStore(bucket)


def bucket_of(simulation: Simulation) -> Bucket:
    assert isinstance(simulation.cluster.store, BucketStore)
    return simulation.cluster.store.bucket


def recorded(simulation: Simulation, name: str) -> datetime | None:
    (copy,) = copies_of(simulation, name)
    return datetime.fromisoformat(copy["lockedUntil"]) if "lockedUntil" in copy else None


def ends(simulation: Simulation, part: str) -> set[datetime | None]:
    """Return the ends of the locks of objects in the second store."""
    versions = bucket_of(simulation).versions.items()
    return {v[-1].until for key, v in versions if key.startswith(f"off/site/{part}") and not v[-1].is_marker}


def kept_until(simulation: Simulation) -> datetime:
    """Return the earliest time at which somebody could delete a pack or a manifest of the second store."""
    found = ends(simulation, "packs/") | ends(simulation, "backups/")
    return min(end or simulation.now for end in found)


def test_copies_are_locked_as_their_store_asks(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    before = simulation.now
    back_up(simulation, "full", "child")
    assert condition(simulation) == ("True", "Copied")
    for name in ("full", "child"):
        until = recorded(simulation, name)
        assert until is not None
        assert before + 3 * DAY <= until <= simulation.now + 3 * DAY
        assert "lockedUntil" not in simulation.get("VolumeBackup", name)["status"]
    assert {recorded(simulation, "full"), recorded(simulation, "child")} == ends(simulation, "backups/")
    assert None not in ends(simulation, "packs/")
    own = [v[-1].until for key, v in bucket_of(simulation).versions.items() if key.startswith(("packs/", "backups/"))]
    assert not any(own)


def test_lock_is_renewed_while_the_backup_exists(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    back_up(simulation, "full", "child")
    for _ in range(6):
        simulation.advance(DAY.total_seconds())
        run(simulation, 5)
        assert condition(simulation) == ("True", "Copied")
        # At any time, somebody who wants to delete a copy has to wait for the whole period.
        assert kept_until(simulation) >= simulation.now + 2 * DAY
        assert recorded(simulation, "full") in ends(simulation, "backups/")
    manifest = simulation.get("VolumeBackup", "child")["status"]["manifestKey"]
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    last = bucket_of(simulation).current(manifest.replace("backups/", "off/site/backups/"))
    assert last is not None
    before = last.until
    simulation.advance(2 * DAY.total_seconds())
    run(simulation, 5)
    assert last.until == before
    assert recorded(simulation, "full") != before


def test_copies_from_before_the_setting_are_locked_soon(simulation: Simulation) -> None:
    configure(simulation, "offsite", objectLock=None)
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    assert ends(simulation, "") == {None}
    assert condition(simulation) == ("True", "Copied")
    configure(simulation, "offsite", objectLock=LOCK)
    run(simulation, 3)
    assert condition(simulation) == ("False", "Copying")
    run(simulation, 70)
    assert condition(simulation) == ("True", "Copied")
    assert None not in ends(simulation, "backups/") | ends(simulation, "packs/")


def test_lock_that_has_ended_makes_the_copy_late(simulation: Simulation) -> None:
    target = FaultyStore(simulation.cluster.store)
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    assert isinstance(simulation.cluster, RealMovers)
    simulation.cluster.copies = target
    target.on("lock").raises(AccessDenied("refused")).times(float("inf"))
    simulation.advance(5 * DAY.total_seconds())
    run(simulation, 10)
    assert numbers(simulation) == (0, 1, 1)
    assert condition(simulation) == ("False", "CopiesLate")
    (copy,) = copies_of(simulation, "full")
    assert store_status(simulation)["copyTargets"][0]["unlocked"] == 1
    assert copy["failReason"].startswith("LockNotExtended: ")
    assert copy["time"]
    simulation.cluster.copies = None
    run(simulation, 70)
    assert condition(simulation) == ("True", "Copied")


@pytest.mark.parametrize("rules", [{"versioning": ""}, {"has_lock": False}])
def test_target_that_cannot_lock_gets_no_copies(simulation: Simulation, rules: dict[str, Any]) -> None:
    use_bucket(simulation, **rules)
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    run(simulation, 5)
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert condition(simulation) == ("False", "ObjectLockUnavailable")
    assert not jobs(simulation)
    assert not stored_in(simulation, "off/site/")
    bucket = bucket_of(simulation)
    bucket.versioning, bucket.has_lock = "Enabled", True
    # The operator remembers for five minutes that the bucket could not lock.
    simulation.restart()
    run(simulation, 30)
    assert condition(simulation) == ("True", "Copied")
    assert None not in ends(simulation, "backups/")


def test_locked_object_in_the_target_is_waited_for(simulation: Simulation) -> None:
    target = FaultyStore(simulation.cluster.store)
    target.on("put", "off/site").raises(ObjectLocked("Cannot replace a pack: it is locked.")).times(float("inf"))
    assert isinstance(simulation.cluster, RealMovers)
    simulation.cluster.copies = target
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    run(simulation, 5)
    assert numbers(simulation) == (0, 1, 0)
    assert condition(simulation) == ("False", "Copying")
    assert copies_of(simulation, "full")[0]["failReason"].startswith("Locked: ")
    (known,) = store_status(simulation)["copyTargets"]
    assert known.get("failures", 0) == 0
    simulation.cluster.copies = None
    run(simulation, 70)
    assert condition(simulation) == ("True", "Copied")


def test_imported_copy_has_the_lock_that_its_store_tells(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    until, backup_id = recorded(simulation, "full"), simulation.get("VolumeBackup", "full")["status"]["id"]
    lose_primary(simulation)
    simulation.import_backup("again", backup_id, storeName="offsite")
    simulation.settle()
    assert datetime.fromisoformat(simulation.get("VolumeBackup", "again")["status"]["lockedUntil"]) == until


def test_incremental_on_an_imported_copy_locks_what_it_needs(simulation: Simulation) -> None:
    configure(simulation, objectLock=LOCK | {"period": "300d"})
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    backup_id = simulation.get("VolumeBackup", "full")["status"]["id"]
    lose_primary(simulation)
    simulation.import_backup("again", backup_id, storeName="offsite")
    simulation.settle()
    configure(simulation, "offsite", objectLock=LOCK | {"period": "5d"})
    simulation.write("data", "shop-next")
    simulation.backup("next", "data", incremental=True, storeName="offsite")
    simulation.settle()
    status = simulation.get("VolumeBackup", "next")["status"]
    assert (status["phase"], status["isIncremental"]) == ("available", True)
    until = datetime.fromisoformat(status["lockedUntil"])
    assert until >= simulation.now + 5 * DAY
    assert all(end is None or end >= until for end in ends(simulation, "packs/"))
