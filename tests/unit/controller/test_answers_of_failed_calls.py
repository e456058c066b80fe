"""A failed call to a hostile store leaves nothing of its answer in memory, even if the garbage collector never runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.controller.stores.circuit_breaker import Endpoint, SharedSlots, StoreBreaker
from cinderblock.errors import CinderblockError
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.instrumented import InstrumentedStore
from cinderblock.store.retrying import OPERATOR_RETRIES, RetryingStore
from cinderblock.store.s3.store import S3Store
from tests.support.store.hostile_server import MISBEHAVIORS, Misbehavior, hostile_server

SECONDS = 0.1
LEFT_BYTES = 1 << 20
"""Most bytes that may stay after the calls: caches of libraries. An answer has 4 MiB."""
LARGE = (
    *("more than was asked for", "the whole object, without end", "chunks without end", "elements within elements"),
    *("a million elements", "more keys than a page has", "bytes that are no text"),
)
"""Misbehaviors of which much is read before the call fails."""
CALLS: dict[str, Callable[[InstrumentedStore], object]] = {
    "check": lambda store: store.check(),
    "get": lambda store: store.get("key", 0, 4 << 20),
    "list": lambda store: list(store.list("k")),
    "versions": lambda store: store.retention.versions("k", 1000),
}


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def _call_all(misbehavior: Misbehavior) -> None:
    """Make every call as the operator does, and wait for the threads of those that were given up."""
    with hostile_server(misbehavior) as server, ThreadPoolExecutor() as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        inner = S3Store(location, S3Credentials("AKIAEXAMPLE", "very/secret"), seconds_per_call=SECONDS)
        with closing(InstrumentedStore(RetryingStore(inner, OPERATOR_RETRIES), lambda *_: None)) as store:
            for call in CALLS.values():
                breaker = StoreBreaker(Endpoint(), SharedSlots().of_namespace())
                with contextlib.suppress(CinderblockError):
                    await breaker.call(partial(call, store), SECONDS)


@pytest.mark.parametrize("name", LARGE)
async def test_failed_calls_leave_no_answer_in_memory(without_collector: None, name: str) -> None:
    await _call_all(MISBEHAVIORS[name])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await _call_all(MISBEHAVIORS[name])
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert left < LEFT_BYTES
