"""A mover that runs and gets nowhere: that is said, and it has an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.support.simulation.api import SimulatedApi
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """A backup whose mover runs, in a cluster in which nothing happens any more."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.until("VolumeBackup", "full", "MoverRunning")
        yield running


def _hang(simulation: Simulation) -> None:
    simulation.cluster.moves = lambda: iter(())  # type: ignore[method-assign]


def _wait(simulation: Simulation, minutes: float) -> None:
    until = simulation.now.timestamp() + 60 * minutes
    while simulation.now.timestamp() < until:
        simulation.step()


def _progress(simulation: Simulation, done: int) -> None:
    api: Any = simulation._eyes.kube._transport
    cast("SimulatedApi", api).log_line = f'{{"bytesDone":{done},"bytesTotal":100000}}'


def test_a_mover_that_moves_on_is_never_called_stalled(simulation: Simulation) -> None:
    _hang(simulation)
    for minute in range(30):
        _progress(simulation, 10 * minute)
        _wait(simulation, 1)
        assert simulation.reason("VolumeBackup", "full") == "MoverRunning"


def test_a_mover_without_progress_for_ten_minutes_is_called_stalled_and_running_when_it_goes_on(
    simulation: Simulation,
) -> None:
    _hang(simulation)
    _progress(simulation, 10)
    _wait(simulation, 9)
    assert simulation.reason("VolumeBackup", "full") == "MoverRunning"
    _wait(simulation, 2)
    assert simulation.reason("VolumeBackup", "full") == "MoverStalled"
    assert "until 20" in simulation.get("VolumeBackup", "full")["status"]["conditions"][0]["message"]
    version = simulation.objects.version
    _wait(simulation, 60)
    assert simulation.objects.version == version
    _progress(simulation, 20)
    _wait(simulation, 1)
    assert simulation.reason("VolumeBackup", "full") == "MoverRunning"


def test_a_mover_that_stays_stalled_is_given_up(simulation: Simulation) -> None:
    moves = simulation.cluster.moves
    _hang(simulation)
    _wait(simulation, 6 * 60 + 30)
    assert simulation.phase("VolumeBackup", "full") == "error"
    assert simulation.reason("VolumeBackup", "full") == "MoverStalled"
    simulation.cluster.moves = moves  # type: ignore[method-assign]
    simulation.settle()
    assert not simulation.objects.all("Job")
    assert not simulation.objects.all("Pod")
