"""Reaction of the operator when an administrator resets the status of a backup (`os-reset_status`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.gateway.resources.backups.actions import reset_patch
from tests.support.simulation.api import _merged
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        yield simulation


def reset(simulation: Simulation, name: str, phase: BackupPhase) -> None:
    backup = VolumeBackup.model_validate(simulation.get("VolumeBackup", name))
    item = simulation.get("VolumeBackup", name)
    patch = reset_patch(backup, phase, simulation.now)
    simulation.objects.update(item, status=_merged(item["status"], patch["status"]))


def test_complete_backup_stays_in_error_until_reset_again(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    reset(simulation, "full", BackupPhase.ERROR)
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "StatusReset",
    )
    reset(simulation, "full", BackupPhase.AVAILABLE)
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "available",
        "Available",
    )
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_reset_of_a_running_backup_stops_it_and_leaves_nothing(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    reset(simulation, "full", BackupPhase.ERROR)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error"
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.stored()) == ("gone", [])
