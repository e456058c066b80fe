"""Looks into stores take turns, so that a slow or huge store of one namespace does not keep the others waiting."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.populate import look
from cinderblock.controller.populate.look import MAX_AGE_SECONDS, TURN_SECONDS, Looks
from cinderblock.lifecycle.populate.choice import Looking, NoBackup, Outcome, Wanted
from tests.support.simulation.simulation import Simulation

SOURCE = {"name": "bootstrap", "uid": "s-1"}


class Scene:
    """The looks of claims of several namespaces into one store."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._looks = Looks()
        self._store = BackupStore.model_validate(simulation.get("BackupStore", "default"))

    def step(self, claim: str, namespace: str) -> Outcome:
        """Move the look of a claim one step forward."""
        source = RestoreSource.model_validate({"metadata": SOURCE | {"namespace": namespace}, "spec": {}})
        looking = self._looks.step(self._simulation._context, claim, self._store, source, Wanted(namespace, "absent"))
        outcome: Outcome = self._simulation._loop.run_until_complete(looking)
        return outcome

    def waits(self, claim: str, namespace: str) -> bool:
        """Return whether a step of the claim ended because it has to wait for its turn."""
        outcome = self.step(claim, namespace)
        return isinstance(outcome, Looking) and outcome.requeue_after == TURN_SECONDS

    def pass_time(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        """Let the clock of the event loop show a later time."""
        loop: asyncio.AbstractEventLoop = self._simulation._loop
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now + seconds)


@pytest.fixture
def scene(backed_up: Simulation, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return looks whose steps end before anything is read, as with a slow store."""
    monkeypatch.setattr(look, "STEP_SECONDS", -1.0)
    return Scene(backed_up)


def test_namespace_has_one_look_at_a_time(scene: Scene) -> None:
    assert not scene.waits("u-1", "slow")
    assert scene.waits("u-2", "slow")
    assert not scene.waits("u-3", "other")
    assert scene.waits("u-4", "third"), "two looks are in memory"
    assert not scene.waits("u-1", "slow"), "a look keeps its turn"


def test_look_that_takes_too_long_gives_up_its_turn(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not scene.waits("u-1", "slow")
    assert not scene.waits("u-2", "other")
    scene.pass_time(monkeypatch, MAX_AGE_SECONDS + 1)
    assert scene.waits("u-1", "slow")
    assert not scene.waits("u-3", "third")


def test_next_claim_of_a_namespace_follows_when_a_look_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not scene.waits("u-1", "slow")
    monkeypatch.setattr(look, "STEP_SECONDS", 60.0)
    assert isinstance(scene.step("u-1", "slow"), NoBackup)
    assert isinstance(scene.step("u-2", "slow"), NoBackup)
