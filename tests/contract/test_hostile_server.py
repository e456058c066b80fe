"""No wrapper of a store hides what a hostile server does, or waits longer than the deadline allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.retrying import OPERATOR_RETRIES, RetryingStore
from cinderblock.store.s3.store import S3Store
from tests.support.store.hostile_server import MISBEHAVIORS, hostile_server

SECONDS = 1.0
MARGIN_SECONDS = 15.0

WRAPPERS: dict[str, Callable[[ObjectStore], ObjectStore]] = {
    "retrying": lambda store: RetryingStore(store, OPERATOR_RETRIES),
    "counted": CountedStore,
    "observed": lambda store: InstrumentedStore(store, lambda *_: None),
}
CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "check": lambda store: store.check(),
    "put": lambda store: store.put("key", bytes(2 << 20)),
    "get": lambda store: store.get("key", 2, 30_000),
    "list": lambda store: list(store.list("k")),
    "delete": lambda store: store.delete(["key"]),
}


@pytest.mark.parametrize("name", ["a trickle from the first byte", "hangs up", "an error without end"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapper_reports_a_hostile_server_in_time(
    wrap: Callable[[ObjectStore], ObjectStore], call: Callable[[ObjectStore], object], name: str
) -> None:
    with hostile_server(MISBEHAVIORS[name]) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        began = time.monotonic()
        with (
            closing(wrap(S3Store(location, S3Credentials("AKIAEXAMPLE", "very/secret")))) as store,
            limit_seconds(SECONDS),
            pytest.raises(CinderblockError, match=r"127\.0\.0\.1"),
        ):
            call(store)
        assert time.monotonic() - began < SECONDS + MARGIN_SECONDS
