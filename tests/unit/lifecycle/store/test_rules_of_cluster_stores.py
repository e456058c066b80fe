"""Decisions about a ClusterBackupStore: which BackupStores it has, what its conditions say, and when it may go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStoreStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import AccessDenied, InvalidInput, StoreUnreachable
from cinderblock.lifecycle.actions import Decision, RemoveFinalizer
from cinderblock.lifecycle.store.cluster import (
    MAX_CHECKS,
    MAX_WRITES,
    ObservedClusterStore,
    Plan,
    Turns,
    backup_store,
    conflicts,
    decide,
    must_be_held,
    plan,
)
from cinderblock.lifecycle.verdicts import Fail
from tests.support.shared_stores import a_backup_store, a_cluster_store, a_namespace
from tests.support.simulation.observed_builders import NOW

HELD = {"finalizers": [labels.STORE_FINALIZER]}
DELETED = HELD | {"deletionTimestamp": NOW}
MARKED = {"annotations": {labels.DEFAULT_STORE_ANNOTATION: "true"}}
OURS = {"labels": {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}}


def ours(namespace: str, reason: str = "Answers", **metadata: Any) -> BackupStore:
    """Return a BackupStore that the operator made."""
    status = "True" if reason == "Answers" else "False"
    shown = {"type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": NOW}
    return a_backup_store(namespace, metadata=OURS | metadata, status={"conditions": [shown]})


def observed(*stores: BackupStore, allowed: tuple[str, ...] = (), **more: Any) -> ObservedClusterStore:
    cluster = a_cluster_store(metadata=more.pop("metadata", HELD))
    by_namespace = {store.namespace: store for store in stores}
    return ObservedClusterStore(cluster, allowed=frozenset(allowed), stores=by_namespace, **more)


def after(reason: str, found: ObservedClusterStore) -> ObservedClusterStore:
    """Return the observed state of a store that was not ready for a reason before."""
    shown = {"type": "Ready", "status": "False", "reason": reason, "message": "", "lastTransitionTime": NOW}
    status = ClusterBackupStoreStatus.model_validate({"conditions": [shown]})
    return replace(found, cluster=found.cluster.model_copy(update={"status": status}))


def conditions(decision: Decision) -> dict[str, tuple[str, str]]:
    assert isinstance(decision.status, ClusterBackupStoreStatus)
    return {c.type: (c.status, c.reason) for c in decision.status.conditions}


def message(decision: Decision, kind: str) -> str:
    assert decision.status is not None
    return next(c.message for c in decision.status.conditions if c.type == kind)


def judge(found: ObservedClusterStore, **failures: str) -> Decision:
    return decide(found, plan(found), failures, NOW)


def test_allowed_namespaces_without_a_store_get_one() -> None:
    found = observed(ours("shop"), allowed=("shop", "bank"))
    assert plan(found) == Plan(creations=("bank",))
    assert conditions(judge(found)) == {"Ready": ("True", "Answers"), "StoresCreated": ("True", "StoresCreated")}


def test_new_store_names_its_cluster_store_and_nothing_else() -> None:
    body = backup_store(a_cluster_store(), "shop")
    assert body == {
        "metadata": {"name": "shared", "namespace": "shop", **OURS},
        "spec": {"clusterStoreRef": {"name": "shared"}},
    }
    assert backup_store(a_cluster_store(metadata=MARKED), "shop")["metadata"]["annotations"] == MARKED["annotations"]


def test_finalizer_comes_before_the_first_store() -> None:
    assert must_be_held(observed(allowed=("shop",), metadata={}))
    assert must_be_held(observed(ours("shop"), metadata={}))
    assert not must_be_held(observed(metadata={}))
    assert not must_be_held(observed(allowed=("shop",)))
    assert not must_be_held(observed(ours("shop"), metadata={"deletionTimestamp": NOW}))


def test_many_namespaces_get_their_stores_in_several_steps() -> None:
    found = observed(allowed=tuple(f"n-{number:03}" for number in range(MAX_WRITES + 1)))
    planned = plan(found)
    assert (len(planned.creations), planned.is_all) == (MAX_WRITES, False)
    decision = judge(found)
    assert conditions(decision)["StoresCreated"] == ("False", "CreatingStores")
    assert decision.requeue_after == 5.0


def test_namespaces_after_the_last_one_come_first() -> None:
    found = observed(allowed=tuple(f"n-{number:03}" for number in range(MAX_WRITES + 2)))
    first = plan(found).creations
    assert plan(found, Turns(created=first[-1])).creations[:3] == (
        *(f"n-{MAX_WRITES:03}", f"n-{MAX_WRITES + 1:03}"),
        "n-000",
    )
    late = tuple(ours(name, "StoreNotAllowed") for name in ("a", "b", "c"))
    assert [store.namespace for store in plan(observed(*late), Turns(removed="b")).removals] == ["c", "a", "b"]


def test_foreign_finalizer_of_a_namespace_holds_no_cluster_store() -> None:
    ending = ours("shop", "StoreNotAllowed", deletionTimestamp=NOW, finalizers=["example.com/mine"])
    assert judge(observed(ending, metadata=DELETED)).actions == (RemoveFinalizer(labels.STORE_FINALIZER),)
    used = ours("shop", "InUse", deletionTimestamp=NOW, finalizers=["example.com/mine", labels.STORE_FINALIZER])
    assert judge(observed(used, metadata=DELETED)).actions == ()


def test_wrong_selector_does_not_keep_a_store_in_deletion() -> None:
    wrong, free = InvalidInput("The selector is wrong"), ours("shop")
    assert plan(observed(free, selector_error=wrong)) == Plan()
    assert plan(observed(free, metadata=DELETED, selector_error=wrong)).removals == (free,)


@pytest.mark.parametrize("reason", ["BrokerDisabled", "InUse", "InvalidInput"])
def test_state_that_a_check_cannot_change_is_not_checked_early(reason: str) -> None:
    """A check every 30 seconds of each of a thousand stores would never end."""
    found = observed(ours("shop", reason), allowed=("shop",), unreachable=Fail("BrokerDisabled", "Set broker.enabled"))
    assert plan(after("BrokerDisabled", found)).checks == ()
    assert plan(observed(ours("shop", reason))).checks == (), "its namespace may not use the store"


def test_end_of_a_problem_is_shown_early_by_all_stores() -> None:
    found = observed(ours("shop", "BrokerDisabled"), allowed=("shop",))
    assert len(plan(after("BrokerDisabled", found)).checks) == 1


def test_silence_of_the_broker_is_shown_early_by_all_stores() -> None:
    silent = Fail("BrokerUnavailable", "no answer")
    late, shown = ours("shop"), ours("bank", "BrokerUnavailable")
    assert plan(observed(late, shown, allowed=("bank", "shop"), unreachable=silent)).checks == (late,)
    assert plan(observed(late, shown, allowed=("bank", "shop"))).checks == (shown,), "the broker answers again"


def test_all_stores_are_checked_soon_after_an_outage() -> None:
    """The ClusterBackupStore is shown as ready by then, so only the BackupStores say who is left."""
    left = {f"n-{number:03}": ours(f"n-{number:03}", "StoreUnreachable") for number in range(MAX_CHECKS + 2)}
    turns = Turns()
    for _ in range(2):
        found = observed(*left.values(), ours("own", "ManifestMisplaced"), allowed=(*left, "own"))
        planned = plan(found, turns)
        assert len(planned.checks) <= MAX_CHECKS
        for store in planned.checks:
            left[store.namespace] = ours(store.namespace)
        turns = Turns(checked=planned.checks[-1].namespace)
    assert all(store.is_ready for store in left.values())


def test_checks_that_are_left_come_soon_and_in_turn() -> None:
    names = tuple(f"n-{number:03}" for number in range(MAX_CHECKS + 2))
    found = observed(*(ours(name, "StoreUnreachable") for name in names), allowed=names)
    first = plan(found)
    assert judge(found).requeue_after == 10.0
    assert [s.namespace for s in plan(found, Turns(checked=first.checks[-1].namespace)).checks[:3]] == [
        *names[-2:],
        "n-000",
    ]


def test_store_that_cannot_be_read_is_named_and_kept() -> None:
    found = observed(ours("shop"), allowed=("shop", "bank"), unreadable=frozenset({"bank"}))
    assert plan(found) == Plan()
    assert conditions(judge(found))["StoresCreated"] == ("False", "InvalidInput")
    assert "bank" in message(judge(found), "StoresCreated")
    assert judge(observed(unreadable=frozenset({"bank"}), metadata=DELETED)).actions == (), "backups may need it"
    assert must_be_held(observed(unreadable=frozenset({"bank"}), metadata={}))


def test_store_of_somebody_else_is_left_alone_and_named() -> None:
    foreign = BackupStore.model_validate(
        {"metadata": {"name": "shared", "namespace": "bank"} | OURS, "spec": {"credentialsSecretRef": {"name": "s3"}}}
    )
    found = observed(ours("shop"), foreign, allowed=("shop", "bank"))
    assert plan(found) == Plan()
    assert conditions(judge(found))["StoresCreated"] == ("False", "NameTaken")
    assert "bank" in message(judge(found), "StoresCreated")
    assert plan(observed(foreign)) == Plan(), "nor is it removed"


def test_handmade_store_counts_and_is_never_changed_or_removed() -> None:
    handmade = a_backup_store("shop")
    assert plan(observed(handmade, allowed=("shop",), metadata=HELD | MARKED)) == Plan()
    assert plan(observed(handmade)).removals == ()
    deleted = observed(handmade, metadata=DELETED)
    assert judge(deleted).actions == (RemoveFinalizer(labels.STORE_FINALIZER),)


def test_unneeded_store_of_a_namespace_that_is_not_allowed_goes() -> None:
    free, used = ours("shop", "StoreNotAllowed"), ours("bank", "StoreNotAllowed", **HELD)
    ending = ours("mail", "StoreNotAllowed", deletionTimestamp=NOW)
    assert plan(observed(free, used, ending)).removals == (free,)


def test_default_annotation_is_copied_to_stores_of_the_operator() -> None:
    plain, marked = ours("shop"), ours("bank", **MARKED)
    allowed = ("shop", "bank")
    assert plan(observed(plain, marked, allowed=allowed, metadata=HELD | MARKED)).changes == (plain,)
    assert plan(observed(plain, marked, allowed=allowed)).changes == (marked,)


def test_wrong_selector_changes_no_store() -> None:
    error = InvalidInput("near is not an operator", reason="InvalidSelector")
    found = observed(ours("shop"), selector_error=error)
    assert plan(found) == Plan()
    assert conditions(judge(found))["Ready"] == ("False", "InvalidSelector")


@pytest.mark.parametrize(
    ("more", "reason", "seconds"),
    [
        ({"error": StoreUnreachable("no answer")}, "StoreUnreachable", 10.0),
        ({"error": AccessDenied("refused")}, "AccessDenied", 30.0),
        ({"unreachable": Fail("BrokerDisabled", "Set broker.enabled")}, "BrokerDisabled", 30.0),
        ({"conflicts": {"shop": "two entries"}}, "FormerNamespaceRefused", 30.0),
    ],
)
def test_store_that_cannot_be_used_is_stalled(more: dict[str, Any], reason: str, seconds: float) -> None:
    decision = judge(observed(**more))
    shown = conditions(decision)
    assert (shown["Ready"], shown["Stalled"]) == (("False", reason), ("True", reason))
    assert decision.requeue_after == seconds


def test_moved_namespace_with_backups_is_refused_by_name() -> None:
    found = observed(ours("shop", "ManifestMisplaced"), allowed=("shop",))
    assert conditions(judge(found))["Ready"] == ("False", "FormerNamespaceRefused")
    assert "shop" in message(judge(found), "Ready")


def test_one_place_for_two_namespaces_is_a_conflict_of_both() -> None:
    former = [
        {"namespace": name, "namespaceUID": f"u-{name}", "name": "old", "uid": "lost"} for name in ("shop", "bank")
    ]
    cluster = a_cluster_store(formerNamespaces=former)
    namespaces = [a_namespace(name) for name in ("shop", "bank", "mail")]
    assert conflicts(cluster, namespaces, {}).keys() == {"shop", "bank"}


def test_place_of_an_existing_namespace_is_a_conflict_of_its_receiver() -> None:
    cluster = a_cluster_store(
        formerNamespaces=[{"namespace": "bank", "namespaceUID": "u-bank", "name": "shop", "uid": "u-shop"}]
    )
    existing = {name: a_namespace(name) for name in ("shop", "bank")}
    assert conflicts(cluster, existing.values(), existing).keys() == {"bank"}
    assert conflicts(cluster, existing.values(), {"bank": existing["bank"]}) == {}


def test_refused_creation_is_reported_with_its_namespace() -> None:
    decision = judge(observed(allowed=("shop", "bank")), bank="a quota is exceeded")
    assert conditions(decision)["StoresCreated"] == ("False", "StoresNotCreated")
    assert "bank: a quota is exceeded" in message(decision, "StoresCreated")


def test_deleted_store_stays_until_no_store_needs_it() -> None:
    used, free = ours("shop", "InUse", **HELD), ours("bank", "StoreBeingDeleted")
    held = judge(observed(used, free, metadata=DELETED, allowed=("mail",)))
    assert held.actions == ()
    assert conditions(held)["Ready"] == ("False", "InUse")
    assert "bank, shop" in message(held, "Ready")
    assert plan(observed(used, free, metadata=DELETED, allowed=("mail",))).removals == (free,)
    assert plan(observed(metadata=DELETED, allowed=("mail",))).creations == ()
    assert judge(observed(metadata=DELETED)).actions == (RemoveFinalizer(labels.STORE_FINALIZER),)


def test_outdated_conditions_of_stores_are_checked_early() -> None:
    late, early = ours("shop"), ours("bank", "StoreNotAllowed")
    assert plan(observed(late, early, allowed=("bank",))).checks == (early, late)
    assert plan(observed(late, early, allowed=("shop",))).checks == ()
    down = observed(late, allowed=("shop",), error=StoreUnreachable("no answer"))
    assert plan(down).checks == (late,)


def test_repeated_decision_keeps_the_status() -> None:
    first = observed(ours("shop"), allowed=("shop",))
    status = judge(first).status
    again = replace(first, cluster=first.cluster.model_copy(update={"status": status}))
    assert decide(again, plan(again), {}, NOW + timedelta(minutes=7)).status == status
