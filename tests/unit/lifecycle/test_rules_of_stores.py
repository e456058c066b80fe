"""What is decided about a BackupStore: whether it answers is said, and it stays while backups need it (DESIGN 2, 4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.labels import STORE_FINALIZER
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus
from cinderblock.errors import AccessDenied, CinderblockError, NotFound, StoreUnreachable
from cinderblock.lifecycle.actions import AddFinalizer, Decision, RemoveFinalizer
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import decide as store_decide
from tests.support.simulation.observed_builders import NOW

ADD, REMOVE = (AddFinalizer(STORE_FINALIZER),), (RemoveFinalizer(STORE_FINALIZER),)


def a_store(*, finalizer: bool = False, deleting: bool = False) -> BackupStore:
    metadata = {
        "name": "default",
        "namespace": "shop",
        "uid": "s-1",
        "generation": 3,
        "finalizers": [STORE_FINALIZER] if finalizer else [],
        "deletionTimestamp": NOW if deleting else None,
    }
    return BackupStore.model_validate({"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})


def decide(trouble: CinderblockError | None = None, used_by: tuple[str, ...] = (), **store: Any) -> Decision:
    return store_decide.decide(observed(trouble, used_by, **store), NOW)


def observed(trouble: CinderblockError | None = None, used_by: tuple[str, ...] = (), **store: Any) -> ObservedStore:
    seen = a_store(**store)
    return ObservedStore(seen, StoreLookup(seen, "", trouble), used_by)


def said(decision: Decision) -> list[tuple[str, str, str, str]]:
    assert isinstance(decision.status, BackupStoreStatus)
    return [(c.type, c.status, c.reason, c.message) for c in decision.status.conditions]


def test_a_store_that_answers_is_ready() -> None:
    answers = "The store answers and the container may be listed"
    assert said(decide()) == [("Ready", "True", "Answers", answers)]


@pytest.mark.parametrize(
    ("trouble", "requeue_after"),
    [
        (StoreUnreachable("no answer from https://s3"), 10.0),
        (AccessDenied("the key is refused"), 60.0),
        (NotFound("Secret s3 does not exist", reason="SecretNotFound"), 60.0),
    ],
)
def test_a_store_that_does_not_is_stalled_in_its_own_words_and_is_asked_again(
    trouble: CinderblockError, requeue_after: float
) -> None:
    decision = decide(trouble)
    assert said(decision) == [
        ("Ready", "False", trouble.reason, trouble.message),
        ("Stalled", "True", trouble.reason, trouble.message),
    ]
    assert decision.requeue_after is not None
    assert requeue_after <= decision.requeue_after <= 1.1 * requeue_after


def test_a_store_that_is_in_use_is_asked_again_and_one_that_nobody_uses_is_left_in_peace() -> None:
    asked_again = decide(used_by=("full",)).requeue_after
    assert asked_again is not None
    assert 60.0 <= asked_again <= 66.0
    assert decide().requeue_after is None


def test_a_store_is_held_from_its_first_backup_until_its_last() -> None:
    assert decide(used_by=("full",)).actions == ADD
    assert decide(used_by=("full",), finalizer=True).actions == ()
    assert decide(finalizer=True).actions == REMOVE
    assert decide().actions == ()


def test_a_store_that_is_deleted_while_backups_need_it_names_them_and_stays() -> None:
    used_by = tuple(f"backup-{number:02}" for number in reversed(range(12)))
    decision = decide(used_by=used_by, finalizer=True, deleting=True)
    first_ten = ", ".join(f"backup-{number:02}" for number in range(10))
    words = f"VolumeBackups need this store: {first_ten}"
    assert said(decision) == [("Ready", "False", "InUse", words), ("Reconciling", "True", "InUse", words)]
    assert decision.actions == ()


def test_a_store_that_is_deleted_goes_with_its_last_backup_whether_it_answers_or_not() -> None:
    assert decide(finalizer=True, deleting=True).actions == REMOVE
    assert decide(StoreUnreachable("no answer"), finalizer=True, deleting=True).actions == REMOVE


def test_a_finalizer_is_never_put_on_a_store_that_is_going() -> None:
    assert decide(used_by=("full",), deleting=True).actions == ()


@pytest.mark.parametrize("trouble", [None, StoreUnreachable("no answer"), AccessDenied("refused")])
def test_the_same_store_seen_again_says_the_same(trouble: CinderblockError | None) -> None:
    first = observed(trouble, ("full",), finalizer=True)
    status = store_decide.decide(first, NOW).status
    again = replace(first, store=first.store.model_copy(update={"status": status}))
    assert store_decide.decide(again, NOW + timedelta(minutes=7)).status == status
