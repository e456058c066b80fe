"""HTTP servers around ASGI applications, with TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from cinderblock.errors import InvalidInput
from cinderblock.serving.listener import Listener
from cinderblock.serving.protocol import HttpProtocol
from cinderblock.serving.settings import ServerSettings

_HEAD_BYTES = 65_536
"""Limit of a request's head: a token of 16 KiB, and some room."""

_logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that leaves signals to its process, and knows whether it accepts connections.

    Attributes:
        listens: set once the server accepts connections.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self.servers = []
        self._accepting: asyncio.Task[None] | None = None

    async def run_until_stopped(self, listening: socket.socket, settings: ServerSettings) -> None:
        """Serve until `should_exit` is set. Raises an error if the server ends before, for whatever reason."""
        listener = Listener(listening, settings, self._make_protocol, self.config.ssl)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._accepting = tasks.create_task(self._accept(listener))
                helpers = [
                    self._accepting,
                    tasks.create_task(_renew_certificate(self.config, settings)),
                    tasks.create_task(listener.enforce_time_limits()),
                ]
                await self.serve([])
                for helper in helpers:
                    helper.cancel()
        finally:
            listening.close()
            listener.abort_all()
        if not self.should_exit:
            raise RuntimeError("The HTTP server ended unexpectedly")

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. uvicorn's own way has no limits."""
        await self.lifespan.startup()
        self.started = True
        self.listens.set()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        await super().shutdown(sockets)

    async def _accept(self, listener: Listener) -> None:
        await self.listens.wait()
        await listener.accept()

    def _make_protocol(self, on_lost: Callable[[], None]) -> HttpProtocol:
        return HttpProtocol(self.config, self.server_state, on_lost)

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class RunningServer(NamedTuple):
    """A server that accepts connections.

    Attributes:
        port: the port that it listens on.
        task: ends with an error if the server fails.
    """

    port: int
    task: asyncio.Task[None]


def make_server(app: ASGIApp, settings: ServerSettings) -> Server:
    """Return a server that is ready to start. Raises InvalidInput if the certificate cannot be read."""
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
        http=H11Protocol,
        timeout_keep_alive=int(settings.idle_seconds),
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    config.load()
    if settings.certificate and settings.private_key:
        config.ssl = _tls(settings.certificate, settings.private_key)
    return Server(config)


@asynccontextmanager
async def running(app: ASGIApp, settings: ServerSettings) -> AsyncIterator[RunningServer]:
    """Serve ``app`` until the block ends.

    Raises:
        InvalidInput: the certificate cannot be read, or the server cannot listen on the address.
    """
    server = make_server(app, settings)
    listening = _listen(settings)
    port = int(listening.getsockname()[1])
    serving = asyncio.create_task(server.run_until_stopped(listening, settings))
    started = asyncio.create_task(server.listens.wait())
    try:
        await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await serving
        yield RunningServer(port, serving)
    finally:
        started.cancel()
        server.should_exit = True
        await asyncio.gather(serving, started, return_exceptions=True)


async def wait_for_stop(servers: Sequence[RunningServer]) -> None:
    """Wait for SIGTERM or SIGINT. Raises the error of a server that fails before: the process must not outlive it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    try:
        ended, _ = await asyncio.wait(
            [stopping, *(server.task for server in servers)], return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        stopping.cancel()
    for task in ended:
        task.result()


def _listen(settings: ServerSettings) -> socket.socket:
    """Return a listening socket of protocol TCP: only then does asyncio disable Nagle's algorithm (40 ms an answer)."""
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
    _load_certificate(context, certificate, private_key)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:
        raise InvalidInput(f"Cannot use certificate {certificate} with key {private_key}: {error}") from error


async def _renew_certificate(config: uvicorn.Config, settings: ServerSettings) -> None:
    """Reload the certificate whenever its file changes. Existing connections keep the old one."""
    if not (settings.certificate and settings.private_key and isinstance(config.ssl, ssl.SSLContext)):
        return
    loaded = _file_version(settings.certificate)
    while True:
        await asyncio.sleep(settings.certificate_seconds)
        current = _file_version(settings.certificate)
        if current == loaded:
            continue
        try:
            _load_certificate(config.ssl, settings.certificate, settings.private_key)
        except InvalidInput as error:
            _logger.warning("Kept the old certificate", extra={"error": error.message})
            continue
        loaded = current
        _logger.info("Reloaded the certificate", extra={"file": settings.certificate})


def _file_version(path: str) -> tuple[int, int]:
    """Return what differs between versions of a file, which the kubelet replaces."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns
