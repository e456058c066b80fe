"""Faults of the operator at one write of a scenario. An undisturbed run counts the writes."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.simulation.simulation import Simulation, api_outage
from tests.support.store.faults import Crash

Part = Callable[[Simulation], object]
"""A part of a scenario: what it needs before, or what begins it."""
FAULTS: dict[str, tuple[bool, Callable[[], BaseException]]] = {
    "dies before": (False, lambda: Crash("scripted")),
    "dies after": (True, lambda: Crash("scripted")),
    "loses the answer to": (True, api_outage),
}
"""Whether the write takes place, and what the operator sees, by what the operator does."""


def run_scenario(
    prepare: Part, start: Part, fault: tuple[int, BaseException, bool] | None = None
) -> tuple[Simulation, int]:
    """Run a scenario to its end, with an optional fault at one write. Return the simulation and its writes."""
    with Simulation() as simulation:
        prepare(simulation)
        before = simulation.faults.writes
        if fault is not None:
            at, error, done = fault
            simulation.faults.plan(at, error, done=done)
        start(simulation)
        simulation.settle()
    return simulation, simulation.faults.writes - before
