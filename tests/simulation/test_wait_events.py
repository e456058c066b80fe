"""An Event is recorded when an operation begins to wait for something out of the ordinary, and not for every look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.errors import StoreUnreachable
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "content")
        yield running


def told(simulation: Simulation, kind: str) -> list[tuple[str, str]]:
    """Type and reason of the Events about objects of a kind."""
    events = simulation.objects.all("Event")
    return sorted((e["type"], e["reason"]) for e in events if e["regarding"]["kind"] == kind)


def test_a_backup_without_trouble_is_told_in_three_steps(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    assert told(simulation, "VolumeBackup") == [
        ("Normal", "Available"),
        ("Normal", "MoverStarted"),
        ("Normal", "SnapshotRequested"),
    ]


def test_waiting_for_ones_turn_is_told_once(simulation: Simulation) -> None:
    simulation.backup("first", "data")
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "VolumeBusy")
    simulation.settle()
    assert told(simulation, "VolumeBackup").count(("Normal", "VolumeBusy")) == 1
    assert dict(simulation.events())["VolumeBusy"] == 1


def test_a_store_that_is_silent_is_told_by_the_store_and_by_who_waits_for_it(simulation: Simulation) -> None:
    simulation.settle()
    assert told(simulation, "BackupStore") == [("Normal", "Answers")]
    simulation.store.trouble = StoreUnreachable("no answer")
    simulation.backup("full", "data")
    simulation.resync()
    simulation.until("VolumeBackup", "full", "StoreUnreachable")
    simulation.until("BackupStore", "default", "StoreUnreachable")
    simulation.store.trouble = None
    simulation.settle()
    assert ("Warning", "StoreUnreachable") in told(simulation, "VolumeBackup")
    assert told(simulation, "BackupStore") == [("Normal", "Answers"), ("Warning", "StoreUnreachable")]
    assert dict(simulation.events())["Answers"] == 2


def test_a_restore_that_is_deleted_on_its_way_says_so(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert ("Normal", "Cancelled") in told(simulation, "VolumeRestore")


def test_a_restore_that_had_ended_is_not_cancelled(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert ("Normal", "Cancelled") not in told(simulation, "VolumeRestore")
