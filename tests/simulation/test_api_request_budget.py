"""The requests of the operator to the API server: few when idle, few while it waits."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.support.simulation.simulation import Simulation

pytestmark = pytest.mark.usefixtures("backed_up")

MINUTE = timedelta(minutes=1)


def _calls(simulation: Simulation) -> Counter[tuple[str, str]]:
    return Counter(simulation.faults.requests)


def _is_write(call: tuple[str, str, int]) -> bool:
    return call[0] not in ("get", "list")


def _in_a_minute(simulation: Simulation, name: str) -> tuple[Counter[tuple[str, str]], list[datetime]]:
    """Return the requests of one minute, and the instants at which the operator reconciled the object of this name."""
    before, end, reconciled_at = _calls(simulation), simulation.now + MINUTE, []
    while simulation.now < end:
        if simulation.due() and simulation.due()[0].name == name:
            reconciled_at.append(simulation.now)
        simulation.step()
    return _calls(simulation) - before, reconciled_at


def test_idle_operator_writes_nothing_and_reads_little(simulation: Simulation) -> None:
    requests, reconciled_at = _in_a_minute(simulation, "full")
    assert not [call for call in requests if _is_write(call)]
    # The store is checked periodically.
    assert requests.total() <= 4
    assert not reconciled_at


@pytest.mark.parametrize("reason", ["SnapshotNotReady", "MoverPending", "MoverRunning"])
def test_waiting_operation_is_polled_without_writes(simulation: Simulation, reason: str) -> None:
    simulation.backup("second", "data")
    simulation.until("VolumeBackup", "second", reason)
    while reason == "MoverPending" and not simulation.objects.all("Job"):
        simulation.step()
    moves, simulation.cluster.moves = simulation.cluster.moves, lambda: iter(())  # type: ignore[method-assign]
    for _ in range(10):
        simulation.step()
    requests, reconciled_at = _in_a_minute(simulation, "second")
    assert not [call for call in requests if _is_write(call)]
    intervals = [later - earlier for earlier, later in pairwise(reconciled_at)]
    assert min(intervals) >= timedelta(seconds=4.7)
    assert requests.total() <= 12 * 16
    simulation.cluster.moves = moves  # type: ignore[method-assign]
    simulation.settle()
    assert simulation.phase("VolumeBackup", "second") == "available"


def test_unbound_claim_is_not_polled_every_second(simulation: Simulation) -> None:
    simulation.restore("again", "full", name="new")
    simulation.until("VolumeRestore", "again", "bound")
    simulation.cluster.moves = lambda: iter(())  # type: ignore[method-assign]
    for _ in range(10):
        simulation.step()
    requests, reconciled_at = _in_a_minute(simulation, "again")
    assert not [call for call in requests if _is_write(call)]
    assert len(reconciled_at) <= 13
