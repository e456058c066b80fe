"""The HTTP server around the application: failures, TLS renewal, slow and malformed clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from cinderblock.errors import InvalidInput
from cinderblock.gateway.app import make_app, make_health_app
from cinderblock.gateway.auth import TokenAuth
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.token_clients import TokenClients
from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.serving import health
from cinderblock.serving.server import RunningServer, Server, running, wait_for_stop
from tests.support.cluster.certificates import Authority
from tests.support.cluster.kube_clients import Anonymous

SETTINGS = GatewaySettings(host="127.0.0.1", port=0, header_seconds=0.3, body_seconds=0.3)
UNREACHABLE = "http://127.0.0.1:9"
"""No API server listens there."""


@asynccontextmanager
async def gateway(settings: GatewaySettings = SETTINGS) -> AsyncIterator[int]:
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous(UNREACHABLE)))) as authenticator,
        running(make_app(authenticator, settings), settings) as server,
    ):
        yield server.port


@asynccontextmanager
async def health_server(metrics: GatewayMetrics) -> AsyncIterator[RunningServer]:
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous(UNREACHABLE)))) as authenticator,
        running(make_health_app(authenticator, metrics), SETTINGS) as server,
    ):
        yield server


async def exchange(port: int, text: bytes) -> bytes:
    """Send ``text``, and return all that the server sends until it closes or resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with suppress(ConnectionError):
        writer.write(text)
        await writer.drain()
        async with asyncio.timeout(20):
            while block := await reader.read(65536):
                answer += block
    writer.close()
    return answer


async def test_silent_connections_are_closed() -> None:
    async with gateway() as port:
        assert await exchange(port, b"") == b""
        assert await exchange(port, b"GET / HT") == b""


async def test_missing_body_is_408() -> None:
    head = b"POST /v3/shop/backups HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nContent-Length: 10\r\n\r\n{"
    async with gateway() as port:
        answer = await exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_malformed_http_is_400_and_closes_the_connection(head: bytes) -> None:
    async with gateway() as port:
        answer = await exchange(port, head)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_invalid_host_header_is_not_used_in_links() -> None:
    async with gateway() as port:
        answer = await exchange(port, b'GET /v3/ HTTP/1.1\r\nHost: a"onload=x\r\nConnection: close\r\n\r\n')
    assert b"onload" not in answer
    assert f"http://127.0.0.1:{port}/v3/".encode() in answer


async def test_certificate_is_reloaded_when_its_file_changes(tmp_path: Path) -> None:
    authority = Authority("test")
    settings = replace(SETTINGS, certificate=str(tmp_path / "tls.crt"), private_key=str(tmp_path / "tls.key"))
    settings = replace(settings, certificate_seconds=0.02)

    def renew() -> None:
        signed = authority.sign("localhost")
        for name, content in (("tls.key", signed.key), ("tls.crt", signed.certificate)):
            (tmp_path / "new").write_bytes(content)
            (tmp_path / "new").rename(tmp_path / name)

    async def served_certificate(port: int) -> bytes:
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)

    renew()
    async with gateway(settings) as port:
        first = await served_certificate(port)
        (tmp_path / "tls.crt").write_text("nonsense")
        assert await served_certificate(port) == first
        renew()
        async with asyncio.timeout(20):
            while await served_certificate(port) == first:
                pass


async def test_failure_to_start_raises_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(Server, "startup", fail)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(20), gateway():
            pass
    assert raised.group_contains(OSError)


@pytest.mark.parametrize("error", [None, OSError("broken")])
async def test_process_ends_when_a_server_fails(monkeypatch: pytest.MonkeyPatch, error: OSError | None) -> None:
    """Otherwise /healthz, which has a port of its own, would report a dead API as healthy."""
    fails = asyncio.Event()

    async def fail(_: Server) -> None:
        await fails.wait()
        if error:
            raise error

    async with health_server(GatewayMetrics()) as healthy:
        monkeypatch.setattr(Server, "main_loop", fail)
        async with health_server(GatewayMetrics()) as failing:
            waiting = asyncio.create_task(wait_for_stop([healthy, failing]))
            await asyncio.sleep(0)
            fails.set()
            async with asyncio.timeout(20):
                with pytest.raises((RuntimeError, ExceptionGroup)):
                    await waiting


async def test_address_in_use_is_named_in_the_error() -> None:
    async with gateway() as port:
        with pytest.raises(InvalidInput, match=f"Cannot listen on 127.0.0.1 port {port}"):
            async with gateway(replace(SETTINGS, port=port)):
                pass


async def test_unreadable_certificate_is_named_in_the_error(tmp_path: Path) -> None:
    settings = replace(SETTINGS, certificate=str(tmp_path / "none.crt"), private_key=str(tmp_path / "none.key"))
    with pytest.raises(InvalidInput, match=r"none\.crt"):
        async with gateway(settings):
            pass


async def test_unreachable_api_server_makes_it_unready_but_not_unhealthy() -> None:
    metrics = GatewayMetrics()
    metrics.observe_request("GET /backups", 200, 0.01)
    async with (
        health_server(metrics) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
    ):
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        async with session.get("/readyz") as answer:
            assert answer.status == 503
        async with session.get("/metrics") as answer:
            text = await answer.text()
    assert 'cinderblock_gateway_request_duration_seconds_count{code="200",operation="GET /backups"} 1.0' in text


async def test_unreachable_api_server_is_503() -> None:
    head = b"GET /v3/shop/backups HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n\r\n"
    async with gateway() as port:
        answer = await exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'{"serviceUnavailable":{"code":503,' in answer


async def test_readiness_asks_the_api_server_once_for_many_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def is_ready(_: TokenAuth) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return True

    monkeypatch.setattr(TokenAuth, "is_ready", is_ready)
    monkeypatch.setattr(health, "READY_SECONDS", 60.0)
    head = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with health_server(GatewayMetrics()) as server:
        answers = await asyncio.gather(*(exchange(server.port, head) for _ in range(10)))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert asked == 1
