"""Backups of an earlier release that could not be pinned are tried again once an hour, some at each resync."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cinderblock.controller.reconcile.resync import PIN_SLOT_SECONDS, PIN_SLOTS, Record, SteadyStateFilter
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from tests.support.simulation.api import START, stamp

POLICY = OperatorPolicy(MoverSettings("example/cinderblock:1"))
COUNT = 60
READY = "The backup is whole in the store"


def a_record(number: int, *conditions: dict[str, Any]) -> Record:
    """Return a complete backup without pins."""
    uid = f"uid-{number}"
    metadata = {
        "name": f"old-{number}",
        "namespace": "shop",
        "uid": uid,
        "generation": 1,
        "creationTimestamp": stamp(START),
        "finalizers": ["cinderblock.io/backup-data"],
    }
    status = {
        "phase": "available",
        "id": uid,
        "volumeId": "volume",
        "manifestKey": f"backups/volume/{uid}.manifest",
        "objectCount": 1,
        "hasDependentBackups": False,
        "createdAt": stamp(START),
        "updatedAt": stamp(START),
        "observedGeneration": 1,
        "conditions": [*conditions],
    }
    return Record.of({"kind": "VolumeBackup", "metadata": metadata, "spec": {"volumeId": "data"}, "status": status})


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    times = {"lastTransitionTime": stamp(START), "observedGeneration": 1}
    return {"type": kind, "status": status, "reason": reason, "message": READY, **times}


def pending(records: list[Record], slot: int) -> set[str]:
    """Return the names of the backups that a resync reconciles."""
    now = START + timedelta(seconds=slot * PIN_SLOT_SECONDS)
    steady = SteadyStateFilter(POLICY, frozenset(), now)
    for record in records:
        steady.observe(record)
    return {record.key.name for record in records if not steady.is_steady(record)}


def test_new_backups_without_pins_are_all_tried_at_once() -> None:
    assert len(pending([a_record(number) for number in range(COUNT)], 0)) == COUNT


def test_each_failed_pin_is_tried_once_an_hour() -> None:
    failed = condition("Pinned", "False", "StoreUnreachable")
    records = [a_record(number, condition("Ready", "True", "Available"), failed) for number in range(COUNT)]
    slots = [pending(records, slot) for slot in range(PIN_SLOTS)]
    assert set().union(*slots) == {record.key.name for record in records}
    assert sum(map(len, slots)) == COUNT
    assert max(map(len, slots)) < COUNT / 2
