"""A user with ``edit`` in one namespace costs the others nothing: their backups end in about the calm time.

Time is simulated: each reconciliation takes 0.25 s, and steps of the cluster take none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cinderblock.lifecycle.observed import MoverSettings
from tests.support.simulation.attackers import ATTACKS, EVIL, FORGED, Disturb, forge_children
from tests.support.simulation.simulation import POLICY, Simulation

Attack = Callable[[Simulation], Disturb]

FAIR = replace(POLICY, mover=MoverSettings(image="example/cinderblock:1", limit=4, namespace_limit=2))
BACKUPS = ("one", "two", "three")
MAX_STEPS = 3000


def seconds_until_available(attack: Attack | None) -> float:
    """Return the simulated seconds that three backups of a namespace need, during an attack or none."""
    with Simulation(policy=FAIR) as simulation:
        for name in BACKUPS:
            simulation.claim(f"data-{name}", name)
        disturb = attack(simulation) if attack is not None else lambda: None
        for _ in range(100 if attack is not None else 0):
            # The attacker has prepared everything before the others begin.
            disturb()
            step(simulation)
        began = simulation.now
        for name in BACKUPS:
            simulation.backup(name, f"data-{name}")
        for _ in range(MAX_STEPS):
            if all(simulation.phase("VolumeBackup", name) == "available" for name in BACKUPS):
                assert [simulation.kept(name) for name in BACKUPS] == list(BACKUPS)
                return (simulation.now - began).total_seconds()
            disturb()
            step(simulation)
        raise AssertionError(f"the attack holds up the backups:\n{simulation.story()}")


def step(simulation: Simulation) -> None:
    """Let the operator and the cluster work at the same time."""
    ready = simulation.due()
    if ready:
        simulation.reconcile(ready[0])
    moves = [move for move in simulation.cluster.moves() if not move.is_bad]
    if moves:
        simulation.move(moves[0])
    if not ready and not moves:
        simulation.step()


@pytest.fixture(scope="module")
def calm() -> float:
    return seconds_until_available(None)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack_delays_no_backup_of_others(attack: Attack, calm: float) -> None:
    """The one worker of the simulation takes turns between the namespaces, which alone doubles the time."""
    assert seconds_until_available(attack) < 2.5 * calm


def test_objects_that_pretend_to_be_ours_stay_untouched() -> None:
    """Nobody removes, binds or waits for what a stranger calls a child of somebody else's backup."""
    with Simulation(policy=FAIR) as simulation:
        simulation.claim("data", "content")
        owner = simulation.backup("full", "data")
        forge_children(simulation, owner)
        forged = [item for kind in FORGED for item in simulation.objects.all(kind, EVIL)]
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"
        assert [item for kind in FORGED for item in simulation.objects.all(kind, EVIL)] == forged
        assert all("deletionTimestamp" not in item["metadata"] for item in forged)
        simulation.delete("VolumeBackup", "full")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "gone"


def test_movers_of_the_last_release_count_and_finish() -> None:
    """Release 0.1.0 recorded no UID of a mover."""
    with Simulation() as simulation:
        for name in BACKUPS:
            simulation.claim(f"data-{name}", name)
        simulation.cluster.no_node = "0/3 nodes are available"
        for name in BACKUPS[:2]:
            simulation.backup(name, f"data-{name}")
            simulation.until("VolumeBackup", name, "MoverUnschedulable")
        for name in BACKUPS[:2]:
            backup = simulation.get("VolumeBackup", name)
            simulation.objects.update(backup, status={k: v for k, v in backup["status"].items() if k != "mover"})
        simulation.restart()
        jobs = {job["metadata"]["uid"] for job in simulation.objects.all("Job")}
        simulation.backup("three", "data-three")
        simulation.until("VolumeBackup", "three", "No more than 2 movers")
        assert {job["metadata"]["uid"] for job in simulation.objects.all("Job")} == jobs, "they go on"
        simulation.cluster.no_node = ""
        simulation.settle()
        assert [simulation.kept(name) for name in BACKUPS] == list(BACKUPS)


@pytest.mark.parametrize("kind", ["VolumeBackup", "VolumeRestore"])
def test_overfull_namespace_begins_nothing_new(kind: str) -> None:
    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.backup("full", "data")
        simulation.settle()
        simulation.api.more_objects = 20_000
        if kind == "VolumeBackup":
            simulation.backup("next", "data")
        else:
            simulation.restore("next", "full", name="new")
        simulation.until(kind, "next", "TooManyObjects")
        simulation.api.more_objects = 0
        simulation.settle()
        assert simulation.phase(kind, "next") == "available"
