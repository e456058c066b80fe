"""In namespaces with many backups, only related backups are read, and the final state is the same."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.controller.context import parse_all
from cinderblock.controller.reconcile import related
from tests.simulation.test_crashes import SCENARIOS, run
from tests.support.simulation.simulation import Simulation, summary

OTHERS = 8


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single object count as many."""
    monkeypatch.setattr(related, "LIST_ALL_LIMIT", 1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_number_of_objects_does_not_change_the_end(name: str, request: pytest.FixtureRequest) -> None:
    among_few, _ = run(name)
    request.getfixturevalue("many")
    among_many, _ = run(name)
    assert summary(among_many) == summary(among_few)


@pytest.mark.usefixtures("many")
def test_backups_of_other_volumes_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(model: Any, bodies: list[Any]) -> list[Any]:
        read.append(len(bodies))
        return parse_all(model, bodies)

    with Simulation() as simulation:
        simulation.claim("data", "first")
        for number in range(OTHERS):
            simulation.claim(f"other-{number}", "something")
            simulation.backup(f"other-{number}", f"other-{number}")
        simulation.settle()
        monkeypatch.setattr(related, "parse_all", counted)
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"
    assert 1 <= max(read) < OTHERS
