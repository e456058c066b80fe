"""Limits on movers hold although what workers see is a moment old; who is older goes first; nobody waits for ghosts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.reconcile.admission import MoverAdmission
from cinderblock.lifecycle.actions import CreateChild, Decision
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import (
    MoverSettings,
    ObservedBackup,
    ObservedMover,
    OperatorPolicy,
    RunningMover,
    StoreLookup,
)
from tests.support.simulation.observed_builders import NOW, a_job, a_snapshot, a_store, accepted, observed_backup

LIMIT = 2
POLICY = OperatorPolicy(MoverSettings("example/cinderblock:1", limit=LIMIT))


class Clock:
    """Seconds, as a test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> MoverAdmission:
    return MoverAdmission(clock)


def operation(number: int) -> VolumeBackup:
    """The larger its number, the younger it is."""
    return accepted(f"b-{number}", created=NOW - timedelta(hours=1) + timedelta(seconds=number))


def look(
    line: MoverAdmission, me: VolumeBackup, view: ObservedMover | None = None, store: BackupStore | None = None
) -> Decision:
    """What a worker does with what it has read."""
    used = store or a_store()
    seen = line.observe(me, view or ObservedMover(), used)
    snapshot = a_snapshot(owner=me.uid)
    observed: ObservedBackup = observed_backup(me, mover=seen, store=StoreLookup(used), snapshot=snapshot)
    observed = ObservedBackup(**{name: getattr(observed, name) for name in observed.__slots__} | {"policy": POLICY})
    decision = backup_decide.decide(observed, NOW)
    line.record(me, seen, used, decision, LIMIT)
    return decision


def starts(decision: Decision) -> bool:
    return any(isinstance(action, CreateChild) and action.kind == "Job" for action in decision.actions)


def reason(decision: Decision) -> str:
    assert isinstance(decision.status, VolumeBackupStatus)
    return decision.status.conditions[0].reason


def test_movers_that_the_server_does_not_show_yet_count(line: MoverAdmission) -> None:
    started = [starts(look(line, operation(number))) for number in range(5)]
    assert started == [True, True, False, False, False]


def test_a_mover_that_is_seen_and_remembered_counts_once(line: MoverAdmission) -> None:
    assert starts(look(line, operation(1)))
    seen = ObservedMover(others=frozenset({RunningMover("b-1", "s-1")}))
    assert starts(look(line, operation(2), seen))


def test_the_oldest_of_those_that_wait_goes_first(line: MoverAdmission) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in (3, 1, 2):
        assert reason(look(line, operation(number), full)) == "Queued"
    one_free = ObservedMover(others=frozenset({RunningMover("x", "s-1")}))
    assert [starts(look(line, operation(number), one_free)) for number in (3, 2, 4, 1)] == [False, False, False, True]


def test_who_does_not_come_back_is_not_waited_for(line: MoverAdmission, clock: Clock) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in (1, 2):
        look(line, operation(number), full)
    clock.now += 60
    assert starts(look(line, operation(3)))


def test_who_waits_for_a_store_of_its_own_is_in_nobody_elses_way(line: MoverAdmission) -> None:
    narrow = a_store(limits={"movers": 1})
    busy = ObservedMover(others=frozenset({RunningMover("x", "s-1")}))
    for number in (1, 2):
        assert reason(look(line, operation(number), busy, narrow)) == "Queued"
    other = a_store().model_copy(update={"metadata": a_store().metadata.model_copy(update={"uid": "s-2"})})
    assert starts(look(line, operation(3), busy, other))


def test_a_mover_that_has_ended_makes_room_at_once(line: MoverAdmission) -> None:
    for number in (1, 2):
        assert starts(look(line, operation(number)))
    ended = a_job("b-1", conditions=[{"type": "Failed", "status": "True"}])
    look(line, operation(1), ObservedMover(job=ended))
    assert starts(look(line, operation(3)))


def test_a_mover_that_was_never_created_is_forgotten(line: MoverAdmission, clock: Clock) -> None:
    for number in (1, 2):
        assert starts(look(line, operation(number)))
    clock.now += 31
    assert starts(look(line, operation(3)))


def test_who_went_away_while_waiting_takes_no_room(line: MoverAdmission, clock: Clock) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in range(100):
        look(line, operation(number), full)
    clock.now += 600
    look(line, operation(100), full)
    assert len(line._queued) == 1
