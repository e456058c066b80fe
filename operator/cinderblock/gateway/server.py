"""The process: an HTTP server around the application, with TLS, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from cinderblock.errors import InvalidInput
from cinderblock.gateway.settings import GatewaySettings

_HEAD_BYTES = 65_536
"""Bytes of a request's head: a token of 16 KiB, and room."""

_logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that leaves signals to the process that it is a part of, and says when it listens.

    Attributes:
        listens: set once connections are taken.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp, settings: GatewaySettings) -> Server:
    """A server that is ready to be started. Raises InvalidInput for a certificate that cannot be read."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        loop="asyncio",
        http=_with_header_timeout(settings.header_seconds),
        timeout_keep_alive=int(settings.idle_seconds),
        timeout_graceful_shutdown=10,
        limit_concurrency=settings.connections,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    config.load()
    if settings.certificate and settings.private_key:
        config.ssl = _tls(settings.certificate, settings.private_key)
    return Server(config)


@asynccontextmanager
async def running(app: ASGIApp, settings: GatewaySettings) -> AsyncIterator[Server]:
    """Serve ``app`` until the block ends. Raises InvalidInput if the address cannot be listened on."""
    server = make_server(app, settings)
    listening = _listen(settings)
    tasks = [asyncio.create_task(server.serve([listening])), asyncio.create_task(_renew(server.config, settings))]
    try:
        await server.listens.wait()
        yield server
    finally:
        tasks[1].cancel()
        server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


def _listen(settings: GatewaySettings) -> socket.socket:
    """A socket that says it is TCP: only then does asyncio switch Nagle's algorithm off (40 ms an answer)."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise InvalidInput(f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}") from error
    return listening


def _tls(certificate: str, private_key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate, private_key)
    return context


def _load(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:
        raise InvalidInput(f"Cannot use certificate {certificate} with key {private_key}: {error}") from error


async def _renew(config: uvicorn.Config, settings: GatewaySettings) -> None:
    """Read the certificate again whenever its file changes; connections that are there keep the old one."""
    if not (settings.certificate and settings.private_key and isinstance(config.ssl, ssl.SSLContext)):
        return
    seen = _stamp(settings.certificate)
    while True:
        await asyncio.sleep(settings.certificate_seconds)
        now = _stamp(settings.certificate)
        if now == seen:
            continue
        try:
            _load(config.ssl, settings.certificate, settings.private_key)
        except InvalidInput as error:
            _logger.warning("The old certificate stays in use: %s", error.message)
            continue
        seen = now
        _logger.info("Certificate %s was read again", settings.certificate)


def _stamp(path: str) -> tuple[int, int]:
    """What changes with the file: the kubelet puts new ones in the place of the old."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns


def _with_header_timeout(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which waits without end for the head of a connection's first request, with an end to that."""

    class Impatient(H11Protocol):
        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._patience = self.loop.call_later(seconds, self._lose_patience)

        def _lose_patience(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

    return Impatient
