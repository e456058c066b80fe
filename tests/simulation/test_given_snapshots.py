"""Backups of a VolumeSnapshot of the user's.

Cinder: cinder/backup/api.py ``API.create``. The snapshot must be of the volume and available; a volume in use needs no
force; data_timestamp is the snapshot's; the parent of an incremental one is the latest backup that is older than it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.simulation.api import Object, stamp
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary

NOT_AVAILABLE = "Invalid snapshot: Snapshot to be backed up must be available, but the current status is"
MISMATCH = "Invalid volume: Volume data does not match with snapshot.volume_id"


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "first")
        running.advance(60)
        yield running


def snapshot(simulation: Simulation, name: str = "mine", claim: str = "data", **status: Any) -> Object:
    """A VolumeSnapshot that somebody has made; with a status: one that is not as a driver has left it."""
    spec = {"source": {"persistentVolumeClaimName": claim}, "volumeSnapshotClassName": "snap"}
    made = simulation.make("VolumeSnapshot", {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
    if status:
        simulation.objects.update(made, status=status)
    else:
        (move,) = [move for move in simulation.cluster.moves() if move.name == f"take VolumeSnapshot {name}"]
        simulation.move(move)
    simulation.advance(60)
    return made


def status(simulation: Simulation, name: str) -> dict[str, Any]:
    simulation.settle()
    found: dict[str, Any] = simulation.get("VolumeBackup", name)["status"]
    return found


def test_what_the_snapshot_holds_is_kept_and_the_snapshot_stays(simulation: Simulation) -> None:
    uid = snapshot(simulation)["metadata"]["uid"]
    simulation.write("data", "second")
    simulation.backup("full", "data", snapshotId="mine")
    assert (status(simulation, "full")["phase"], status(simulation, "full")["snapshotId"]) == ("available", uid)
    assert simulation.kept("full") == "first"
    assert summary(simulation)["children"] == ["mine"]


def test_a_snapshot_may_be_named_by_its_uid(simulation: Simulation) -> None:
    simulation.backup("full", "data", snapshotId=snapshot(simulation)["metadata"]["uid"])
    assert status(simulation, "full")["phase"] == "available"


def test_a_volume_in_use_needs_no_force(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.pod("web", "data")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_no_class_is_needed_where_no_snapshot_is_made(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.objects.update(simulation.get("VolumeSnapshotClass", "snap"), deletionPolicy="Retain")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_the_data_is_as_old_as_the_snapshot_and_without_one_as_the_request(simulation: Simulation) -> None:
    taken = snapshot(simulation)["status"]["creationTime"]
    simulation.backup("of-snapshot", "data", snapshotId="mine")
    assert instant(status(simulation, "of-snapshot")["dataTimestamp"]) == instant(taken)
    simulation.objects.delete(simulation.get("VolumeSnapshotClass", "snap"))
    asked = simulation.backup("of-volume", "data")["metadata"]["creationTimestamp"]
    assert instant(status(simulation, "of-volume")["dataTimestamp"]) == instant(asked)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_parent_is_the_latest_backup_that_is_older_than_the_snapshot(simulation: Simulation) -> None:
    simulation.backup("at-eight", "data")
    parent = status(simulation, "at-eight")["id"]
    simulation.advance(600)
    snapshot(simulation)
    simulation.advance(600)
    simulation.backup("at-twenty-past", "data")
    simulation.settle()
    simulation.backup("child", "data", snapshotId="mine", incremental=True)
    assert status(simulation, "child")["parentId"] == parent


def test_a_snapshot_that_is_older_than_every_backup_has_no_parent(simulation: Simulation) -> None:
    """Cinder takes a younger one by accident of its sorting; a child is never older than its parent here."""
    snapshot(simulation)
    simulation.backup("full", "data")
    simulation.settle()
    simulation.backup("child", "data", snapshotId="mine", incremental=True)
    assert status(simulation, "child")["failReason"] == (
        "Invalid backup: No backups available to do an incremental backup."
    )


def test_a_snapshot_of_another_volume_is_refused(simulation: Simulation) -> None:
    simulation.claim("other", "theirs")
    snapshot(simulation, claim="other")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["failReason"] == f"{MISMATCH} other."


def test_a_snapshot_of_an_earlier_volume_of_the_same_name_is_refused(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    simulation.claim("data", "of a new shop")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["failReason"].startswith(MISMATCH)
    assert "of an earlier volume of that name" in status(simulation, "full")["failReason"]


@pytest.mark.parametrize("part", ["metadata", "status"])
def test_one_clock_alone_makes_no_snapshot_anothers(simulation: Simulation, part: str) -> None:
    """The array's clock is slow; or the snapshot was applied before its claim, and has waited for it."""
    made = snapshot(simulation)
    early = stamp(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    key = "creationTimestamp" if part == "metadata" else "creationTime"
    simulation.objects.update(made, **{part: made[part] | {key: early}})
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_a_snapshot_that_failed_is_refused_at_once(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False, error={"message": "the array is busy"})
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", "SnapshotNotAvailable")
    assert simulation.get("VolumeBackup", "full")["status"]["failReason"] == f'{NOT_AVAILABLE} "error".'


def test_a_snapshot_that_is_being_made_is_waited_for(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False)
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", f'SnapshotNotAvailable: {NOT_AVAILABLE} "creating". (until 2026-')
    assert status(simulation, "full")["phase"] == "available"
    assert simulation.kept("full") == "first"


def test_a_snapshot_that_is_never_ready_ends_the_backup_and_has_held_up_nobody(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False)
    moves = simulation.cluster.moves
    simulation.cluster.moves = lambda: [m for m in moves() if "mine" not in m.name]  # type: ignore[method-assign]
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", "SnapshotNotAvailable")
    simulation.advance(1)
    simulation.backup("other", "data")
    simulation.until("VolumeBackup", "other", "Available")
    assert status(simulation, "full")["failReason"] == f'{NOT_AVAILABLE} "creating". (waited 1800 s)'


def test_a_snapshot_that_does_not_exist_is_refused(simulation: Simulation) -> None:
    simulation.backup("full", "data", snapshotId="nowhere")
    assert status(simulation, "full")["failReason"] == "Snapshot nowhere could not be found."
