"""Fixtures that several simulation tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Return a simulation with a volume."""
    with Simulation() as running:
        running.claim("data", "first")
        yield running


@pytest.fixture
def backed_up(simulation: Simulation) -> Simulation:
    """Return a simulation with a volume, a full backup of it, and nothing to do."""
    simulation.backup("full", "data")
    simulation.settle()
    return simulation


@pytest.fixture
def stored(backed_up: Simulation) -> Simulation:
    """Return a simulation whose volume has changed since its full backup."""
    backed_up.write("data", "second")
    return backed_up
