"""A verification begins only while backups, restores and older verifications leave room."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.lifecycle.observed import MoverLoad, MoverSettings, ObservedMover, RunningMover
from cinderblock.lifecycle.verification.slots import wait_for_slot
from cinderblock.reasons import Reason
from tests.support.simulation.observed_builders import a_store

SETTINGS = MoverSettings("example/cinderblock:1", limit=4, namespace_limit=2)
HERE = frozenset({RunningMover("v-1", "shop", "default")})
SAME_NAMESPACE = frozenset({RunningMover("v-1", "shop", "other")})
ONE_ELSEWHERE = frozenset({RunningMover("v-1", "other", "default")})
ELSEWHERE = frozenset(RunningMover(f"v-{number}", f"n-{number}", "default") for number in range(4))


@pytest.mark.parametrize(
    ("mover", "load", "words"),
    [
        ({"others": HERE}, {}, "No more than 1 verifications may use BackupStore default"),
        ({"waiting_before_for_store": 1}, {}, "older ones go first"),
        ({"others": SAME_NAMESPACE, "waiting_before_in_namespace": 1}, {}, "in namespace shop"),
        ({"others": SAME_NAMESPACE}, {"movers_in_namespace": 1}, "in namespace shop"),
        ({}, {"waiting_in_namespace": 2}, "in namespace shop"),
        ({"others": ELSEWHERE}, {}, "in the cluster"),
        ({"others": ONE_ELSEWHERE}, {"movers": 3, "waiting": 1}, "in the cluster"),
    ],
)
def test_verification_waits_while_there_is_no_room(mover: dict[str, Any], load: dict[str, Any], words: str) -> None:
    wait = wait_for_slot(ObservedMover(**mover), MoverLoad(**load), SETTINGS, a_store())
    assert wait is not None
    assert (wait.reason, words in wait.message) == (Reason.QUEUED, True), wait.message
    assert 5 <= wait.requeue_after <= 60


@pytest.mark.parametrize(
    ("mover", "load"),
    [
        ({}, {}),
        ({"others": SAME_NAMESPACE}, {"movers": 2}),
        # Backups of other namespaces that want all slots leave a share.
        ({}, {"movers": 3, "waiting": 9}),
        ({}, {"movers": 1, "movers_in_namespace": 1, "waiting": 2}),
    ],
)
def test_verification_begins_while_there_is_room(mover: dict[str, Any], load: dict[str, Any]) -> None:
    assert wait_for_slot(ObservedMover(**mover), MoverLoad(**load), SETTINGS, a_store()) is None


def test_share_is_left_to_the_namespace_whose_turn_it_is() -> None:
    full = MoverLoad(movers=4, waiting=9)
    assert wait_for_slot(ObservedMover(), full, SETTINGS, a_store()) is None
    assert wait_for_slot(ObservedMover(is_its_turn=False), full, SETTINGS, a_store()) is not None
    assert wait_for_slot(ObservedMover(is_its_turn=False), MoverLoad(), SETTINGS, a_store()) is None
