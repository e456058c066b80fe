"""How soon an object is looked at again."""

from __future__ import annotations

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import QUICK_LOOKS, SLOW, STORES, RequeuePolicy
from cinderblock.controller.workqueue import IN_HAND

KEY = ObjectKey("VolumeRestore", "ns", "one")


def test_an_object_that_does_not_change_is_looked_at_quickly_for_a_while_and_then_slowly() -> None:
    requeue_policy = RequeuePolicy()
    asked = [requeue_policy.next(KEY, "7", 1.0) for _ in range(QUICK_LOOKS + 3)]
    assert asked == [1.0] * QUICK_LOOKS + [SLOW] * 3


def test_an_object_that_changes_is_looked_at_as_quickly_as_is_asked() -> None:
    requeue_policy = RequeuePolicy()
    assert {requeue_policy.next(KEY, str(version), 0.5) for version in range(50)} == {0.5}


def test_what_is_asked_for_slowly_or_not_at_all_stays_so() -> None:
    requeue_policy = RequeuePolicy()
    assert [requeue_policy.next(KEY, "7", asked) for asked in (30.0, None, 30.0, None) * 5] == [
        30.0,
        None,
        30.0,
        None,
    ] * 5


def test_all_stores_together_are_asked_as_often_as_a_few_of_them() -> None:
    requeue_policy = RequeuePolicy()
    keys = [ObjectKey("BackupStore", f"ns-{number}", "default") for number in range(10 * STORES)]
    asked = [requeue_policy.next(key, "7", 60.0) for key in keys]
    assert set(asked[:STORES]) == {60.0}
    assert asked[-1] == 600.0
    informed = RequeuePolicy()
    informed.register(keys)
    assert informed.next(keys[0], "7", 60.0) == 600.0
    for key in keys[STORES:]:
        requeue_policy.forget(key)
    assert requeue_policy.next(keys[0], "7", 60.0) == 60.0


def test_a_new_object_does_not_wait_for_stores() -> None:
    requeue_policy = RequeuePolicy()
    for number in range(10 * STORES):
        requeue_policy.next(ObjectKey("BackupStore", f"ns-{number}", "default"), "7", 60.0)
    assert requeue_policy.next(KEY, "7", 10.0) == 10.0


def test_what_goes_on_at_once_comes_before_others_as_long_as_it_changes() -> None:
    requeue_policy = RequeuePolicy()
    assert [requeue_policy.next(KEY, version, 0.0) for version in ("1", "2", "2", "2", "3")] == [
        IN_HAND,
        IN_HAND,
        0,
        0,
        IN_HAND,
    ]
