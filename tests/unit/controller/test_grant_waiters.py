"""Which restores an event about another namespace wakes, and that one tenant cannot make such events slow."""

from __future__ import annotations

from typing import Any

from cinderblock.controller.handlers.grant_waiters import WAITERS_OF_NAMESPACE, GrantWaiters
from cinderblock.controller.request import ObjectKey


def a_key(name: str = "back", namespace: str = "staging", kind: str = "VolumeRestore") -> ObjectKey:
    return ObjectKey(kind, namespace, name)


def a_restore(reason: str = "NotGranted", source: str | None = "shop") -> dict[str, Any]:
    spec = {"backupId": "full"} | ({"backupNamespace": source} if source is not None else {})
    return {"spec": spec, "status": {"conditions": [{"type": "Reconciling", "status": "True", "reason": reason}]}}


def test_only_restores_that_wait_for_the_namespace_are_woken() -> None:
    waiters = GrantWaiters()
    waiters.observe("ADDED", a_key(), a_restore())
    waiters.observe("ADDED", a_key("other"), a_restore(source="bank"))
    waiters.observe("ADDED", a_key("running"), a_restore("MoverRunning"))
    waiters.observe("ADDED", a_key("own"), a_restore(source=None))
    waiters.observe("ADDED", a_key("backup", kind="VolumeBackup"), a_restore())
    assert waiters.waiting_for("shop") == [a_key()]
    assert waiters.waiting_for("bank") == [a_key("other")]
    assert waiters.waiting_for("elsewhere") == []


def test_restore_that_begins_or_is_gone_is_forgotten() -> None:
    waiters = GrantWaiters()
    for change, body in (("MODIFIED", a_restore("Accepted")), ("DELETED", a_restore())):
        waiters.observe(None, a_key(), a_restore())
        assert waiters.waiting_for("shop") == [a_key()]
        waiters.observe(change, a_key(), body)
        assert waiters.waiting_for("shop") == []
    assert (waiters._waiting, waiters._source_of) == ({}, {})


def test_flood_of_one_namespace_leaves_others_their_place() -> None:
    waiters = GrantWaiters()
    for number in range(1000):
        waiters.observe("ADDED", a_key(f"r{number}", "hostile"), a_restore())
    waiters.observe("ADDED", a_key(), a_restore())
    woken = waiters.waiting_for("shop")
    assert len(woken) == WAITERS_OF_NAMESPACE + 1
    assert a_key() in woken
