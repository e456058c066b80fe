"""Every call is reported once, with its request and its result."""

from __future__ import annotations

import pytest

from cinderblock.errors import ContainerNotFound, NotFound, StoreUnreachable
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.memory import MemoryStore
from tests.support.store.faults import FaultyStore


class Told:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.faulty = FaultyStore(MemoryStore())
        self.store = InstrumentedStore(self.faulty, lambda *call: self.calls.append(call))


def test_every_call_is_told_of() -> None:
    told = Told()
    told.store.check()
    told.store.put("a", b"1")
    told.store.get("a")
    list(told.store.list(""))
    told.store.delete(["a"])
    assert told.calls == [(request, "ok") for request in ("check", "put", "get", "list", "delete")]


def test_an_error_is_told_by_its_reason() -> None:
    told = Told()
    told.faulty.on("get").raises(StoreUnreachable("away"))
    with pytest.raises(StoreUnreachable):
        told.store.get("a")
    assert told.calls == [("get", "StoreUnreachable")]


def test_an_absent_object_is_success_and_an_absent_container_is_not() -> None:
    told = Told()
    with pytest.raises(NotFound):
        told.store.get("absent")
    told.faulty.on("check").raises(ContainerNotFound("no container"))
    with pytest.raises(NotFound):
        told.store.check()
    assert told.calls == [("get", "ok"), ("check", "ContainerNotFound")]


def test_a_listing_that_is_left_early_is_told_of() -> None:
    told = Told()
    told.store.put("a", b"1")
    told.store.put("b", b"1")
    listing = told.store.list("")
    assert next(iter(listing)).key == "a"
    del listing
    assert told.calls[-1] == ("list", "ok")
