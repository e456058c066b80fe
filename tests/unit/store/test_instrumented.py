"""Every call is reported once, with its request and its result."""

from __future__ import annotations

import pytest

from cinderblock.errors import ContainerNotFound, NotFound, StoreUnreachable
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.memory import MemoryStore
from tests.support.store.faults import FaultyStore


class Reported:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.faulty = FaultyStore(MemoryStore())
        self.store = InstrumentedStore(self.faulty, lambda *call: self.calls.append(call))


def test_every_call_is_reported() -> None:
    reported = Reported()
    reported.store.check()
    reported.store.put("a", b"1")
    reported.store.get("a")
    list(reported.store.list(""))
    reported.store.delete(["a"])
    assert reported.calls == [(request, "ok") for request in ("check", "put", "get", "list", "delete")]


def test_error_is_reported_by_its_reason() -> None:
    reported = Reported()
    reported.faulty.on("get").raises(StoreUnreachable("away"))
    with pytest.raises(StoreUnreachable):
        reported.store.get("a")
    assert reported.calls == [("get", "StoreUnreachable")]


def test_absent_object_is_success_and_an_absent_container_is_not() -> None:
    reported = Reported()
    with pytest.raises(NotFound):
        reported.store.get("absent")
    reported.faulty.on("check").raises(ContainerNotFound("no container"))
    with pytest.raises(NotFound):
        reported.store.check()
    assert reported.calls == [("get", "ok"), ("check", "ContainerNotFound")]


def test_abandoned_listing_is_reported() -> None:
    reported = Reported()
    reported.store.put("a", b"1")
    reported.store.put("b", b"1")
    listing = reported.store.list("")
    assert next(iter(listing)).key == "a"
    del listing
    assert reported.calls[-1] == ("list", "ok")
