"""A backup that lacks unreadable files is available, says what it lacks, and is not a last good one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.format.manifest.footer import UnreadableRecord
from tests.support.simulation.simulation import Simulation

LACKS = UnreadableRecord(files=2, examples=["broken", "closed/"])
DATA = {"volume_namespace": "shop", "volume": "data"}


@pytest.fixture
def running() -> Iterator[Simulation]:
    """A volume of which two objects cannot be read."""
    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.cluster.unreadable = LACKS
        yield simulation


def status(running: Simulation, name: str = "full") -> dict[str, Any]:
    found: dict[str, Any] = running.get("VolumeBackup", name)["status"]
    return found


def complete(running: Simulation, name: str = "full") -> dict[str, Any] | None:
    return next((c for c in status(running, name)["conditions"] if c["type"] == "Complete"), None)


def reasons(running: Simulation) -> dict[str, int]:
    return dict(running.events())


def made(running: Simulation, name: str = "full", **spec: Any) -> None:
    running.backup(name, "data", **spec)
    running.settle()


def test_it_is_available_and_says_what_it_lacks(running: Simulation) -> None:
    made(running, unreadable="Skip")
    said, told = complete(running), status(running)
    assert said is not None
    assert (told["phase"], told["unreadableFiles"], told["unreadableExamples"]) == ("available", 2, LACKS.examples)
    assert (said["status"], said["reason"]) == ("False", "FilesUnreadable")
    assert "lacks 2 files that could not be read, for example broken, closed/" in said["message"]
    assert [c["status"] for c in told["conditions"] if c["type"] == "Ready"] == ["True"]
    assert reasons(running)["FilesUnreadable"] == 1


def test_a_complete_one_has_no_such_condition(running: Simulation) -> None:
    running.cluster.unreadable = None
    made(running, unreadable="Skip")
    assert complete(running) is None
    assert "unreadableFiles" not in status(running)


def test_by_default_nothing_is_left_out(running: Simulation) -> None:
    made(running)
    assert complete(running) is None


def test_what_it_says_stays_and_wants_no_further_look(running: Simulation) -> None:
    made(running, unreadable="Skip")
    before = status(running)
    running.restart()
    running.settle()
    assert status(running) == before
    assert not any(key.name == "full" for key in running.unsettled())


def test_a_lost_status_regains_it_from_the_manifest(running: Simulation) -> None:
    made(running, unreadable="Skip")
    running.erase_status("VolumeBackup", "full")
    running.settle()
    said = complete(running)
    assert said is not None
    assert status(running)["unreadableFiles"] == 2
    assert status(running)["losses"] == [{"what": "trusted.* attributes", "examples": []}]


def test_a_restore_of_it_changes_nothing_about_it(running: Simulation) -> None:
    made(running, unreadable="Skip")
    before = complete(running)
    running.restore("back", "full", name="new")
    running.settle()
    assert complete(running) == before


def test_it_is_not_the_last_good_backup(running: Simulation) -> None:
    running.cluster.unreadable = None
    made(running, "good")
    good = running.read_metrics().value("volume_last_success_timestamp_seconds", **DATA)
    running.advance(3600)
    running.cluster.unreadable = LACKS
    made(running, unreadable="Skip")
    told = running.read_metrics()
    assert told.value("volume_last_success_timestamp_seconds", **DATA) == good
    incomplete = told.value("volume_last_incomplete_timestamp_seconds", **DATA)
    assert incomplete is not None
    assert good is not None
    assert incomplete > good


def test_losses_are_in_the_status_and_tell_no_event(running: Simulation) -> None:
    made(running)
    assert status(running)["losses"] == [{"what": "trusted.* attributes", "examples": []}]
    assert "NotAllKept" not in reasons(running)
