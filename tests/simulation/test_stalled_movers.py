"""A mover without progress is reported as stalled, and fails after a deadline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Return a simulation with a running mover."""
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        yield simulation


def _hang(simulation: Simulation) -> None:
    simulation.cluster.moves = lambda: iter(())  # type: ignore[method-assign]


def _wait(simulation: Simulation, minutes: float) -> None:
    until = simulation.now.timestamp() + 60 * minutes
    while simulation.now.timestamp() < until:
        simulation.step()


def _progress(simulation: Simulation, done: int) -> None:
    simulation.api.log_line = f'{{"bytesDone":{done},"bytesTotal":100000}}'


def test_progressing_mover_is_never_stalled(simulation: Simulation) -> None:
    _hang(simulation)
    for minute in range(30):
        _progress(simulation, 10 * minute)
        _wait(simulation, 1)
        assert simulation.reason("VolumeBackup", "full") == "MoverRunning"


def test_mover_without_progress_is_stalled_until_it_continues(
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


def test_stalled_mover_fails_after_the_deadline(simulation: Simulation) -> None:
    moves = simulation.cluster.moves
    _hang(simulation)
    _wait(simulation, 6 * 60 + 30)
    assert simulation.phase("VolumeBackup", "full") == "error"
    assert simulation.reason("VolumeBackup", "full") == "MoverStalled"
    simulation.cluster.moves = moves  # type: ignore[method-assign]
    simulation.settle()
    assert not simulation.objects.all("Job")
    assert not simulation.objects.all("Pod")
