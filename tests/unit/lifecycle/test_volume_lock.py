"""Mutual exclusion on a volume follows from the typed state of its operations."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle import conditions, volume_lock
from cinderblock.lifecycle.volume_lock import OperationState
from cinderblock.reasons import Reason
from tests.support.simulation.observed_builders import NOW, a_backup, a_restore, available

OLDER, YOUNGER = NOW - timedelta(hours=1), NOW


def reconciling(reason: str, uid: str = "b-1", **fields: object) -> VolumeBackup:
    """Return a VolumeBackup whose condition Reconciling has this reason."""
    shown = [c.to_wire() for c in conditions.reconciling([], NOW, 1, reason, "")]  # type: ignore[arg-type]
    return a_backup(uid, phase="creating", conditions=shown, **fields)


def test_every_reason_has_a_state() -> None:
    assert set(volume_lock.STATE_BY_REASON) == set(Reason)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.QUEUED, OperationState.WAITING),
        (Reason.VOLUME_BUSY, OperationState.WAITING),
        (Reason.STORE_UNREACHABLE, OperationState.HELD_UP),
        (Reason.VOLUME_STILL_ATTACHED, OperationState.HELD_UP),
        (Reason.SNAPSHOT_NOT_READY, OperationState.WORKING),
        (Reason.MOVER_RUNNING, OperationState.WORKING),
        ("ReasonOfALaterRelease", OperationState.WORKING),
    ],
)
def test_state_follows_from_the_reason(reason: str, state: OperationState) -> None:
    assert volume_lock.state_of(reconciling(reason)) is state


def test_operation_without_own_status_has_no_state() -> None:
    """The status of a copied object describes its original."""
    assert volume_lock.state_of(reconciling("MoverRunning", id="b-9")) is None
    assert volume_lock.state_of(a_restore(id="r-9")) is None


def test_operation_that_has_ended_has_no_state() -> None:
    assert volume_lock.state_of(available()) is None


@pytest.mark.parametrize(
    ("older", "younger", "precedes"),
    [
        (Reason.ACCEPTED, Reason.ACCEPTED, True),
        (Reason.ACCEPTED, Reason.MOVER_RUNNING, False),
        (Reason.MOVER_RUNNING, Reason.ACCEPTED, True),
        (Reason.STORE_UNREACHABLE, Reason.ACCEPTED, False),
    ],
    ids=["the older goes first", "the working one goes first", "both rules agree", "a held-up one blocks nobody"],
)
def test_older_operation_precedes_unless_held_up(older: Reason, younger: Reason, *, precedes: bool) -> None:
    first = reconciling(older, "b-1", created=OLDER)
    second = reconciling(younger, "b-2", created=YOUNGER)
    assert volume_lock.precedes(first, second) is precedes
