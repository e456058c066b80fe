"""Backups of a VolumeSnapshot that the user created.

The rules are Cinder's (cinder/backup/api.py ``API.create``). The snapshot must be available and of the same volume. A
volume in use needs no force. data_timestamp is that of the snapshot, and the parent is the latest backup before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from cinderblock.controller.reconcile import related
from cinderblock.kube import queries
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from tests.support.simulation.api import Object, stamp
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary

NOT_AVAILABLE = "Invalid snapshot: Snapshot to be backed up must be available, but the current status is"
MISMATCH = "Invalid volume: Volume data does not match with snapshot.volume_id"


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.advance(60)
        yield simulation


def snapshot(simulation: Simulation, name: str = "mine", claim: str = "data", **status: Any) -> Object:
    """Create a VolumeSnapshot of a user; ``status`` replaces the status of the driver."""
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


def test_backup_holds_the_snapshot_and_leaves_it(simulation: Simulation) -> None:
    uid = snapshot(simulation)["metadata"]["uid"]
    simulation.write("data", "second")
    simulation.backup("full", "data", snapshotId="mine")
    assert (status(simulation, "full")["phase"], status(simulation, "full")["snapshotId"]) == ("available", uid)
    assert simulation.kept("full") == "first"
    assert summary(simulation)["children"] == ["mine"]


def test_snapshot_can_be_referenced_by_uid(simulation: Simulation) -> None:
    simulation.backup("full", "data", snapshotId=snapshot(simulation)["metadata"]["uid"])
    assert status(simulation, "full")["phase"] == "available"


def test_given_snapshot_of_a_volume_in_use_needs_no_force(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.pod("web", "data")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_given_snapshot_needs_no_snapshot_class(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.objects.update(simulation.get("VolumeSnapshotClass", "snap"), deletionPolicy="Retain")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_data_timestamp_is_of_the_snapshot_or_the_request(simulation: Simulation) -> None:
    taken = snapshot(simulation)["status"]["creationTime"]
    simulation.backup("of-snapshot", "data", snapshotId="mine")
    assert instant(status(simulation, "of-snapshot")["dataTimestamp"]) == instant(taken)
    simulation.objects.delete(simulation.get("VolumeSnapshotClass", "snap"))
    requested = simulation.backup("of-volume", "data")["metadata"]["creationTimestamp"]
    assert instant(status(simulation, "of-volume")["dataTimestamp"]) == instant(requested)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_parent_is_the_latest_backup_before_the_snapshot(simulation: Simulation) -> None:
    simulation.backup("at-eight", "data")
    parent = status(simulation, "at-eight")["id"]
    simulation.advance(600)
    snapshot(simulation)
    simulation.advance(600)
    simulation.backup("at-twenty-past", "data")
    simulation.settle()
    simulation.backup("child", "data", snapshotId="mine", incremental=True)
    assert status(simulation, "child")["parentId"] == parent


def test_snapshot_older_than_every_backup_has_no_parent(simulation: Simulation) -> None:
    """Cinder takes a younger parent because of its sorting; here a child is never older than its parent."""
    snapshot(simulation)
    simulation.backup("full", "data")
    simulation.settle()
    simulation.backup("child", "data", snapshotId="mine", incremental=True)
    assert status(simulation, "child")["failReason"] == (
        "Invalid backup: No backups available to do an incremental backup."
    )


def test_snapshot_taken_during_a_reconciliation_does_not_hide_the_parent(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot was read twice: without its time, only the newest parent is kept; with it, that one is too young."""
    simulation.backup("at-eight", "data")
    parent = status(simulation, "at-eight")["id"]
    simulation.advance(600)
    snapshot(simulation)
    taken = simulation.get("VolumeSnapshot", "mine")["status"]
    simulation.advance(600)
    simulation.backup("at-twenty-past", "data")
    simulation.settle()
    simulation.objects.update(simulation.get("VolumeSnapshot", "mine"), status={"readyToUse": False})
    find = queries.find_by_reference

    async def find_and_take(client: KubeClient, kind: Kind, namespace: str, reference: str) -> Object | None:
        found = await find(client, kind, namespace, reference)
        if reference == "mine":
            simulation.objects.update(simulation.get("VolumeSnapshot", "mine"), status=taken)
        return found

    monkeypatch.setattr(queries, "find_by_reference", find_and_take)
    monkeypatch.setattr(related, "LIST_ALL_LIMIT", 1)
    simulation.backup("child", "data", snapshotId="mine", incremental=True)
    assert status(simulation, "child").get("parentId") == parent


def test_snapshot_of_another_volume_fails(simulation: Simulation) -> None:
    simulation.claim("other", "theirs")
    snapshot(simulation, claim="other")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["failReason"] == f"{MISMATCH} other."


def test_snapshot_of_an_earlier_volume_with_the_name_fails(simulation: Simulation) -> None:
    snapshot(simulation)
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    simulation.claim("data", "of a new shop")
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["failReason"].startswith(MISMATCH)
    assert "belongs to an earlier volume of this name" in status(simulation, "full")["failReason"]


@pytest.mark.parametrize("part", ["metadata", "status"])
def test_one_wrong_clock_does_not_reject_a_snapshot(simulation: Simulation, part: str) -> None:
    """Either the array's clock is slow, or the snapshot was applied before its claim."""
    made = snapshot(simulation)
    early = stamp(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    key = "creationTimestamp" if part == "metadata" else "creationTime"
    simulation.objects.update(made, **{part: made[part] | {key: early}})
    simulation.backup("full", "data", snapshotId="mine")
    assert status(simulation, "full")["phase"] == "available"


def test_failed_snapshot_fails_at_once(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False, error={"message": "the array is busy"})
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", "SnapshotNotAvailable")
    assert simulation.get("VolumeBackup", "full")["status"]["failReason"] == f'{NOT_AVAILABLE} "error".'


def test_backup_waits_for_an_unready_snapshot(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False)
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", f'SnapshotNotAvailable: {NOT_AVAILABLE} "creating". (until 2026-')
    assert status(simulation, "full")["phase"] == "available"
    assert simulation.kept("full") == "first"


def test_snapshot_never_ready_fails_without_blocking_others(simulation: Simulation) -> None:
    snapshot(simulation, readyToUse=False)
    moves = simulation.cluster.moves
    simulation.cluster.moves = lambda: [m for m in moves() if "mine" not in m.name]  # type: ignore[method-assign]
    simulation.backup("full", "data", snapshotId="mine")
    simulation.until("VolumeBackup", "full", "SnapshotNotAvailable")
    simulation.advance(1)
    simulation.backup("other", "data")
    simulation.until("VolumeBackup", "other", "Available")
    assert status(simulation, "full")["failReason"] == f'{NOT_AVAILABLE} "creating". (waited 1800 s)'


def test_missing_snapshot_fails(simulation: Simulation) -> None:
    simulation.backup("full", "data", snapshotId="nowhere")
    assert status(simulation, "full")["failReason"] == "Snapshot nowhere could not be found."
