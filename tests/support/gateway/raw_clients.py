"""Clients that speak to a server through raw connections, from addresses of their own on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PATIENCE_SECONDS = 30.0
"""For how long the tests wait for what must happen; what happens decides, not when."""


@dataclass
class RawClient:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytes = b""

    async def send(self, data: bytes) -> None:
        """Send some bytes. The server may have closed the connection."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> bytes:
        """Return the head of the next response, and read its whole body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        self.received = await self.reader.readexactly(int(fields.get(b"content-length", b"0")))
        return head

    async def is_closed(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Read until the server closes the connection. Return False if it does not."""
        with suppress(ConnectionError):
            try:
                async with asyncio.timeout(seconds):
                    while block := await self.reader.read(65536):
                        self.received += block
            except TimeoutError:
                return False
        return True


@dataclass
class RawClients:
    """Connections to one server.

    Attributes:
        port: port of the server.
        tls: how to agree upon TLS; None: plain HTTP.
        opened: all connections, which end with the test.
    """

    port: int
    tls: ssl.SSLContext | None = None
    opened: list[RawClient] = field(default_factory=list)

    async def open(self, address: str = "127.0.0.1", sent: bytes = b"") -> RawClient:
        """Connect from an address, and send some bytes."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(address, 0), ssl=self.tls, limit=1 << 24
        )
        client = RawClient(reader, writer)
        self.opened.append(client)
        await client.send(sent)
        return client

    async def open_unread(self, address: str, sent: bytes) -> socket.socket:
        """Connect from an address with a small window, send some bytes, and read nothing."""
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.setblocking(False)
        connected.bind((address, 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connected, ("127.0.0.1", self.port))
        await loop.sock_sendall(connected, sent)
        return connected

    async def code(self, address: str = "127.0.0.1", path: str = "/", headers: str = "") -> int:
        """Return the code of the answer to one honest request; 0: the connection was closed without one."""
        client = await self.open(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return int((await client.answer()).split()[1])
        return 0


@asynccontextmanager
async def raw_clients(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawClients]:
    """Yield clients, whose connections end with the block."""
    clients = RawClients(port, tls)
    try:
        yield clients
    finally:
        for client in clients.opened:
            client.writer.close()
