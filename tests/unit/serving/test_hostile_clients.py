"""Callers who want to stop the gateway: each holds connections, sends slowly, reads nothing, or asks for too much."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cinderblock.gateway.app import make_app, make_health_app, refuse
from cinderblock.gateway.auth import TokenAuth
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.token_clients import TokenClients
from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.serving import listener
from cinderblock.serving.client_address import TrustedProxies
from cinderblock.serving.protocol import Connection
from cinderblock.serving.request_limits import HEADERS, TARGET_BYTES, RequestLimits
from cinderblock.serving.server import running
from tests.support.cluster.certificates import Authority
from tests.support.cluster.kube_clients import Anonymous
from tests.support.gateway.raw_clients import RawClients, raw_clients

HONEST, HOSTILE = "127.0.0.2", "127.0.0.3"
SETTINGS = GatewaySettings(
    host="127.0.0.1",
    port=0,
    header_seconds=0.4,
    body_seconds=0.4,
    handling_seconds=0.8,
    writing_seconds=0.8,
    idle_seconds=1.0,
    connections=20,
    connections_per_client=5,
    requests_per_client=2,
)
PATIENT = replace(
    SETTINGS, header_seconds=60.0, body_seconds=60.0, handling_seconds=60.0, writing_seconds=60.0, idle_seconds=60.0
)
"""Nothing is closed because of its time."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v3/shop/backups HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nContent-Length: 100\r\n\r\n"
LARGE = b"x" * (8 << 20)
"""More than the buffers of two sockets take."""


@asynccontextmanager
async def gateway(settings: GatewaySettings) -> AsyncIterator[RawClients]:
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous("http://127.0.0.1:9")))) as authenticator,
        serving(make_app(authenticator, settings), settings) as clients,
    ):
        yield clients


@asynccontextmanager
async def serving(app: ASGIApp, settings: GatewaySettings) -> AsyncIterator[RawClients]:
    async with running(app, settings) as server, raw_clients(server.port) as clients:
        yield clients


async def answer_at_length(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(LARGE)(scope, receive, send)


async def received_until_closed(connected: socket.socket) -> int:
    """Return how many bytes arrive until the server closes or resets the connection."""
    received = 0
    with connected, suppress(ConnectionError):
        async with asyncio.timeout(20):
            while block := await asyncio.get_running_loop().sock_recv(connected, 1 << 20):
                received += len(block)
    return received


async def closed(clients: RawClients) -> int:
    return sum(await asyncio.gather(*(client.is_closed() for client in clients.opened)))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        GET + b"GET / HT",
        GET + GET + b"G",
        POST + b"{",
        GET + POST + b"{",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        POST.replace(b"Content-Length: 100", b"Expect: 100-continue\r\nContent-Length: 100"),
    ],
    ids=["nothing", "head", "second", "third", "body", "second-body", "unread-body", "unread-chunks", "continue"],
)
async def test_connection_that_stops_sending_is_closed(sent: bytes) -> None:
    async with gateway(SETTINGS) as clients:
        for _ in range(5):
            await clients.open(HOSTILE, sent)
        assert await closed(clients) == 5


@pytest.mark.parametrize(
    "first", [b"", GET, POST, GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n")], ids=str
)
async def test_connection_that_sends_a_byte_now_and_then_is_closed(first: bytes) -> None:
    async with gateway(SETTINGS) as clients:
        client = await clients.open(HOSTILE, first)
        waiting = asyncio.create_task(client.is_closed())
        for _ in range(100):
            await client.send(b"G")
            await asyncio.wait([waiting], timeout=0.1)
            if waiting.done():
                break
        assert await waiting


async def test_client_that_does_not_read_is_closed() -> None:
    async with serving(answer_at_length, SETTINGS) as clients:
        held = [await clients.open_unread(HOSTILE, GET * 3) for _ in range(5)]
        await asyncio.sleep(2 * SETTINGS.writing_seconds)
        received = [await received_until_closed(connected) for connected in held]
    assert max(received) < len(LARGE)


async def test_unread_responses_share_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(Connection, "abort", lambda connection: dropped.put_nowait(connection.unread_bytes))
    async with serving(answer_at_length, replace(PATIENT, unread_bytes=20 << 20)) as clients:
        held = [await clients.open_unread(HOSTILE, GET) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert dropped.empty()
        held += [await clients.open_unread(HONEST, GET) for _ in range(2)]
        async with asyncio.timeout(20):
            assert await dropped.get() > 1 << 20
        for connected in held:
            connected.close()


async def test_one_address_holds_at_most_its_share() -> None:
    async with gateway(PATIENT) as clients:
        for _ in range(50):
            await clients.open(HOSTILE, b"GET / HT")
        gone = sum(await asyncio.gather(*(client.is_closed(1.0) for client in clients.opened)))
        assert gone == 45
        assert await clients.code(HONEST) == 300


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET + b"GET / HT", POST], ids=["nothing", "head", "second", "body"])
async def test_many_addresses_cannot_keep_others_out(sent: bytes) -> None:
    async with gateway(PATIENT) as clients:
        for number in range(60):
            await clients.open(f"127.0.1.{1 + number // 4}", sent)
        assert [await clients.code(f"127.0.2.{1 + number}") for number in range(10)] == [300] * 10


async def test_address_that_returns_gets_its_answer_despite_its_own_idle_connections() -> None:
    async with gateway(PATIENT) as clients:
        assert [await clients.code(HONEST) for _ in range(20)] == [300] * 20


async def test_requests_of_one_address_wait_for_their_turn() -> None:
    running_now, most, released = 0, 0, asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running_now, most
        if scope["client"][0] == HOSTILE:
            running_now += 1
            most = max(most, running_now)
            await released.wait()
            running_now -= 1
        await PlainTextResponse("ok")(scope, receive, send)

    async with serving(RequestLimits(handle, PATIENT, refuse, "gateway"), PATIENT) as clients:
        waiting = [asyncio.create_task(clients.code(HOSTILE)) for _ in range(5)]
        assert await clients.code(HONEST) == 200
        released.set()
        assert await asyncio.gather(*waiting) == [200] * 5
    assert most == 2


async def test_requests_of_closed_connections_still_count() -> None:
    """Otherwise a client that closes its connections at once would leave any number of requests behind."""
    started, released = 0, asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        if scope["client"][0] == HOSTILE:
            started += 1
            await released.wait()
        await PlainTextResponse("ok")(scope, receive, send)

    async with serving(RequestLimits(handle, PATIENT, refuse, "gateway"), PATIENT) as clients:
        for _ in range(5):
            client = await clients.open(HOSTILE, GET)
            client.writer.close()
            await client.writer.wait_closed()
        for _ in range(4):
            await clients.open(HOSTILE, GET)
        assert await clients.code(HOSTILE) == 413
        assert started == 2
        assert await clients.code(HONEST) == 200
        released.set()


async def test_request_that_takes_too_long_is_503() -> None:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async with serving(RequestLimits(handle, SETTINGS, refuse, "gateway"), SETTINGS) as clients:
        assert await clients.code() == 503


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/v3/?" + "a" * (TARGET_BYTES - 5), "", 200),
        ("/v3/?" + "a" * TARGET_BYTES, "", 414),
        ("/" + "a" * TARGET_BYTES, "", 414),
        ("/v3/", "A: b\r\n" * (HEADERS - 1), 200),
        ("/v3/", "A: b\r\n" * HEADERS, 431),
    ],
)
async def test_url_and_headers_have_limits(path: str, headers: str, code: int) -> None:
    async with gateway(PATIENT) as clients:
        assert await clients.code(path=path, headers=headers) == code


@pytest.mark.parametrize(("trusted", "client"), [((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")])
async def test_forwarded_address_counts_only_from_a_trusted_proxy(trusted: tuple[str, ...], client: str) -> None:
    seen: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await PlainTextResponse("ok")(scope, receive, send)

    settings = replace(PATIENT, trusted_proxies=TrustedProxies.parse(trusted).networks)
    async with serving(RequestLimits(handle, settings, refuse, "gateway"), settings) as clients:
        await clients.code(headers="X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nForwarded: for=192.0.2.1\r\n")
    assert seen == [client]


async def test_health_answers_while_hostile_connections_hold_its_port() -> None:
    health = replace(PATIENT, health_port=0).of_health_server()
    assert health is not None
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous("http://127.0.0.1:9")))) as authenticator,
        serving(make_health_app(authenticator, GatewayMetrics()), replace(health, header_seconds=60.0)) as clients,
    ):
        for number in range(100):
            await clients.open(f"127.0.1.{1 + number // 5}", b"GET /healthz HT")
        assert [await clients.code(HONEST, "/healthz") for _ in range(10)] == [200] * 10


async def test_connections_that_never_agree_upon_tls_are_limited_and_closed(tmp_path: Path) -> None:
    authority = Authority("test")
    signed = authority.sign("localhost")
    (tmp_path / "crt").write_bytes(signed.certificate)
    (tmp_path / "key").write_bytes(signed.key)
    settings = replace(SETTINGS, certificate=str(tmp_path / "crt"), private_key=str(tmp_path / "key"))
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    async with gateway(replace(settings, header_seconds=60.0)) as plain:
        for number in range(60):
            await plain.open(f"127.0.1.{1 + number // 4}", b"\x16\x03\x01")
        async with raw_clients(plain.port, context) as honest:
            assert await honest.code(HONEST) == 300
        gone = sum(await asyncio.gather(*(client.is_closed(1.0) for client in plain.opened)))
        assert gone >= 60 - settings.connections
    async with gateway(settings) as plain:
        for _ in range(5):
            await plain.open(HOSTILE, b"\x16\x03\x01")
        assert await closed(plain) == 5
