"""Decisions about a BackupStore: report whether it answers, and keep it while backups need it."""

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
from cinderblock.lifecycle.verdicts import Fail
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


def decide(error: CinderblockError | None = None, used_by: tuple[str, ...] = (), **store: Any) -> Decision:
    return store_decide.decide(observed(error, used_by, **store), NOW)


def observed(error: CinderblockError | None = None, used_by: tuple[str, ...] = (), **store: Any) -> ObservedStore:
    found = a_store(**store)
    return ObservedStore(found, StoreLookup(found, "", error), used_by)


def conditions(decision: Decision) -> list[tuple[str, str, str, str]]:
    assert isinstance(decision.status, BackupStoreStatus)
    return [(c.type, c.status, c.reason, c.message) for c in decision.status.conditions]


def test_answering_store_is_ready() -> None:
    answers = "The store answers and the container may be listed"
    assert conditions(decide()) == [("Ready", "True", "Answers", answers)]


@pytest.mark.parametrize(
    ("error", "requeue_after"),
    [
        (StoreUnreachable("no answer from https://s3"), 10.0),
        (AccessDenied("the key is refused"), 60.0),
        (NotFound("Secret s3 does not exist", reason="SecretNotFound"), 60.0),
    ],
)
def test_failing_store_is_stalled_and_checked_again(error: CinderblockError, requeue_after: float) -> None:
    decision = decide(error)
    assert conditions(decision) == [
        ("Ready", "False", error.reason, error.message),
        ("Stalled", "True", error.reason, error.message),
    ]
    assert decision.requeue_after is not None
    assert requeue_after <= decision.requeue_after <= 1.1 * requeue_after


def test_store_whose_movers_cannot_reach_the_broker_is_stalled() -> None:
    silent = replace(observed(), unreachable=Fail("BrokerUnavailable", "no answer"))
    assert conditions(store_decide.decide(silent, NOW))[0] == ("Ready", "False", "BrokerUnavailable", "no answer")


def test_only_a_store_in_use_is_checked_again() -> None:
    asked_again = decide(used_by=("full",)).requeue_after
    assert asked_again is not None
    assert 60.0 <= asked_again <= 66.0
    assert decide().requeue_after is None


def test_store_has_a_finalizer_while_backups_exist() -> None:
    assert decide(used_by=("full",)).actions == ADD
    assert decide(used_by=("full",), finalizer=True).actions == ()
    assert decide(finalizer=True).actions == REMOVE
    assert decide().actions == ()


def test_deleted_store_stays_while_backups_need_it() -> None:
    used_by = tuple(f"backup-{number:02}" for number in reversed(range(12)))
    decision = decide(used_by=used_by, finalizer=True, deleting=True)
    first_ten = ", ".join(f"backup-{number:02}" for number in range(10))
    words = f"VolumeBackups need this store: {first_ten}"
    assert conditions(decision) == [("Ready", "False", "InUse", words), ("Reconciling", "True", "InUse", words)]
    assert decision.actions == ()


def test_deleted_store_is_released_with_its_last_backup() -> None:
    assert decide(finalizer=True, deleting=True).actions == REMOVE
    assert decide(StoreUnreachable("no answer"), finalizer=True, deleting=True).actions == REMOVE


def test_deleted_store_gets_no_finalizer() -> None:
    assert decide(used_by=("full",), deleting=True).actions == ()


@pytest.mark.parametrize("error", [None, StoreUnreachable("no answer"), AccessDenied("refused")])
def test_repeated_decision_keeps_the_store_status(error: CinderblockError | None) -> None:
    first = observed(error, ("full",), finalizer=True)
    status = store_decide.decide(first, NOW).status
    again = replace(first, store=first.store.model_copy(update={"status": status}))
    assert store_decide.decide(again, NOW + timedelta(minutes=7)).status == status
