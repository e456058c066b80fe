"""Fixtures that several simulation tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation


@pytest.fixture
def stored() -> Iterator[Simulation]:
    """Return a simulation with a volume and a full backup of it."""
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        simulation.write("data", "second")
        yield simulation
