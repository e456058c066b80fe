"""The HTTP server around the application: TLS that is renewed, and callers who take their time."""

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
from cinderblock.gateway.server import running
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.token_clients import TokenClients
from cinderblock.observability.gateway_metrics import GatewayMetrics
from tests.support.cluster.certificates import Authority
from tests.support.cluster.kube_clients import Anonymous

SETTINGS = GatewaySettings(host="127.0.0.1", port=0, header_seconds=0.3, body_seconds=0.3)
NOBODY = "http://127.0.0.1:9"
"""Where no API server is."""


@asynccontextmanager
async def gateway(settings: GatewaySettings = SETTINGS) -> AsyncIterator[int]:
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous(NOBODY)))) as who,
        running(make_app(who, settings), settings) as server,
    ):
        yield server.port


async def say(port: int, text: bytes) -> bytes:
    """Send ``text`` and nothing more; everything that comes back until the server closes or resets the connection."""
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


async def test_who_connects_and_says_nothing_is_not_waited_for() -> None:
    async with gateway() as port:
        assert await say(port, b"") == b""
        assert await say(port, b"GET / HT") == b""


async def test_a_body_that_does_not_come_is_408() -> None:
    head = b"POST /v3/shop/backups HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nContent-Length: 10\r\n\r\n{"
    async with gateway() as port:
        answer = await say(port, head)
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
async def test_what_is_no_http_is_400_and_the_end(head: bytes) -> None:
    async with gateway() as port:
        answer = await say(port, head)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_a_host_header_that_is_none_gets_into_no_link() -> None:
    async with gateway() as port:
        answer = await say(port, b'GET /v3/ HTTP/1.1\r\nHost: a"onload=x\r\nConnection: close\r\n\r\n')
    assert b"onload" not in answer
    assert f"http://127.0.0.1:{port}/v3/".encode() in answer


async def test_a_certificate_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    authority = Authority("test")
    settings = replace(SETTINGS, certificate=str(tmp_path / "tls.crt"), private_key=str(tmp_path / "tls.key"))
    settings = replace(settings, certificate_seconds=0.02)

    def renew() -> None:
        signed = authority.sign("localhost")
        for name, content in (("tls.key", signed.key), ("tls.crt", signed.certificate)):
            (tmp_path / "new").write_bytes(content)
            (tmp_path / "new").rename(tmp_path / name)

    async def shown(port: int) -> bytes:
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)

    renew()
    async with gateway(settings) as port:
        first = await shown(port)
        (tmp_path / "tls.crt").write_text("nonsense")
        assert await shown(port) == first
        renew()
        async with asyncio.timeout(20):
            while await shown(port) == first:
                pass


async def test_an_address_that_is_taken_is_told_by_name() -> None:
    async with gateway() as port:
        with pytest.raises(InvalidInput, match=f"Cannot listen on 127.0.0.1 port {port}"):
            async with gateway(replace(SETTINGS, port=port)):
                pass


async def test_a_certificate_that_is_none_is_told_by_name(tmp_path: Path) -> None:
    settings = replace(SETTINGS, certificate=str(tmp_path / "none.crt"), private_key=str(tmp_path / "none.key"))
    with pytest.raises(InvalidInput, match=r"none\.crt"):
        async with gateway(settings):
            pass


async def test_it_is_alive_but_not_ready_without_an_api_server_and_tells_its_figures() -> None:
    metrics = GatewayMetrics()
    metrics.answered("GET /backups", 200, 0.01)
    async with (
        aclosing(TokenAuth(TokenClients(Anonymous(NOBODY)))) as who,
        running(make_health_app(who, metrics), SETTINGS) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
    ):
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        async with session.get("/readyz") as answer:
            assert answer.status == 503
        async with session.get("/metrics") as answer:
            text = await answer.text()
    assert 'cinderblock_gateway_request_duration_seconds_count{code="200",operation="GET /backups"} 1.0' in text


async def test_an_api_server_that_does_not_answer_is_503() -> None:
    head = b"GET /v3/shop/backups HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n\r\n"
    async with gateway() as port:
        answer = await say(port, head)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'{"serviceUnavailable":{"code":503,' in answer
