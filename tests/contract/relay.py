"""A relay between a store and its server that can be slow, damage bytes, or break."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"[A-Z]+ \S+(?= HTTP/1)")


@dataclass
class Relay:
    """The running relay.

    Attributes:
        url: where to connect to instead of the server.
        flip_up: flip a bit of the first byte equal to this that goes to the server, once.
        break_up: break the connection, once, when so many bytes have gone to the server.
        break_down: break the connection, once, when so many bytes have come from the server.
        stall_at: pass nothing more to the server from the first request on whose head matches this, until `resume`.
        stalled: set when that request has come.
        pause: seconds of rest after every 64 KiB that go to the server.
        connections: connections that were made.
        requests: method and target of each request that went to the server, as far as it began a packet.
    """

    url: str
    flip_up: bytes | None = None
    break_up: int | None = None
    break_down: int | None = None
    stall_at: re.Pattern[bytes] | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    pause: float = 0.0
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    _resumed: threading.Event = field(default_factory=threading.Event)
    _up: int = 0
    _down: int = 0

    def resume(self) -> None:
        """Pass what was held back, and everything after it."""
        self._resumed.set()

    def upwards(self, content: bytes) -> bytes | None:
        """Return the bytes to pass to the server; None breaks the connection."""
        if begun := _REQUEST.match(content):
            self.requests.append(begun[0].decode())
        if self.stall_at is not None and not self._resumed.is_set() and self.stall_at.match(content):
            self.stalled.set()
            self._resumed.wait()
        if self.pause:
            time.sleep(self.pause)
        self._up += len(content)
        if self.break_up is not None and self._up >= self.break_up:
            self.break_up = None
            return None
        if self.flip_up and self.flip_up in content:
            at, self.flip_up = content.index(self.flip_up), None
            return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        return content

    def downwards(self, content: bytes) -> bytes | None:
        """Return the bytes to pass from the server; None breaks the connection."""
        self._down += len(content)
        if self.break_down is not None and self._down >= self.break_down:
            self.break_down = None
            return None
        return content


@contextlib.contextmanager
def relay(server_url: str) -> Iterator[Relay]:
    """Run a relay to the server, on its own port."""
    server = urlsplit(server_url)
    address = (server.hostname or "", server.port or 0)
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as sockets:
        line = Relay(f"{server.scheme}://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                line.connections += 1
                upstream = socket.create_connection(address)
                for one in (client, upstream):
                    sockets.callback(_close, one)
                for arguments in ((client, upstream, line.upwards), (upstream, client, line.downwards)):
                    threads.append(threading.Thread(target=_copy, args=arguments))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield line
        finally:
            line.resume()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            sockets.close()
            for thread in threads:
                thread.join()


def _copy(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
    # A line that breaks is what some tests want: both ends then see an end or a reset.
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            passed = change(content)
            if passed is None:
                break
            target.sendall(passed)
    for one in (source, target):
        _close(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
