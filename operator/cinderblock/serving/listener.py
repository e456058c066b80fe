"""Accepts connections within limits, and ends those that wait too long for their client.

asyncio's own servers accept without limit, and make a TLS object of 0.3 MiB for each connection before anybody can
count it. So this module accepts by itself, and counts a connection before anything else happens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from cinderblock.serving.client_address import UNKNOWN, TrustedProxies, group_of
from cinderblock.serving.connection_limits import ConnectionLimits
from cinderblock.serving.protocol import Connection, HttpProtocol, time_limits
from cinderblock.serving.settings import ServerSettings

_PAUSE_SECONDS: Final = 0.1
"""Wait after a failed accept, which fails again at once if the process has no file descriptors left."""
_TICK_SECONDS: Final = 1.0
"""How often the connections are checked, unless a time limit is so short that this must be more often."""
_SHUTDOWN_SECONDS: Final = 5.0
"""Time limit for the end of TLS."""

_logger = logging.getLogger(__name__)

MakeProtocol = Callable[[Callable[[], None]], HttpProtocol]
"""Makes the HTTP side of a connection, given what to call at its end."""


class Listener:
    """Accepts the connections of one server.

    Args:
        listening: a socket that is bound.
        settings: limits, and which proxies are trusted.
        make_protocol: makes the HTTP side of a connection.
        tls: the server's certificate; None: plain HTTP.
    """

    def __init__(
        self,
        listening: socket.socket,
        settings: ServerSettings,
        make_protocol: MakeProtocol,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listening = listening
        self._settings = settings
        self._make_protocol = make_protocol
        self._tls = tls
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._limits = ConnectionLimits(settings.connections, settings.connections_per_client)
        self._connections: set[Connection] = set()

    async def accept(self) -> None:
        """Accept connections until the task is cancelled."""
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        self._listening.listen(128)
        while True:
            try:
                accepted, peer = await loop.sock_accept(self._listening)
            except OSError as error:
                _logger.warning("Cannot accept a connection", extra={"error": error.strerror})
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            self._admit(accepted, str(peer[0]) if peer else UNKNOWN)

    async def enforce_time_limits(self) -> None:
        """End connections whose phase has lasted for too long, until the task is cancelled."""
        limits = time_limits(self._settings)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_TICK_SECONDS, *(seconds / 4 for seconds in limits.values())))
            now = loop.time()
            for connection in [held for held in self._connections if held.is_overdue(now, limits)]:
                connection.abort()
            self._drop_unread()

    def abort_all(self) -> None:
        """End all connections at once."""
        for connection in list(self._connections):
            connection.abort()

    def _drop_unread(self) -> None:
        """End the connections with the most unread bytes, until all responses together fit into the limit."""
        unread = sorted(((held.unread_bytes, id(held), held) for held in self._connections), reverse=True)
        total = sum(size for size, _, _ in unread)
        for size, _, connection in unread:
            if total <= self._settings.unread_bytes:
                return
            connection.abort()
            total -= size

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(group_of(peer), self._proxies.trusts(peer), loop.time())
        if not self._limits.admit(connection):
            accepted.close()
            return
        self._connections.add(connection)
        accepted.setblocking(False)
        connection.opening = loop.create_task(self._open(accepted, connection))

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        """Agree upon TLS, if there is a certificate, and hand the connection to uvicorn."""

        def forget() -> None:
            self._connections.discard(connection)
            self._limits.release(connection)

        is_open = False
        connection.protocol = protocol = self._make_protocol(forget)
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: protocol,
                    accepted,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._settings.header_seconds if self._tls else None,
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS if self._tls else None,
                )
                is_open = True
        finally:
            connection.opening = None
            if not is_open:
                forget()
