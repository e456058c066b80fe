"""Which backups count as expired, what they wait for, and which are removed together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle.actions import RemoveExpiredData
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.backup import expiry
from cinderblock.lifecycle.observed import ExpiredSibling, RemovedBackup
from tests.support.simulation.observed_builders import NOW, a_restore, accepted, available, observed_backup

LONG_AGO = (NOW - timedelta(days=1)).isoformat()


def expired(uid: str = "b-1", **status: Any) -> VolumeBackup:
    return available(uid, deleting=True, **({"expiresAt": LONG_AGO} | status))


def waits_for(*siblings: VolumeBackup, **fields: Any) -> str | None:
    wait = expiry.obstacle(observed_backup(expired(), siblings=siblings, **fields), NOW)
    return wait.reason if wait else None


@pytest.mark.parametrize(
    ("late", "is_expired"),
    [(timedelta(), True), (timedelta(days=9), True), (timedelta(seconds=-59), True), (timedelta(seconds=-61), False)],
)
def test_deletion_at_or_after_the_time_is_an_expiry(late: timedelta, is_expired: bool) -> None:
    backup = available(deleting=True, expiresAt=(NOW - late).isoformat())
    assert expiry.is_expired(backup) is is_expired


def test_backup_that_nobody_deletes_has_not_expired() -> None:
    assert not expiry.is_expired(available(expiresAt=LONG_AGO))
    assert not expiry.is_expired(available(deleting=True))


def test_status_of_another_object_expires_nothing() -> None:
    copied = expired()
    foreign = copied.model_copy(update={"status": copied.status.model_copy(update={"id": "another"})})
    assert not expiry.is_expired(foreign)


def test_finished_dependents_hold_up_nothing() -> None:
    assert waits_for(available("b-2", parentId="b-1"), expired("b-3", parentId="b-1")) is None


def test_unfinished_child_holds_up_its_parent() -> None:
    assert waits_for(accepted("b-2", parentId="b-1")) == "BackupInUse"
    assert waits_for(accepted("b-2", parentId="b-3"), available("b-3")) is None
    assert waits_for(accepted("b-2", parentId="b-3"), present_parents=frozenset({"b-3"})) is None


def test_unfinished_backup_without_its_parent_holds_up_all() -> None:
    assert waits_for(accepted("b-2", parentId="b-9")) == "BackupInUse"


def test_cancelled_child_holds_up_its_parent_while_it_has_a_mover() -> None:
    child = accepted("b-2", deleting=True, parentId="b-1", phase="deleting", mover={"uid": "j-1"})
    assert waits_for(child) == "BackupInUse"
    assert waits_for(accepted("b-2", deleting=True, parentId="b-1", phase="deleting")) is None


def test_restore_holds_up_only_its_backup() -> None:
    assert waits_for(restores=(a_restore(phase="restoring"),)) == "BackupInUse"
    assert waits_for(restores=(a_restore(phase="restoring", backupId="b-2"),)) is None
    assert waits_for(restores=(a_restore(phase="available"),)) is None


@pytest.mark.parametrize(
    "other",
    [
        available("b-2"),
        available("b-2", deleting=True),
        expired("b-2", volumeId="c-2"),
        expired("b-2", storeName="another"),
        expired("b-2", container="another"),
        expired("b-2", spec={"deletionPolicy": "Retain"}),
        expired("b-2", manifestKey=None),
        accepted("b-2", deleting=True, phase="deleting", expiresAt=LONG_AGO, mover={"uid": "j-1"}),
    ],
)
def test_only_expired_backups_of_the_place_go_along(other: VolumeBackup) -> None:
    assert not expiry.is_ready(other, expired())
    assert expiry.is_ready(expired("b-3"), expired())


def test_let_go_backup_does_not_go_along() -> None:
    other = expired("b-2")
    other.metadata.annotations[labels.RELEASED_ANNOTATION] = "leave-data"
    assert not expiry.is_ready(other, expired())


def test_obstacles_hold_up_only_what_they_concern() -> None:
    others = tuple(ExpiredSibling(f"b-{number}", f"backups/c-1/b-{number}.manifest") for number in (5, 4, 3, 2))
    siblings = (accepted("b-9", parentId="b-2"), available("b-8"))
    restores = (a_restore(phase="restoring", backupId="b-4"),)
    observed = observed_backup(
        expired(),
        expired_siblings=others,
        siblings=siblings,
        restores=restores,
        present_parents=frozenset({"b-2"}),
    )
    assert expiry.batch(observed) == ("b-1", "b-3", "b-5")


def test_finalizer_stays_until_the_removal_was_executed() -> None:
    decision = backup_decide.decide(observed_backup(expired(), data_present=False), NOW)
    assert [type(action) for action in decision.actions] == [RemoveExpiredData]
    running = backup_decide.decide(observed_backup(expired(), removal_runs=True), NOW)
    assert running.actions == ()
    done = backup_decide.decide(observed_backup(expired(), removed=RemovedBackup(0)), NOW)
    assert labels.BACKUP_FINALIZER in str(done.actions)
