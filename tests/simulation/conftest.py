"""Worlds that several tests of the lifecycle begin with, on the simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation


@pytest.fixture
def stored() -> Iterator[Simulation]:
    """A volume, and a full backup of it."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        running.write("data", "second")
        yield running
