"""One HTTP exchange: repeated reads, time limits, credentials, and what an error gives away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import pytest

from cinderblock.errors import AccessDenied, KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import POD
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import READ_ATTEMPTS, RELOAD_SECONDS, RETRY_AFTER_LIMIT, Request, Transport
from tests.support.store.scripted_http import HANG, HANG_UP, Reply, Script, ScriptedServer, scripted

GET = Request("GET", "/api/v1/pods")
PATCH = Request("PATCH", "/api/v1/pods/x", {"force": "true"}, {"a": 1}, "application/merge-patch+json")
WRITES = [replace(PATCH, method=method) for method in ("POST", "PUT", "PATCH", "DELETE")]


@dataclass
class Tokens:
    """A source whose token is the number of its reads; ``renewals`` counts those after a rejection."""

    server: str
    reads: int = 0
    renewals: int = 0

    async def load(self, *, renew: bool = False) -> RestConfig:
        self.reads += 1
        self.renewals += renew
        await asyncio.sleep(0)
        return RestConfig(server=self.server, token=f"token-{self.reads}")


@dataclass
class Failing:
    """A source that takes a while to fail."""

    reads: int = 0

    async def load(self, *, renew: bool = False) -> RestConfig:
        self.reads += 1
        await asyncio.sleep(0.01)
        raise AccessDenied("The plugin gave nothing")


@dataclass
class Peer:
    """A transport, its server, and the waits between attempts."""

    server: ScriptedServer
    tokens: Tokens
    transport: Transport
    waits: list[float] = field(default_factory=list)

    @property
    def authorizations(self) -> list[str]:
        return [asked.headers.get("authorization", "") for asked in self.server.asked]


class Connect(Protocol):
    async def __call__(
        self, script: Script, call_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> Peer: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def connected(
            script: Script, call_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
        ) -> Peer:
            waits: list[float] = []

            async def wait(seconds: float) -> None:
                waits.append(seconds)

            server = await stack.enter_async_context(scripted(script))
            tokens = Tokens(server.url)
            transport = Transport(tokens, call_seconds=call_seconds, sleep=wait, clock=clock)
            await stack.enter_async_context(aclosing(transport))
            return Peer(server, tokens, transport, waits)

        yield connected


async def test_request_arrives_unchanged(connect: Connect) -> None:
    peer = await connect([Reply(201, '{"b":2}')])
    answer = await peer.transport.round_trip(PATCH)
    (asked,) = peer.server.asked
    assert (asked.method, asked.path, asked.query, asked.body) == (
        "PATCH",
        "/api/v1/pods/x",
        {"force": "true"},
        '{"a": 1}',
    )
    assert asked.headers["content-type"] == "application/merge-patch+json"
    assert asked.headers["accept"] == "application/json"
    assert (answer.status, answer.json()) == (201, {"b": 2})


async def test_escaped_path_stays_escaped(connect: Connect) -> None:
    peer = await connect([Reply()])
    await peer.transport.round_trip(Request("GET", "/api/v1/namespaces/a/pods/..%2Fb"))
    assert peer.server.asked[0].path == "/api/v1/namespaces/a/pods/..%2Fb"


@pytest.mark.parametrize("failure", [Reply(429), Reply(500), Reply(502), Reply(503), Reply(504)])
async def test_read_is_repeated_after_a_server_error(connect: Connect, failure: Reply) -> None:
    peer = await connect([failure, failure, Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits == [0.2, 0.4]


async def test_read_without_a_response_is_repeated(connect: Connect) -> None:
    peer = await connect([HANG_UP, HANG_UP, Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits


async def test_read_ends_after_its_last_attempt(connect: Connect) -> None:
    peer = await connect([Reply(503)])
    assert (await peer.transport.round_trip(GET)).status == 503
    assert len(peer.server.asked) == READ_ATTEMPTS
    assert len(peer.waits) == READ_ATTEMPTS - 1


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 410, 422])
async def test_definite_response_is_not_repeated(connect: Connect, status: int) -> None:
    peer = await connect([Reply(status)])
    assert (await peer.transport.round_trip(GET)).status == status
    assert len(peer.server.asked) == 1


@pytest.mark.parametrize("request_", WRITES, ids=lambda request: request.method)
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_write_is_never_repeated(connect: Connect, request_: Request, status: int) -> None:
    peer = await connect([Reply(status, headers={"Retry-After": "1"})])
    assert (await peer.transport.round_trip(request_)).status == status
    assert len(peer.server.asked) == 1


async def test_write_without_a_response_is_not_repeated(connect: Connect) -> None:
    peer = await connect([HANG_UP, Reply()])
    with pytest.raises(KubeUnavailable, match=r"Cannot PATCH /api/v1/pods/x: the API server at .* does not answer"):
        await peer.transport.round_trip(PATCH)
    assert len(peer.server.asked) == 1


async def test_read_waits_for_retry_after(connect: Connect) -> None:
    peer = await connect([Reply(429, headers={"Retry-After": "3"}), Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits == [3.0]


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Mon, 04 May 2026 12:00:00 GMT", datetime(2026, 5, 4, 12, tzinfo=UTC)),
        ("Mon, 04 May 2026 12:00:00 -0000", None),
        ("yesterday", None),
    ],
)
async def test_response_tells_the_time_of_the_server(connect: Connect, date: str, expected: datetime | None) -> None:
    peer = await connect([Reply(200, headers={"Date": date})])
    client = KubeClient(peer.transport)
    assert client.server_time is None
    await client.get(POD, "x", "shop")
    assert client.server_time == expected


async def test_read_does_not_wait_for_a_long_retry_after(connect: Connect) -> None:
    peer = await connect([Reply(429, headers={"Retry-After": str(int(RETRY_AFTER_LIMIT) + 1)})])
    answer = await peer.transport.round_trip(GET)
    assert (answer.status, answer.retry_after) == (429, RETRY_AFTER_LIMIT + 1)
    assert peer.waits == []


async def test_silent_server_is_unavailable(connect: Connect) -> None:
    peer = await connect([HANG], call_seconds=0.05)
    with pytest.raises(KubeUnavailable, match="does not answer: the time limit has passed"):
        await peer.transport.round_trip(PATCH)


async def test_refused_connection_is_unavailable(unused_tcp_port: int) -> None:
    async with aclosing(Transport(Tokens(f"http://127.0.0.1:{unused_tcp_port}"))) as transport:
        with pytest.raises(KubeUnavailable, match=r"Cannot PATCH /api/v1/pods/x: the API server at .* does not answer"):
            await transport.round_trip(PATCH)


@pytest.mark.parametrize("request_", [GET, *WRITES], ids=lambda request: request.method)
async def test_every_method_renews_rejected_credentials_once(connect: Connect, request_: Request) -> None:
    peer = await connect([Reply(401), Reply(200)])
    assert (await peer.transport.round_trip(request_)).status == 200
    assert peer.authorizations == ["Bearer token-1", "Bearer token-2"]
    assert peer.tokens.renewals == 1


async def test_credentials_that_stay_rejected_are_renewed_once(connect: Connect) -> None:
    peer = await connect([Reply(401)])
    assert (await peer.transport.round_trip(GET)).status == 401
    assert peer.tokens.renewals == 1


async def test_concurrent_rejections_renew_the_credentials_once(connect: Connect) -> None:
    peer = await connect(lambda asked: Reply(401 if asked.headers["authorization"] == "Bearer token-1" else 200))
    await peer.transport.config()
    answers = await asyncio.gather(*(peer.transport.round_trip(GET) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert (peer.tokens.reads, peer.tokens.renewals) == (2, 1)


async def test_config_is_read_again_after_a_minute(connect: Connect) -> None:
    now = 1000.0
    peer = await connect([Reply()], clock=lambda: now)
    await peer.transport.config()
    now += RELOAD_SECONDS - 1
    await peer.transport.config()
    assert peer.tokens.reads == 1
    now += 1
    await peer.transport.config()
    assert (peer.tokens.reads, peer.tokens.renewals) == (2, 0)


async def test_error_of_the_source_reaches_the_caller() -> None:
    async with aclosing(Transport(Failing())) as transport:
        with pytest.raises(AccessDenied, match="The plugin gave nothing"):
            await transport.round_trip(GET)


async def test_waiting_calls_share_the_error_of_one_load() -> None:
    """A plugin that hangs delays all waiting calls once, and not one after the other."""
    source = Failing()
    async with aclosing(Transport(source)) as transport:
        results = await asyncio.gather(*(transport.round_trip(GET) for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {AccessDenied}
        assert source.reads == 1
        with pytest.raises(AccessDenied):
            await transport.round_trip(GET)
    assert source.reads == 2


async def test_error_hides_the_password_of_the_proxy(unused_tcp_port: int) -> None:
    class Proxied:
        async def load(self, *, renew: bool = False) -> RestConfig:
            proxy = f"http://me:hunter2@127.0.0.1:{unused_tcp_port}"
            return RestConfig(server="http://api.invalid", token="tok-secret", proxy=proxy)

    async with aclosing(Transport(Proxied())) as transport:
        with pytest.raises(KubeUnavailable) as caught:
            await transport.round_trip(PATCH)
    assert "hunter2" not in str(caught.value)
    assert "tok-secret" not in str(caught.value)


async def test_proxy_of_the_environment_is_ignored(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart sets it for the S3 store; the package would use it for the API server."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    peer = await connect([Reply()])
    assert (await peer.transport.round_trip(PATCH)).status == 200


@pytest.mark.parametrize(
    "value", ["app=shop,tier!=cache", "a in (b, c)", "x+y/z&k=v #%ü", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ=="]
)
async def test_query_arrives_unchanged(connect: Connect, value: str) -> None:
    peer = await connect([Reply()])
    await peer.transport.round_trip(Request("GET", "/api/v1/pods", {"labelSelector": value, "limit": "500"}))
    assert peer.server.asked[0].query == {"labelSelector": value, "limit": "500"}


async def test_token_of_a_caller_replaces_ours(connect: Connect) -> None:
    peer = await connect([Reply(401)])
    assert (await peer.transport.round_trip(replace(GET, token="theirs"))).status == 401
    assert peer.authorizations == ["Bearer theirs"]
    assert peer.tokens.renewals == 0


async def test_changed_server_gets_the_next_request_and_keeps_the_old_one(connect: Connect) -> None:
    """A request under way ends on the connection that it was sent on."""
    now = 1000.0
    peer = await connect([Reply(200, "old")], clock=lambda: now)
    async with scripted([Reply(200, "new")]) as other:
        await peer.transport.round_trip(GET)
        first = peer.transport._connection
        assert first
        first.requests += 1  # one that does not end
        peer.tokens.server = other.url
        now += RELOAD_SECONDS
        assert (await peer.transport.round_trip(GET)).body == b"new"
        session = first.api.rest_client.pool_manager
        assert not session.closed
        first.requests -= 1
        await first.close_if_idle()
        assert session.closed


async def test_transport_may_be_closed_twice(connect: Connect) -> None:
    peer = await connect([Reply()])
    await peer.transport.round_trip(GET)
    await peer.transport.aclose()
    await peer.transport.aclose()


def test_repr_of_a_request_hides_its_body() -> None:
    assert "'a'" not in repr(PATCH)
