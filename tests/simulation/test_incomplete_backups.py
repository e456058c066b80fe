"""A backup without its unreadable files is available and lists them, but does not count as the last success."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.format.manifest.footer import UnreadableRecord
from tests.support.simulation.simulation import Simulation

LACKS = UnreadableRecord(files=2, examples=["broken", "closed/"])
DATA = {"volume_namespace": "shop", "volume": "data"}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Return a simulation with a volume that has two unreadable files."""
    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.cluster.unreadable = LACKS
        yield simulation


def status(simulation: Simulation, name: str = "full") -> dict[str, Any]:
    found: dict[str, Any] = simulation.get("VolumeBackup", name)["status"]
    return found


def complete(simulation: Simulation, name: str = "full") -> dict[str, Any] | None:
    return next((c for c in status(simulation, name)["conditions"] if c["type"] == "Complete"), None)


def reasons(simulation: Simulation) -> dict[str, int]:
    return dict(simulation.events())


def made(simulation: Simulation, name: str = "full", **spec: Any) -> None:
    simulation.backup(name, "data", **spec)
    simulation.settle()


def test_incomplete_backup_is_available_and_lists_missing_files(simulation: Simulation) -> None:
    made(simulation, unreadable="Skip")
    condition, shown = complete(simulation), status(simulation)
    assert condition is not None
    assert (shown["phase"], shown["unreadableFiles"], shown["unreadableExamples"]) == ("available", 2, LACKS.examples)
    assert (condition["status"], condition["reason"]) == ("False", "FilesUnreadable")
    assert "lacks 2 files that could not be read, for example broken, closed/" in condition["message"]
    assert [c["status"] for c in shown["conditions"] if c["type"] == "Ready"] == ["True"]
    assert reasons(simulation)["FilesUnreadable"] == 1


def test_complete_backup_has_no_complete_condition(simulation: Simulation) -> None:
    simulation.cluster.unreadable = None
    made(simulation, unreadable="Skip")
    assert complete(simulation) is None
    assert "unreadableFiles" not in status(simulation)


def test_default_policy_omits_no_files(simulation: Simulation) -> None:
    made(simulation)
    assert complete(simulation) is None


def test_incomplete_backup_is_steady_after_a_restart(simulation: Simulation) -> None:
    made(simulation, unreadable="Skip")
    before = status(simulation)
    simulation.restart()
    simulation.settle()
    assert status(simulation) == before
    assert not any(key.name == "full" for key in simulation.pending())


def test_lost_status_recovers_missing_files_from_the_manifest(simulation: Simulation) -> None:
    made(simulation, unreadable="Skip")
    simulation.erase_status("VolumeBackup", "full")
    simulation.settle()
    condition = complete(simulation)
    assert condition is not None
    assert status(simulation)["unreadableFiles"] == 2
    assert status(simulation)["losses"] == [{"what": "trusted.* attributes", "examples": []}]


def test_restore_keeps_the_complete_condition(simulation: Simulation) -> None:
    made(simulation, unreadable="Skip")
    before = complete(simulation)
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert complete(simulation) == before


def test_incomplete_backup_does_not_count_as_a_success(simulation: Simulation) -> None:
    simulation.cluster.unreadable = None
    made(simulation, "good")
    good = simulation.metrics().value("volume_last_success_timestamp_seconds", **DATA)
    simulation.advance(3600)
    simulation.cluster.unreadable = LACKS
    made(simulation, unreadable="Skip")
    metrics = simulation.metrics()
    assert metrics.value("volume_last_success_timestamp_seconds", **DATA) == good
    incomplete = metrics.value("volume_last_incomplete_timestamp_seconds", **DATA)
    assert incomplete is not None
    assert good is not None
    assert incomplete > good


def test_losses_are_in_the_status_without_an_event(simulation: Simulation) -> None:
    made(simulation)
    assert status(simulation)["losses"] == [{"what": "trusted.* attributes", "examples": []}]
    assert "NotAllKept" not in reasons(simulation)
