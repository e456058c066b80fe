"""How much the operator asks of the API server: nothing when nothing happens, little while it waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.support.simulation.simulation import Simulation

MINUTE = timedelta(minutes=1)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A volume and a full backup of it, and nothing to do."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        yield running


def _calls(simulation: Simulation) -> Counter[tuple[str, str, int]]:
    return Counter(simulation._eyes.kube.response_counts)


def _is_write(call: tuple[str, str, int]) -> bool:
    return call[0] not in ("get", "list")


def _in_a_minute(simulation: Simulation, name: str) -> tuple[Counter[tuple[str, str, int]], list[datetime]]:
    """What was asked of the API server in a minute, and when the operator looked at the object of this name."""
    before, end, looks = _calls(simulation), simulation.now + MINUTE, []
    while simulation.now < end:
        if simulation.due() and simulation.due()[0].name == name:
            looks.append(simulation.now)
        simulation.step()
    return _calls(simulation) - before, looks


def test_an_idle_operator_writes_nothing_and_reads_next_to_nothing(simulation: Simulation) -> None:
    asked, looks = _in_a_minute(simulation, "full")
    assert not [call for call in asked if _is_write(call)]
    # The store is asked once in a while whether it answers.
    assert asked.total() <= 4
    assert not looks


@pytest.mark.parametrize("reason", ["SnapshotNotReady", "MoverPending", "MoverRunning"])
def test_an_operation_that_waits_is_looked_at_every_five_seconds_and_nothing_is_written(
    simulation: Simulation, reason: str
) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", reason)
    moves, simulation.cluster.moves = simulation.cluster.moves, lambda: iter(())  # type: ignore[method-assign]
    for _ in range(10):
        simulation.step()
    asked, looks = _in_a_minute(simulation, "second")
    assert not [call for call in asked if _is_write(call)]
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert min(gaps) >= timedelta(seconds=4.7)
    assert asked.total() <= 12 * 16
    simulation.cluster.moves = moves  # type: ignore[method-assign]
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "available"


def test_a_claim_that_is_never_bound_is_not_asked_about_every_second(simulation: Simulation) -> None:
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "bound")
    simulation.cluster.moves = lambda: iter(())  # type: ignore[method-assign]
    for _ in range(10):
        simulation.step()
    asked, looks = _in_a_minute(simulation, "again")
    assert not [call for call in asked if _is_write(call)]
    assert len(looks) <= 13
