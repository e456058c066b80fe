"""Operations that go well record no Warning and log none, in whatever order the cluster works: nobody has to look."""

from __future__ import annotations

import logging
import random

import pytest

from tests.support.simulation.cluster import KEPT, LATE
from tests.support.simulation.simulation import Simulation


def work(simulation: Simulation, chance: random.Random) -> None:
    """Continue until every operation has ended, with the moves of the cluster and the operator in any order."""
    operations = [item for kind in ("VolumeBackup", "VolumeRestore") for item in simulation.objects.all(kind)]
    for _ in range(4000):
        ready, moves = simulation.due(), [move for move in simulation.cluster.moves() if not move.is_bad]
        if ready and (not moves or chance.random() < 0.5):
            simulation.reconcile(chance.choice(ready))
        elif moves:
            simulation.move(chance.choice(moves))
            simulation.advance(chance.random())
        elif all(item.get("status", {}).get("phase") == "available" for item in operations):
            return
        else:
            simulation.step()
    raise AssertionError(f"somebody never ends:\n{simulation.story()}")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("storage_class", ["fast", KEPT, LATE])
def test_calm_run_warns_about_nothing(storage_class: str, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(seed)
    with caplog.at_level(logging.INFO), Simulation() as simulation:
        for name in ("a", "b", "c"):
            simulation.claim(name, f"content of {name}", storage_class)
            simulation.backup(f"full-{name}", name)
        work(simulation, chance)
        simulation.backup("next", "a", incremental=True)
        simulation.restore("in-place", "full-b", volumeId="b")
        for number in range(4):
            simulation.restore(f"new-{number}", "full-c", name=f"new-{number}")
        work(simulation, chance)
        simulation.settle()
        warnings = [(e["reason"], e["note"]) for e in simulation.objects.all("Event") if e["type"] == "Warning"]
        assert not warnings, simulation.story()
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not loud
