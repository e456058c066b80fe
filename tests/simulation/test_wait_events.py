"""An Event is recorded once when an operation begins an unexpected wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.errors import StoreUnreachable
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "content")
        yield simulation


def events_of(simulation: Simulation, kind: str) -> list[tuple[str, str]]:
    """Return type and reason of the Events about objects of a kind."""
    events = simulation.objects.all("Event")
    return sorted((e["type"], e["reason"]) for e in events if e["regarding"]["kind"] == kind)


def test_smooth_backup_has_three_events(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    assert events_of(simulation, "VolumeBackup") == [
        ("Normal", "Available"),
        ("Normal", "MoverStarted"),
        ("Normal", "SnapshotRequested"),
    ]


def test_wait_for_a_turn_is_one_event(simulation: Simulation) -> None:
    simulation.backup("first", "data")
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", "VolumeBusy")
    simulation.settle()
    assert events_of(simulation, "VolumeBackup").count(("Normal", "VolumeBusy")) == 1
    assert dict(simulation.events())["VolumeBusy"] == 1


def test_silent_store_is_an_event_of_store_and_backup(simulation: Simulation) -> None:
    simulation.settle()
    assert events_of(simulation, "BackupStore") == [("Normal", "Answers")]
    simulation.store.error = StoreUnreachable("no answer")
    simulation.backup("full", "data")
    simulation.resync()
    simulation.until("VolumeBackup", "full", "StoreUnreachable")
    simulation.until("BackupStore", "default", "StoreUnreachable")
    simulation.store.error = None
    simulation.settle()
    assert ("Warning", "StoreUnreachable") in events_of(simulation, "VolumeBackup")
    assert events_of(simulation, "BackupStore") == [("Normal", "Answers"), ("Warning", "StoreUnreachable")]
    assert dict(simulation.events())["Answers"] == 2


def test_deleted_restore_has_a_cancelled_event(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert ("Normal", "Cancelled") in events_of(simulation, "VolumeRestore")


def test_ended_restore_has_no_cancelled_event(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.delete("VolumeRestore", "again")
    simulation.settle()
    assert ("Normal", "Cancelled") not in events_of(simulation, "VolumeRestore")
