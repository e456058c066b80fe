"""No answer of a server holds a call longer than its deadline, or more memory than the call has asked for."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple
from unittest import mock

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError, PermanentError, StoreTooSlow, StoreUnreachable
from cinderblock.store.call_time import call_seconds
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import MOVER_RETRIES
from cinderblock.store.s3 import multipart
from cinderblock.store.s3 import store as store_module
from cinderblock.store.s3.store import S3Store
from tests.support.store.hostile_server import MISBEHAVIORS, Answer, HostileServer, Misbehavior, hostile_server
from tests.unit.store.canned import answer, canned_server

CREDENTIALS = S3Credentials("AKIAEXAMPLE", "very/secret")
SECONDS = 0.1
"""Deadline of a call in these tests."""
MARGIN_SECONDS = 15.0
"""Seconds that a busy machine may add."""
MEMORY_BYTES = 24 << 20
"""Most bytes that a call holds at once: an answer of 4 MiB, read in chunks and joined, and then parsed."""


def upload_in_parts(store: S3Store) -> None:
    """Upload an object in two parts."""
    with (
        mock.patch.object(store_module, "MULTIPART_THRESHOLD_BYTES", 1000),
        mock.patch.object(multipart, "PART_BYTES", 8 << 10),
    ):
        store.put("key", bytes(16 << 10))


CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put("key", bytes(2 << 20)),
    "get": lambda store: store.get("key", 0, 1000),
    "get a part": lambda store: store.get("key", 2, 3),
    "get the end": lambda store: store.get("key", -3, 3),
    "list": lambda store: next(iter(store.list("k")), None),
    "check": S3Store.check,
    "delete": lambda store: store.delete(["key"]),
    "delete one": lambda store: store._deleter._delete_one("key"),
    "upload in parts": upload_in_parts,
    "versioning": lambda store: store.retention.versioning(),
    "object lock": lambda store: store.retention.object_lock(),
    "lifecycle": lambda store: store.retention.lifecycle(),
    "versions": lambda store: store.retention.versions("k", 1000),
    "inspect": lambda store: store.retention.inspect("key"),
}
UNBOUNDED_BYTES = {"get the end", "list"}
"""Calls that may read as much as their seconds allow: an object that is sent whole, and the pages of a listing."""
WIRE_BYTES = 24 << 20
"""Most bytes that any other call takes: three answers of 4 MiB, and the buffers of their sockets."""


@contextmanager
def hostile_store(misbehavior: Misbehavior, seconds: float = SECONDS) -> Iterator[tuple[S3Store, HostileServer]]:
    """Open a store whose server misbehaves."""
    with hostile_server(misbehavior) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        with closing(S3Store(location, CREDENTIALS, seconds_per_call=seconds)) as store:
            yield store, server


class _Held(NamedTuple):
    """The cost of a call: seconds, most bytes in memory at once, and bytes of the network."""

    seconds: float
    memory: int
    wire: int


def _held(misbehavior: Misbehavior, call: Callable[[S3Store], object]) -> _Held:
    """Return what a call takes. Raises every other exception than CinderblockError."""
    with hostile_store(misbehavior) as (store, server):
        tracemalloc.start()
        began = time.monotonic()
        try:
            # Some answers look like honest ones.
            # A listing makes many requests, so the whole call has a deadline as well, as in the operator.
            with contextlib.suppress(CinderblockError), limit_seconds(SECONDS):
                call(store)
            return _Held(time.monotonic() - began, tracemalloc.get_traced_memory()[1], server.sent)
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", MISBEHAVIORS)
def test_no_call_exceeds_its_seconds_memory_or_bytes(name: str) -> None:
    held = {call_name: _held(MISBEHAVIORS[name], call) for call_name, call in CALLS.items()}
    assert not {call: taken for call, taken in held.items() if taken.seconds > SECONDS + MARGIN_SECONDS}
    assert not {call: taken for call, taken in held.items() if taken.memory > MEMORY_BYTES}
    assert not {call: taken for call, taken in held.items() if call not in UNBOUNDED_BYTES and taken.wire > WIRE_BYTES}


STEPS = {
    "list uploads": (b"GET", b"<ListMultipartUploadsResult/>"),
    "begin": (b"POST", b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"),
    "part": (b"PUT", b""),
    "end": (b"POST", b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"),
    "abort": (b"DELETE", b""),
}
"""The requests of an upload in parts, in order."""


@pytest.mark.parametrize(
    "name", ["hangs up", "no answer", "an error without end", "elements within elements", "a key without a size"]
)
@pytest.mark.parametrize("step", STEPS)
def test_no_step_of_an_upload_in_parts_exceeds_its_seconds_or_memory(step: str, name: str) -> None:
    def respond(head: bytes) -> Answer:
        line = head.partition(b"\r\n")[0]
        named = {step for step, (method, _) in STEPS.items() if line.startswith(method)}
        at = "end" if b"uploadId" in line and "begin" in named else next(iter(named - {"end"}), step)
        if at == step or (step == "abort" and at == "end"):
            return MISBEHAVIORS[name](head)
        return iter((answer("200 OK", STEPS[at][1], ETag='"x"'),))

    held = _held(respond, upload_in_parts)
    assert held.seconds < SECONDS * len(STEPS) + MARGIN_SECONDS
    assert held.memory < MEMORY_BYTES


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a listing without end", StoreTooSlow),
        ("empty pages without end", PermanentError),
        ("more keys than a page has", PermanentError),
        ("keys of other prefixes", PermanentError),
        ("a size below zero", PermanentError),
        ("a key without a size", StoreUnreachable),
        ("a size without a key", StoreUnreachable),
        ("a size that is no number", StoreUnreachable),
    ],
)
def test_impossible_listing_ends_with_an_error(name: str, kind: type[CinderblockError]) -> None:
    with hostile_store(MISBEHAVIORS[name]) as (store, _), limit_seconds(3.0), pytest.raises(kind):
        for _ in store.list("k"):
            pass


@pytest.mark.parametrize("name", ["a trickle of a body", "a trickle from the first byte", "no answer"])
def test_slow_answer_is_told_from_an_absent_one(name: str) -> None:
    with (
        hostile_store(MISBEHAVIORS[name]) as (store, _),
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
