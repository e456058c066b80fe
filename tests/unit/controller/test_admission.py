"""Mover limits hold although observations are a moment old, the oldest goes first, and nothing waits for ghosts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.reconcile.admission import TURN_SECONDS, MoverAdmission
from cinderblock.controller.request import ObjectKey
from cinderblock.lifecycle.actions import CreateChild, Decision, DeleteChild
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.mover.fair_order import count_before
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
POLICY = OperatorPolicy(MoverSettings("example/cinderblock:1", limit=LIMIT, namespace_limit=LIMIT))


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


def operation(number: int, namespace: str = "shop", **status: Any) -> VolumeBackup:
    """Return an accepted backup. The larger its number, the younger it is."""
    backup = accepted(f"b-{number}", created=NOW - timedelta(hours=1) + timedelta(seconds=number), **status)
    return backup.model_copy(update={"metadata": backup.metadata.model_copy(update={"namespace": namespace})})


def key(name: str) -> ObjectKey:
    return ObjectKey("VolumeBackup", "shop", name)


def load(admission: MoverAdmission, *names: str, namespace: str = "shop", store: str = "default") -> None:
    """Let statuses record running movers."""
    admission.load((key(name), RunningMover(name, namespace, store)) for name in names)


def decide(
    admission: MoverAdmission,
    backup: VolumeBackup,
    mover: ObservedMover | None = None,
    store: BackupStore | None = None,
) -> Decision:
    """Decide about a backup and its observed mover, as a worker does."""
    used = store or a_store()
    used = used.model_copy(update={"metadata": used.metadata.model_copy(update={"namespace": backup.namespace})})
    admitted = admission.observe(backup, mover or ObservedMover(), used, POLICY.mover)
    snapshot = a_snapshot(owner=backup.uid)
    late = a_class("fast", volumeBindingMode="WaitForFirstConsumer")
    observed: ObservedBackup = observed_backup(
        backup, mover=admitted, store=StoreLookup(used), snapshot=snapshot, classes=(late,)
    )
    observed = ObservedBackup(**{name: getattr(observed, name) for name in observed.__slots__} | {"policy": POLICY})
    decision = backup_decide.decide(observed, NOW)
    admission.record(backup, admitted, used, decision, POLICY.mover)
    return decision


def starts(decision: Decision) -> bool:
    return any(isinstance(action, CreateChild) and action.kind == "Job" for action in decision.actions)


def reason(decision: Decision) -> str:
    assert isinstance(decision.status, VolumeBackupStatus)
    return decision.status.conditions[0].reason


def test_movers_not_confirmed_yet_count(admission: MoverAdmission) -> None:
    started = [starts(decide(admission, operation(number))) for number in range(5)]
    assert started == [True, True, False, False, False]


def test_mover_both_recorded_and_decided_on_counts_once(admission: MoverAdmission) -> None:
    assert starts(decide(admission, operation(1)))
    admission.load([(key("backup-b-1"), RunningMover("b-1", "shop", "default"))])
    assert starts(decide(admission, operation(2)))


def test_oldest_waiting_operation_goes_first(admission: MoverAdmission) -> None:
    load(admission, "x", "y")
    for number in (3, 1, 2):
        assert reason(decide(admission, operation(number))) == "Queued"
    admission.forget(key("y"))
    assert [starts(decide(admission, operation(number))) for number in (3, 2, 4, 1)] == [False, False, False, True]


def test_operation_that_does_not_return_blocks_no_other(admission: MoverAdmission, clock: Clock) -> None:
    load(admission, "x", "y")
    for number in (1, 2):
        decide(admission, operation(number))
    admission.forget(key("x"))
    clock.now += 60
    assert starts(decide(admission, operation(3)))


def test_operation_queued_for_its_store_blocks_no_other_store(admission: MoverAdmission) -> None:
    narrow = a_store(limits={"movers": 1})
    load(admission, "x")
    for number in (1, 2):
        assert reason(decide(admission, operation(number), None, narrow)) == "Queued"
    other = a_store().model_copy(update={"metadata": a_store().metadata.model_copy(update={"name": "other"})})
    assert starts(decide(admission, operation(3), None, other))


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


WAIT = Decision(None, requeue_after=5.0)
"""The decision that replaces one whose actions failed."""


def test_mover_that_was_refused_frees_its_slot(admission: MoverAdmission) -> None:
    load(admission, "x")
    assert starts(decide(admission, operation(1)))
    admission.record(operation(1), ObservedMover(), a_store(), WAIT, POLICY.mover)
    assert starts(decide(admission, operation(2)))


def test_mover_that_failed_for_now_leaves_its_slot_to_no_younger_operation(
    admission: MoverAdmission, clock: Clock
) -> None:
    load(admission, "x")
    assert starts(decide(admission, operation(2)))
    admission.record(operation(2), ObservedMover(), a_store(), WAIT, POLICY.mover, stays_queued=True)
    assert reason(decide(admission, operation(3))) == "Queued"
    assert starts(decide(admission, operation(1))), "an older one may have it"
    admission.record(operation(1), ObservedMover(), a_store(), WAIT, POLICY.mover)
    assert starts(decide(admission, operation(2)))
    admission.record(operation(2), ObservedMover(), a_store(), WAIT, POLICY.mover, stays_queued=True)
    clock.now += 11
    assert starts(decide(admission, operation(3))), "it did not return"


def test_confirmed_mover_counts_as_long_as_it_runs(admission: MoverAdmission, clock: Clock) -> None:
    for number in (1, 2):
        assert starts(decide(admission, operation(number)))
        admission.confirm(key(f"backup-b-{number}"))
    clock.now += 3600
    assert not starts(decide(admission, operation(3)))


def test_vanished_operations_use_no_memory(admission: MoverAdmission, clock: Clock) -> None:
    load(admission, "x", "y")
    for number in range(100):
        decide(admission, operation(number))
    clock.now += 300
    load(admission, "x", "y")
    decide(admission, operation(100))
    assert sum(len(queue.entries) for queue in admission._queues.values()) == 1


def test_mover_that_ended_while_statuses_were_read_does_not_count(admission: MoverAdmission) -> None:
    ended = a_job("b-1", conditions=[{"type": "Complete", "status": "True"}])
    decide(admission, operation(1, mover={"uid": "j-1"}), ObservedMover(job=ended))
    load(admission, "b-1", "x")
    assert starts(decide(admission, operation(2)))


def test_next_term_counts_nothing_of_the_last(admission: MoverAdmission) -> None:
    load(admission, "x", "y")
    decide(admission, operation(1))
    admission.reset()
    assert not admission.is_loaded
    load(admission)
    assert starts(decide(admission, operation(2)))


def test_namespaces_take_turns(admission: MoverAdmission) -> None:
    load(admission, "x", "y", namespace="greedy")
    for number in range(1, 9):
        decide(admission, operation(number, "greedy"))
    assert reason(decide(admission, operation(10))) == "Queued"
    admission.forget(key("y"))
    assert not starts(decide(admission, operation(1, "greedy")))
    assert starts(decide(admission, operation(10)))


def test_unrecorded_job_is_adopted_only_into_a_free_slot(admission: MoverAdmission) -> None:
    """Else anybody could fill the limit by creating Jobs for their own queued backups."""
    forged = ObservedMover(job=a_job("b-3"), is_recorded=False)
    load(admission, "x", "y")
    refused = decide(admission, operation(3), forged)
    assert (reason(refused), refused.actions[0]) == ("Queued", DeleteChild("Job", "cinderblock-b-3", "j-1"))
    admission.forget(key("x"))
    adopted = decide(admission, operation(3), forged).status
    assert isinstance(adopted, VolumeBackupStatus)
    assert adopted.mover is not None
    assert (adopted.mover.uid, adopted.mover.store_name) == ("j-1", "default")
    assert not starts(decide(admission, operation(4))), "the adopted mover counts"


@given(
    running=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5)),
    waiting=st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 50), min_size=1, unique=True)),
    limit=st.integers(1, 6),
)
def test_no_namespace_waits_for_more_than_its_turn(
    running: dict[str, int], waiting: dict[str, list[int]], limit: int
) -> None:
    """The first operation of a namespace without movers waits for one operation of each other such namespace."""
    ages = {name: sorted((NOW, f"{name}{age:03}") for age in found) for name, found in waiting.items()}
    for name, found in ages.items():
        if running.get(name, 0) == 0:
            before = count_before((name, found[0]), ages, running, namespace_limit=limit, at_most=1000)
            others = [other for other in ages if other != name and running.get(other, 0) == 0]
            assert before <= len(others)


def test_load_counts_what_namespaces_let_start(admission: MoverAdmission) -> None:
    """Verifications let operations go first that can start. Those beyond the limit of their namespace cannot."""
    load(admission, "x", "y", "z")
    for number in (1, 2, 3):
        assert reason(decide(admission, operation(number))) == "Queued"
    found = admission.measure("shop", POLICY.mover)
    assert (found.movers, found.movers_in_namespace, found.waiting, found.waiting_in_namespace) == (LIMIT, 3, 0, 3)
    admission.forget(key("y"))
    admission.forget(key("z"))
    found = admission.measure("blog", POLICY.mover)
    assert (found.movers, found.movers_in_namespace, found.waiting, found.waiting_in_namespace) == (1, 0, 1, 0)


def test_free_slot_is_left_to_the_namespace_served_longest_ago(admission: MoverAdmission, clock: Clock) -> None:
    def is_turn_of(number: int, namespace: str) -> bool:
        return admission.observe(operation(number, namespace), ObservedMover(), a_store(), POLICY.mover).is_its_turn

    for number, namespace in ((1, "greedy"), (2, "other")):
        clock.now += 10
        assert starts(decide(admission, operation(number, namespace)))
        admission.confirm(ObjectKey("VolumeBackup", namespace, f"backup-b-{number}"))
    for number, namespace in ((3, "greedy"), (4, "other"), (5, "new")):
        assert not starts(decide(admission, operation(number, namespace)))
    assert is_turn_of(3, "greedy"), "no mover has ended yet"
    admission.forget(ObjectKey("VolumeBackup", "greedy", "backup-b-1"))
    turns = [is_turn_of(3, "greedy"), is_turn_of(4, "other"), is_turn_of(5, "new")]
    assert turns == [False, False, True]
    clock.now += TURN_SECONDS
    assert is_turn_of(3, "greedy"), "the others did not begin in time"
