"""Several attacks at once, begun at any moment: backups of another namespace end, and their objects stay intact."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from cinderblock.lifecycle.observed import MoverSettings
from tests.support.simulation.attackers import ATTACKS, EVIL, FORGED
from tests.support.simulation.simulation import POLICY, Simulation

FAIR = replace(POLICY, mover=MoverSettings(image="example/cinderblock:1", limit=4, namespace_limit=2))
VARIATIONS = 60
MAX_STEPS = 8000


@pytest.mark.parametrize("seed", range(VARIATIONS))
def test_any_mixture_of_attacks_delays_nobody_for_long(seed: int) -> None:
    chosen = random.Random(seed)
    waiting = [(chosen.randrange(200), attack) for attack in chosen.sample(ATTACKS, chosen.randint(2, len(ATTACKS)))]
    names = [f"mine-{number}" for number in range(chosen.randint(1, 5))]
    disturbing = []
    with Simulation(policy=FAIR) as simulation:
        for name in names:
            simulation.claim(f"data-{name}", name)
        for number in range(MAX_STEPS):
            if number == 50:
                for name in names:
                    simulation.backup(name, f"data-{name}")
            disturbing += [attack(simulation) for moment, attack in waiting if moment == number]
            for disturb in disturbing if chosen.random() < 0.5 else ():
                disturb()
            if chosen.random() < 0.01:
                simulation.restart()
            _step(simulation, chosen)
            if number > 200 and all(simulation.phase("VolumeBackup", name) == "available" for name in names):
                break
        else:
            raise AssertionError(f"the attacks hold up the backups:\n{simulation.story()}")
        assert [simulation.kept(name) for name in names] == names
        forged = [item for kind in FORGED for item in simulation.objects.all(kind, "shop")]
        assert all(item["metadata"]["namespace"] != EVIL for item in forged)


def _step(simulation: Simulation, chosen: random.Random) -> None:
    ready = simulation.due()
    if ready:
        simulation.reconcile(ready[0])
    moves = [move for move in simulation.cluster.moves() if not move.is_bad]
    if moves:
        simulation.move(chosen.choice(moves))
    if not ready and not moves:
        simulation.step()
