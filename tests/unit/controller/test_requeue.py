"""How soon an object is reconciled again."""

from __future__ import annotations

import pytest

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import (
    FAST_REQUEUES,
    IDLE_REQUEUE_SECONDS,
    STORES_AT_FULL_RATE,
    STORES_OF_A_NAMESPACE,
    RequeuePolicy,
    Result,
)
from cinderblock.controller.workqueue import Priority

KEY = ObjectKey("VolumeRestore", "ns", "one")
STORES = [ObjectKey("BackupStore", f"ns-{number}", "default") for number in range(10 * STORES_AT_FULL_RATE)]


def test_unchanged_object_is_requeued_fast_a_few_times_then_slowly() -> None:
    policy = RequeuePolicy()
    results = [policy.next(KEY, "7", 1.0) for _ in range(FAST_REQUEUES + 3)]
    assert results == [Result(1.0)] * FAST_REQUEUES + [Result(IDLE_REQUEUE_SECONDS)] * 3


def test_changing_object_is_requeued_as_soon_as_it_asks() -> None:
    policy = RequeuePolicy()
    assert {policy.next(KEY, str(version), 0.5) for version in range(50)} == {Result(0.5)}


def test_slow_requeues_and_none_stay_as_asked() -> None:
    policy = RequeuePolicy()
    asked = (30.0, None, 30.0, None) * 5
    assert [policy.next(KEY, "7", seconds) for seconds in asked] == [Result(seconds) for seconds in asked]


def test_many_stores_share_the_rate_of_a_few() -> None:
    policy = RequeuePolicy()
    results = [policy.next(key, "7", 60.0) for key in STORES]
    assert set(results[:STORES_AT_FULL_RATE]) == {Result(60.0)}
    assert results[-1] == Result(600.0)
    informed = RequeuePolicy()
    informed.register(STORES)
    assert informed.next(STORES[0], "7", 60.0) == Result(600.0)
    for key in STORES[STORES_AT_FULL_RATE:]:
        policy.forget(ObjectKey("VolumeBackup", key.namespace, key.name))
    assert policy.next(STORES[0], "7", 60.0) == Result(600.0)
    for key in STORES[STORES_AT_FULL_RATE:]:
        policy.forget(key)
    assert policy.next(STORES[0], "7", 60.0) == Result(60.0)


def test_very_many_stores_of_one_namespace_hardly_delay_those_of_others() -> None:
    policy = RequeuePolicy()
    flood = [ObjectKey("BackupStore", "flood", f"store-{number}") for number in range(6000)]
    policy.register([*flood, *STORES[:STORES_AT_FULL_RATE]])
    delayed = policy.next(STORES[0], "7", 60.0).requeue_after
    assert delayed is not None
    assert 60.0 < delayed <= 80.0
    checks = sum(1 / (policy.next(key, "7", 60.0).requeue_after or 1) for key in [*flood, *STORES[:60]])
    assert checks == pytest.approx(STORES_AT_FULL_RATE / 60.0)
    for key in flood:
        policy.forget(key)
    assert policy.next(STORES[0], "7", 60.0) == Result(60.0)


def test_namespace_with_a_usual_number_of_stores_is_not_delayed() -> None:
    policy = RequeuePolicy()
    stores = [ObjectKey("BackupStore", "shop", f"store-{number}") for number in range(STORES_OF_A_NAMESPACE)]
    policy.register(stores)
    assert {policy.next(key, "7", 60.0) for key in stores} == {Result(60.0)}


def test_many_stores_do_not_delay_other_objects() -> None:
    policy = RequeuePolicy()
    for key in STORES:
        policy.next(key, "7", 60.0)
    assert policy.next(KEY, "7", 10.0) == Result(10.0)


def test_object_that_changes_and_continues_at_once_has_priority() -> None:
    policy = RequeuePolicy()
    results = [policy.next(KEY, version, 0.0) for version in ("1", "2", "2", "2", "3")]
    assert {result.requeue_after for result in results} == {0.0}
    assert [result.priority for result in results] == [
        Priority.STARTED,
        Priority.STARTED,
        Priority.NORMAL,
        Priority.NORMAL,
        Priority.STARTED,
    ]


def test_thousand_shared_stores_delay_no_other_store() -> None:
    policy, own = RequeuePolicy(), ObjectKey("BackupStore", "shop", "own")
    policy.register([*STORES, own])
    results = [policy.next(key, "7", 60.0, is_shared_store=True) for key in STORES]
    policy.register([*STORES, own])
    assert policy.next(own, "7", 60.0) == Result(60.0)
    assert results[-1] == Result(600.0), "they delay each other"
    for key in STORES:
        policy.forget(key)
    assert policy.next(STORES[0], "7", 60.0, is_shared_store=True) == Result(60.0)
