"""A new leader counts the movers that statuses record, and few of each namespace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cinderblock.controller.reconcile import running_movers
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import MoverSettings, ObservedMover, RunningMover
from tests.support.simulation.attackers import EVIL
from tests.support.simulation.simulation import POLICY, Simulation

FAIR = replace(POLICY, mover=MoverSettings(image="example/cinderblock:1", limit=4, namespace_limit=2))
MANY = 600
"""More operations than a page of a list has."""


def in_progress(simulation: Simulation, namespace: str, name: str, reason: str, **status: Any) -> None:
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"volumeId": "data"}}
    made = simulation.objects.create("VolumeBackup", body)
    assert made is not None
    condition = {"type": "Reconciling", "status": "True", "reason": reason, "message": "x"}
    condition["lastTransitionTime"] = "2026-05-04T12:00:00Z"
    common = {"phase": "creating", "id": made["metadata"]["uid"], "conditions": [condition]}
    simulation.objects.update(made, status=common | status)


def test_new_leader_keeps_few_movers_of_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_movers, "MOVERS_PER_NAMESPACE", 5)
    with Simulation(policy=FAIR) as simulation:
        for number in range(MANY):
            in_progress(simulation, EVIL, f"held-{number}", "MoverSuspended", mover={"uid": "j", "storeName": "a"})
        in_progress(simulation, "shop", "one", "MoverRunning", mover={"uid": "j-1", "storeName": "default"})
        found = simulation.movers_of_a_new_leader()
    assert [mover.namespace for mover in found].count(EVIL) == 5
    assert [mover.store for mover in found if mover.namespace == "shop"] == ["default"]


def test_operations_that_have_not_begun_are_no_movers() -> None:
    with Simulation(policy=FAIR) as simulation:
        for number in range(MANY):
            in_progress(simulation, EVIL, f"extra-{number}", "TooManyObjects")
        assert simulation.movers_of_a_new_leader() == []


def test_movers_that_a_namespace_holds_leave_room_for_others() -> None:
    """A namespace counts for no more than its limit, however many Jobs it has held back and released."""
    others = frozenset(RunningMover(f"b-{number}", EVIL, "default") for number in range(MANY))
    mover = ObservedMover(others=others)
    assert mover_state.has_room(mover, FAIR.mover)
    assert not mover_state.has_room_in_namespace(mover, EVIL, FAIR.mover)
    assert not mover_state.has_room(replace(mover, waiting_before=2), FAIR.mover)
