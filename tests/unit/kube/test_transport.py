"""One HTTP exchange: what is repeated, what is not, who we say we are, and what an error gives away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest

from cinderblock.errors import AccessDenied, KubeUnavailable
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import READ_ATTEMPTS, RELOAD_SECONDS, RETRY_AFTER_LIMIT, Request, Transport
from tests.support.store.scripted_http import HANG, HANG_UP, Reply, Script, ScriptedServer, scripted

GET = Request("GET", "/api/v1/pods")
PATCH = Request("PATCH", "/api/v1/pods/x", {"force": "true"}, b'{"a":1}', "application/merge-patch+json")
WRITES = [replace(PATCH, method=method) for method in ("POST", "PUT", "PATCH", "DELETE")]


@dataclass
class Tokens:
    """A source whose token is the number of times that it was read; ``renewals`` counts those after a refusal."""

    server: str
    reads: int = 0
    renewals: int = 0

    async def load(self, *, renew: bool = False) -> RestConfig:
        self.reads += 1
        self.renewals += renew
        await asyncio.sleep(0)
        return RestConfig(server=self.server, token=f"token-{self.reads}")


@dataclass
class Peer:
    """A transport, the server that it talks to, and the waits that it made."""

    server: ScriptedServer
    tokens: Tokens
    transport: Transport
    waits: list[float] = field(default_factory=list)

    @property
    def shown(self) -> list[str]:
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


async def test_a_request_arrives_as_it_was_made(connect: Connect) -> None:
    peer = await connect([Reply(201, '{"b":2}')])
    answer = await peer.transport.round_trip(PATCH)
    (asked,) = peer.server.asked
    assert (asked.method, asked.path, asked.query, asked.body) == (
        "PATCH",
        "/api/v1/pods/x",
        {"force": "true"},
        '{"a":1}',
    )
    assert asked.headers["content-type"] == "application/merge-patch+json"
    assert asked.headers["accept"] == "application/json"
    assert (answer.status, answer.json()) == (201, {"b": 2})


async def test_an_escaped_path_stays_escaped(connect: Connect) -> None:
    peer = await connect([Reply()])
    await peer.transport.round_trip(Request("GET", "/api/v1/namespaces/a/pods/..%2Fb"))
    assert peer.server.asked[0].path == "/api/v1/namespaces/a/pods/..%2Fb"


@pytest.mark.parametrize("trouble", [Reply(429), Reply(500), Reply(502), Reply(503), Reply(504)])
async def test_a_read_is_repeated_until_it_is_answered(connect: Connect, trouble: Reply) -> None:
    peer = await connect([trouble, trouble, Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits == [0.2, 0.4]


async def test_a_read_whose_answer_is_lost_is_repeated(connect: Connect) -> None:
    peer = await connect([HANG_UP, HANG_UP, Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits


async def test_a_read_is_given_up_after_some_attempts(connect: Connect) -> None:
    peer = await connect([Reply(503)])
    assert (await peer.transport.round_trip(GET)).status == 503
    assert len(peer.server.asked) == READ_ATTEMPTS
    assert len(peer.waits) == READ_ATTEMPTS - 1


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 410, 422])
async def test_a_definite_answer_is_not_asked_for_again(connect: Connect, status: int) -> None:
    peer = await connect([Reply(status)])
    assert (await peer.transport.round_trip(GET)).status == status
    assert len(peer.server.asked) == 1


@pytest.mark.parametrize("request_", WRITES, ids=lambda request: request.method)
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_write_is_never_repeated(connect: Connect, request_: Request, status: int) -> None:
    peer = await connect([Reply(status, headers={"Retry-After": "1"})])
    assert (await peer.transport.round_trip(request_)).status == status
    assert len(peer.server.asked) == 1


async def test_a_write_whose_answer_is_lost_is_not_repeated(connect: Connect) -> None:
    peer = await connect([HANG_UP, Reply()])
    with pytest.raises(KubeUnavailable, match="does not answer PATCH /api/v1/pods/x"):
        await peer.transport.round_trip(PATCH)
    assert len(peer.server.asked) == 1


async def test_a_read_waits_as_long_as_the_server_asks(connect: Connect) -> None:
    peer = await connect([Reply(429, headers={"Retry-After": "3"}), Reply(200)])
    assert (await peer.transport.round_trip(GET)).status == 200
    assert peer.waits == [3.0]


async def test_a_read_does_not_wait_longer_than_it_may(connect: Connect) -> None:
    peer = await connect([Reply(429, headers={"Retry-After": str(int(RETRY_AFTER_LIMIT) + 1)})])
    answer = await peer.transport.round_trip(GET)
    assert (answer.status, answer.retry_after) == (429, RETRY_AFTER_LIMIT + 1)
    assert peer.waits == []


async def test_a_server_that_never_answers_is_unavailable(connect: Connect) -> None:
    peer = await connect([HANG], call_seconds=0.05)
    with pytest.raises(KubeUnavailable, match=r"does not answer PATCH .*: time is up"):
        await peer.transport.round_trip(PATCH)


async def test_a_server_that_is_not_there_is_unavailable(unused_tcp_port: int) -> None:
    async with aclosing(Transport(Tokens(f"http://127.0.0.1:{unused_tcp_port}"))) as transport:
        with pytest.raises(KubeUnavailable, match="does not answer PATCH"):
            await transport.round_trip(PATCH)


@pytest.mark.parametrize("request_", [GET, *WRITES], ids=lambda request: request.method)
async def test_refused_credentials_are_renewed_once_for_every_method(connect: Connect, request_: Request) -> None:
    peer = await connect([Reply(401), Reply(200)])
    assert (await peer.transport.round_trip(request_)).status == 200
    assert peer.shown == ["Bearer token-1", "Bearer token-2"]
    assert peer.tokens.renewals == 1


async def test_credentials_that_stay_refused_are_not_renewed_in_a_circle(connect: Connect) -> None:
    peer = await connect([Reply(401)])
    assert (await peer.transport.round_trip(GET)).status == 401
    assert peer.tokens.renewals == 1


async def test_many_calls_that_are_refused_together_renew_the_credentials_once(connect: Connect) -> None:
    peer = await connect(lambda asked: Reply(401 if asked.headers["authorization"] == "Bearer token-1" else 200))
    await peer.transport.credentials()
    answers = await asyncio.gather(*(peer.transport.round_trip(GET) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert (peer.tokens.reads, peer.tokens.renewals) == (2, 1)


async def test_credentials_are_read_anew_when_they_are_a_minute_old(connect: Connect) -> None:
    now = 1000.0
    peer = await connect([Reply()], clock=lambda: now)
    await peer.transport.credentials()
    now += RELOAD_SECONDS - 1
    await peer.transport.credentials()
    assert peer.tokens.reads == 1
    now += 1
    await peer.transport.credentials()
    assert (peer.tokens.reads, peer.tokens.renewals) == (2, 0)


async def test_an_error_of_the_source_reaches_the_caller() -> None:
    class Refusing:
        async def load(self, *, renew: bool = False) -> RestConfig:
            raise AccessDenied("The plugin gave nothing")

    async with aclosing(Transport(Refusing())) as transport:
        with pytest.raises(AccessDenied, match="The plugin gave nothing"):
            await transport.round_trip(GET)


async def test_a_password_of_a_proxy_does_not_get_into_an_error(unused_tcp_port: int) -> None:
    class Proxied:
        async def load(self, *, renew: bool = False) -> RestConfig:
            proxy = f"http://me:hunter2@127.0.0.1:{unused_tcp_port}"
            return RestConfig(server="http://api.invalid", token="tok-secret", proxy=proxy)

    async with aclosing(Transport(Proxied())) as transport:
        with pytest.raises(KubeUnavailable) as caught:
            await transport.round_trip(PATCH)
    assert "hunter2" not in str(caught.value)
    assert "tok-secret" not in str(caught.value)


async def test_closing_twice_is_closing_once(connect: Connect) -> None:
    peer = await connect([Reply()])
    await peer.transport.round_trip(GET)
    await peer.transport.aclose()
    await peer.transport.aclose()


def test_a_request_does_not_show_its_body() -> None:
    assert '"a":1' not in repr(PATCH)
