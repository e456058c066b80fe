"""Movers of copies have few slots, never hold up backups, and namespaces take turns."""

from __future__ import annotations

from cinderblock.controller.copies.slots import WAITING_SECONDS, CopySlots
from cinderblock.controller.request import ObjectKey
from cinderblock.lifecycle.observed import MoverLoad, MoverSettings

SETTINGS = MoverSettings(image="i", limit=16)
IDLE = MoverLoad()


def key(namespace: str, name: str = "default") -> ObjectKey:
    return ObjectKey("BackupStore", namespace, name)


def test_one_slot_for_each_eight_movers() -> None:
    slots = CopySlots()
    taken = [slots.take(key(f"n{number}"), IDLE, SETTINGS, 0.0) for number in range(4)]
    assert taken == [True, True, False, False]
    slots.release(key("n0"))
    assert slots.take(key("n2"), IDLE, SETTINGS, 1.0)


def test_cluster_with_few_movers_has_one_slot() -> None:
    slots, settings = CopySlots(), MoverSettings(image="i", limit=1)
    assert slots.take(key("a"), IDLE, settings, 0.0)
    assert not slots.take(key("b"), IDLE, settings, 0.0)


def test_backups_of_the_namespace_go_first() -> None:
    slots = CopySlots()
    assert not slots.take(key("a"), MoverLoad(waiting=1, waiting_in_namespace=1), SETTINGS, 0.0)
    assert slots.take(key("b"), MoverLoad(waiting=1), SETTINGS, 0.0)
    assert not slots.take(key("c"), MoverLoad(waiting=1), SETTINGS, 0.0)


def test_namespaces_take_turns() -> None:
    slots, settings = CopySlots(), MoverSettings(image="i", limit=8)
    assert slots.take(key("busy", "one"), IDLE, settings, 0.0)
    assert not slots.take(key("busy", "two"), IDLE, settings, 1.0)
    assert not slots.take(key("calm"), IDLE, settings, 2.0)
    slots.release(key("busy", "one"))
    assert not slots.take(key("busy", "two"), IDLE, settings, 3.0)
    assert slots.take(key("calm"), IDLE, settings, 4.0)


def test_store_that_does_not_come_back_keeps_no_turn() -> None:
    slots, settings = CopySlots(), MoverSettings(image="i", limit=8)
    assert slots.take(key("a"), IDLE, settings, 0.0)
    assert not slots.take(key("gone"), IDLE, settings, 1.0)
    slots.release(key("a"))
    assert not slots.take(key("a"), IDLE, settings, 2.0)
    assert slots.take(key("a"), IDLE, settings, 2.0 + WAITING_SECONDS)


def test_creation_that_failed_takes_no_slot() -> None:
    slots, settings = CopySlots(), MoverSettings(image="i", limit=8)
    assert slots.take(key("a"), IDLE, settings, 0.0)
    assert slots.take(key("a"), IDLE, settings, 1.0)
