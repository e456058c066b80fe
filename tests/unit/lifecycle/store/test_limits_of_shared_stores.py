"""Limits of a ClusterBackupStore: movers of all namespaces, movers of one, and turns between namespaces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
from typing_extensions import override

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.reconcile.admission import MoverAdmission, _Queued
from cinderblock.lifecycle.actions import CreateChild, Decision
from cinderblock.lifecycle.mover.state import wait_for_slot
from cinderblock.lifecycle.observed import MoverSettings, ObservedMover, OperatorPolicy, RunningMover
from cinderblock.lifecycle.operation import Operation
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason
from tests.support.shared_stores import a_shared_store

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
POLICY = OperatorPolicy(MoverSettings("image", limit=10, namespace_limit=10))


def running(*namespaces: str, cluster_store: str = "shared") -> ObservedMover:
    others = (RunningMover(f"b-{n}", namespace, "shared", cluster_store) for n, namespace in enumerate(namespaces))
    return ObservedMover(others=frozenset(others))


@pytest.mark.parametrize(
    ("namespaces", "words"),
    [
        (("bank", "mail"), None),
        (
            ("bank", "mail", "bank"),
            "No more than 3 movers may use ClusterBackupStore shared, and namespaces take turns",
        ),
        (
            ("shop", "shop"),
            "No more than 2 movers of a namespace may use BackupStore shared, and older operations go first",
        ),
    ],
)
def test_movers_of_all_namespaces_count(namespaces: tuple[str, ...], words: str | None) -> None:
    store = a_shared_store("shop", limits={"movers": 3, "moversPerNamespace": 2})
    found = wait_for_slot(running(*namespaces), POLICY, store)
    assert (found.message if found else None) == words


def test_movers_of_own_stores_with_the_same_name_do_not_count() -> None:
    store = a_shared_store("shop", limits={"movers": 1})
    assert wait_for_slot(running("bank", "mail", cluster_store=""), POLICY, store) is None


def a_backup(namespace: str, number: int) -> VolumeBackup:
    created = NOW + timedelta(seconds=number)
    metadata = {"name": f"b-{number}", "namespace": namespace, "uid": f"{namespace}-{number}", "generation": 1}
    return VolumeBackup.model_validate(
        {"metadata": metadata | {"creationTimestamp": created}, "spec": {"volumeId": "data"}}
    )


def test_namespaces_take_turns_for_the_slots_of_a_shared_store() -> None:
    admission, policy = MoverAdmission(lambda: 0.0), POLICY
    queue = [a_backup("shop", number) for number in range(6)] + [a_backup("bank", 10), a_backup("mail", 11)]
    started: list[str] = []
    for _ in range(3):
        for backup in queue:
            store = a_shared_store(backup.namespace, limits={"movers": 3})
            mover = admission.observe(backup, ObservedMover(), store, policy.mover)
            wait = wait_for_slot(mover, policy, store)
            operation = Operation(backup, backup.status, mover, NOW)
            decision = Decision(None, (CreateChild("Job", {}),)) if wait is None else _queued(operation, wait)
            if backup.uid in started:
                continue
            admission.record(backup, mover, store, decision, policy.mover)
            started += [backup.uid] if wait is None else []
    assert started[0] == "shop-0"
    assert len(started) == 3
    admission.forget(next(key for key in admission._running if key.namespace == "shop"))
    again = {}
    for backup in queue:
        if backup.uid not in started:
            store = a_shared_store(backup.namespace, limits={"movers": 3})
            again[backup.uid] = admission.observe(backup, ObservedMover(), store, policy.mover)
    first = [uid for uid, mover in again.items() if mover.waiting_before_for_cluster_store == 0]
    assert first == ["bank-10"], "the namespace without a mover goes before those that have some"


def _queued(operation: Operation, wait: Wait) -> Decision:
    return operation.wait(wait)


class _NeverListed(dict[str, _Queued]):
    """The waiting operations of a namespace, of which there may be thousands."""

    @override
    def items(self) -> NoReturn:
        raise AssertionError("a decision must not read each waiting operation of other namespaces")


def test_decision_looks_at_no_waiting_operation_of_other_namespaces() -> None:
    admission, policy = MoverAdmission(lambda: 0.0), POLICY
    for number in range(3):
        for namespace in ("bank", "mail"):
            _wait(admission, a_backup(namespace, number), policy)
    for queue in admission._queues.values():
        queue.entries = _NeverListed(queue.entries)
    store = a_shared_store("shop", limits={"movers": 1})
    assert admission.observe(a_backup("shop", 9), ObservedMover(), store, policy.mover) is not None


def test_namespace_without_free_slots_keeps_none_of_a_shared_store() -> None:
    """It waits for movers of a store of its own, which may take hours. Nobody else must wait for these."""
    policy = OperatorPolicy(MoverSettings("image", limit=10, namespace_limit=1))
    admission, own = MoverAdmission(lambda: 0.0), a_backup("bank", 0)
    uploads = BackupStore.model_validate(
        {"metadata": {"name": "own", "namespace": "bank"}, "spec": {"credentialsSecretRef": {"name": "s3"}}}
    )
    started = Decision(None, (CreateChild("Job", {}),))
    admission.record(own, ObservedMover(), uploads, started, policy.mover)
    _wait(admission, a_backup("bank", 1), policy)
    late, store = a_backup("shop", 9), a_shared_store("shop", limits={"movers": 1})
    observed = admission.observe(late, ObservedMover(), store, policy.mover)
    assert wait_for_slot(observed, policy, store) is None
    admission.forget(next(iter(admission._running)))
    observed = admission.observe(late, ObservedMover(), store, policy.mover)
    assert observed.waiting_before_for_cluster_store == 1, "the older one of the other namespace may start now"


def test_operation_that_no_longer_waits_for_a_shared_store_is_forgotten() -> None:
    admission, policy, store = MoverAdmission(lambda: 0.0), POLICY, a_shared_store("shop", limits={"movers": 1})
    first, second = a_backup("bank", 0), a_backup("bank", 1)
    for backup in (first, second, first):
        _wait(admission, backup, policy)
    late = a_backup("shop", 9)
    observed = admission.observe(late, ObservedMover(), store, policy.mover)
    assert observed.waiting_before_for_cluster_store == 1, "namespaces take turns"
    for backup in (first, second):
        admission.record(backup, ObservedMover(), a_shared_store("bank"), Decision(None), policy.mover)
    observed = admission.observe(late, ObservedMover(), store, policy.mover)
    assert observed.waiting_before_for_cluster_store == 0
    assert [queue.of_cluster_stores for queue in admission._queues.values()] == [{}]


def _wait(admission: MoverAdmission, backup: VolumeBackup, policy: OperatorPolicy) -> None:
    """Let a backup wait for a mover of the shared store."""
    store = a_shared_store(backup.namespace, limits={"movers": 1})
    mover = admission.observe(backup, ObservedMover(), store, policy.mover)
    wait = Wait(Reason.QUEUED, "it waits", requeue_after=10.0)
    operation = Operation(backup, backup.status, mover, NOW)
    admission.record(backup, mover, store, _queued(operation, wait), policy.mover)
