"""Mover limits hold although observations are a moment old, the oldest goes first, and nothing waits for ghosts."""

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
from tests.support.simulation.observed_builders import (
    NOW,
    a_class,
    a_job,
    a_snapshot,
    a_store,
    accepted,
    observed_backup,
)

LIMIT = 2
POLICY = OperatorPolicy(MoverSettings("example/cinderblock:1", limit=LIMIT))


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> MoverAdmission:
    return MoverAdmission(clock)


def operation(number: int) -> VolumeBackup:
    """Return an accepted backup. The larger its number, the younger it is."""
    return accepted(f"b-{number}", created=NOW - timedelta(hours=1) + timedelta(seconds=number))


def decide(
    admission: MoverAdmission,
    backup: VolumeBackup,
    mover: ObservedMover | None = None,
    store: BackupStore | None = None,
) -> Decision:
    """Decide about a backup and its observed mover, as a worker does."""
    used = store or a_store()
    admitted = admission.observe(backup, mover or ObservedMover(), used)
    snapshot = a_snapshot(owner=backup.uid)
    late = a_class("fast", volumeBindingMode="WaitForFirstConsumer")
    observed: ObservedBackup = observed_backup(
        backup, mover=admitted, store=StoreLookup(used), snapshot=snapshot, classes=(late,)
    )
    observed = ObservedBackup(**{name: getattr(observed, name) for name in observed.__slots__} | {"policy": POLICY})
    decision = backup_decide.decide(observed, NOW)
    admission.record(backup, admitted, used, decision, LIMIT)
    return decision


def starts(decision: Decision) -> bool:
    return any(isinstance(action, CreateChild) and action.kind == "Job" for action in decision.actions)


def reason(decision: Decision) -> str:
    assert isinstance(decision.status, VolumeBackupStatus)
    return decision.status.conditions[0].reason


def test_movers_not_listed_yet_count(admission: MoverAdmission) -> None:
    started = [starts(decide(admission, operation(number))) for number in range(5)]
    assert started == [True, True, False, False, False]


def test_mover_both_listed_and_remembered_counts_once(admission: MoverAdmission) -> None:
    assert starts(decide(admission, operation(1)))
    shown = ObservedMover(others=frozenset({RunningMover("b-1", "s-1")}))
    assert starts(decide(admission, operation(2), shown))


def test_oldest_waiting_operation_goes_first(admission: MoverAdmission) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in (3, 1, 2):
        assert reason(decide(admission, operation(number), full)) == "Queued"
    one_free = ObservedMover(others=frozenset({RunningMover("x", "s-1")}))
    assert [starts(decide(admission, operation(number), one_free)) for number in (3, 2, 4, 1)] == [
        False,
        False,
        False,
        True,
    ]


def test_operation_that_does_not_return_blocks_no_other(admission: MoverAdmission, clock: Clock) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in (1, 2):
        decide(admission, operation(number), full)
    clock.now += 60
    assert starts(decide(admission, operation(3)))


def test_operation_queued_for_its_store_blocks_no_other_store(admission: MoverAdmission) -> None:
    narrow = a_store(limits={"movers": 1})
    busy = ObservedMover(others=frozenset({RunningMover("x", "s-1")}))
    for number in (1, 2):
        assert reason(decide(admission, operation(number), busy, narrow)) == "Queued"
    other = a_store().model_copy(update={"metadata": a_store().metadata.model_copy(update={"uid": "s-2"})})
    assert starts(decide(admission, operation(3), busy, other))


def test_finished_mover_frees_its_slot_at_once(admission: MoverAdmission) -> None:
    for number in (1, 2):
        assert starts(decide(admission, operation(number)))
    ended = a_job("b-1", conditions=[{"type": "Failed", "status": "True"}])
    decide(admission, operation(1), ObservedMover(job=ended))
    assert starts(decide(admission, operation(3)))


def test_mover_that_was_never_created_is_forgotten(admission: MoverAdmission, clock: Clock) -> None:
    for number in (1, 2):
        assert starts(decide(admission, operation(number)))
    clock.now += 31
    assert starts(decide(admission, operation(3)))


def test_vanished_operations_use_no_memory(admission: MoverAdmission, clock: Clock) -> None:
    full = ObservedMover(others=frozenset({RunningMover("x", "s-1"), RunningMover("y", "s-1")}))
    for number in range(100):
        decide(admission, operation(number), full)
    clock.now += 600
    decide(admission, operation(100), full)
    assert len(admission._queued) == 1
