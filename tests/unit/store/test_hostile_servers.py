"""No answer of a server holds a call longer than its deadline, or more memory than the call has asked for."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError, PermanentError, StoreTooSlow, StoreUnreachable
from cinderblock.store.call_time import call_seconds
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import MOVER_RETRIES
from cinderblock.store.s3.store import S3Store
from tests.support.store.hostile_server import MISBEHAVIORS, Misbehavior, hostile_server
from tests.unit.store.canned import answer, canned_server

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")
SECONDS = 0.3
"""Deadline of a call in these tests."""
MARGIN_SECONDS = 15.0
"""Seconds that a busy machine may add."""
MEMORY_BYTES = 24 << 20
"""Most bytes that a call holds at once: an answer of 4 MiB, read in chunks and joined, and then parsed."""

CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put("key", bytes(2 << 20)),
    "get": lambda store: store.get("key", 0, 1000),
    "get a part": lambda store: store.get("key", 2, 3),
    "get the end": lambda store: store.get("key", -3, 3),
    "list": lambda store: next(iter(store.list("k")), None),
    "delete": lambda store: store.delete(["key"]),
}


@contextmanager
def hostile_store(misbehavior: Misbehavior, **more: object) -> Iterator[S3Store]:
    """Open a store whose server misbehaves."""
    with hostile_server(misbehavior) as server:
        location = StoreLocation.model_validate({"endpoint_url": server.url, "container": "volumebackups", **more})
        with closing(S3Store(location, CREDENTIALS, seconds_per_call=SECONDS)) as store:
            yield store


def _held(misbehavior: Misbehavior, call: Callable[[S3Store], object]) -> tuple[float, int]:
    """Return the seconds of a call, and the most bytes that it has held."""
    with hostile_store(misbehavior) as store:
        tracemalloc.start()
        began = time.monotonic()
        try:
            # Some answers look like honest ones.
            # A listing makes many requests, so the whole call has a deadline as well, as in the operator.
            with contextlib.suppress(CinderblockError), limit_seconds(SECONDS):
                call(store)
            return time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", MISBEHAVIORS)
def test_no_call_exceeds_its_seconds_or_memory(name: str) -> None:
    held = {call_name: _held(MISBEHAVIORS[name], call) for call_name, call in CALLS.items()}
    slow = {call: seconds for call, (seconds, _) in held.items() if seconds > SECONDS + MARGIN_SECONDS}
    large = {call: peak for call, (_, peak) in held.items() if peak > MEMORY_BYTES}
    assert not slow
    assert not large


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a listing without end", StoreTooSlow),
        ("empty pages without end", PermanentError),
        ("more keys than a page has", PermanentError),
        ("keys of other prefixes", PermanentError),
        ("a size below zero", PermanentError),
        ("a size that is no number", StoreUnreachable),
    ],
)
def test_impossible_listing_ends_with_an_error(name: str, kind: type[CinderblockError]) -> None:
    with hostile_store(MISBEHAVIORS[name]) as store, limit_seconds(3.0), pytest.raises(kind):
        for _ in store.list("k"):
            pass


@pytest.mark.parametrize("name", ["a trickle of a body", "a trickle from the first byte", "no answer"])
def test_slow_answer_is_told_from_an_absent_one(name: str) -> None:
    with (
        hostile_store(MISBEHAVIORS[name]) as store,
        pytest.raises(StoreTooSlow, match="not complete") as caught,
    ):
        store.get("key", 2, 30_000)
    assert caught.value.reason == "StoreTooSlow"


@pytest.mark.parametrize("name", ["a trickle of a body", "hangs up", "an error without end"])
def test_deadline_of_a_whole_call_ends_its_retries(name: str) -> None:
    with hostile_server(MISBEHAVIORS[name]) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        began = time.monotonic()
        with (
            closing(open_store(location, CREDENTIALS, policy=MOVER_RETRIES)) as store,
            limit_seconds(1.0),
            pytest.raises(StoreUnreachable),
        ):
            store.get("key", 2, 30_000)
        assert time.monotonic() - began < 1.0 + MARGIN_SECONDS


def test_deadline_ends_a_handshake_of_tls() -> None:
    with hostile_server(MISBEHAVIORS["no answer"]) as server:
        location = StoreLocation(endpoint_url=server.url.replace("http:", "https:"), container="volumebackups")
        began = time.monotonic()
        with closing(S3Store(location, CREDENTIALS, seconds_per_call=SECONDS)) as store, pytest.raises(StoreTooSlow):
            store.get("key", 0, 10)
        assert time.monotonic() - began < SECONDS + MARGIN_SECONDS


def test_wait_for_a_bandwidth_limit_does_not_count() -> None:
    body = b"x" * 200_000
    with canned_server(answer("200 OK", body, ETag='"x"')) as server:
        location = StoreLocation(endpoint_url=server.url, container="c", download_bytes_per_second=200_000)
        with closing(S3Store(location, CREDENTIALS, seconds_per_call=SECONDS)) as store:
            assert store.get("key", 0, 200_000) == body


@pytest.mark.parametrize(
    ("count", "limit", "fixed", "seconds"),
    [
        (0, None, None, 60.0),
        (24 << 20, None, None, 828.0),
        (24 << 20, 1 << 30, None, 828.0),
        (1 << 20, 1 << 10, None, 2108.0),
        (24 << 20, None, 30.0, 30.0),
    ],
)
def test_seconds_of_a_request_follow_from_its_bytes(
    count: int, limit: int | None, fixed: float | None, seconds: float
) -> None:
    assert call_seconds(count, limit, fixed) == seconds
