"""A server on loopback that sends the same response, or a list of responses, to every request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

KEEPS = b"Connection: keep-alive"
"""Header of a response that keeps the connection open."""


@dataclass
class Canned:
    """The running server: its URL, its requests as they arrived, and its number of connections."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def answer(status: str, body: bytes | str = b"", **headers: str) -> bytes:
    """Return an HTTP response, the last one on its connection unless a header says otherwise.

    Underscores in the names of headers stand for hyphens.
    """
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}"]
    if "Connection" not in headers:
        lines.append("Connection: close")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def s3_error(status: str, code: str, message: str = "It says why.", **headers: str) -> bytes:
    """Return an error in the form of S3."""
    return answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", **headers)


@contextmanager
def canned_server(*answers: bytes) -> Iterator[Canned]:
    """Send the responses in order, and repeat the last one. An empty response closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Canned(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(listener, server, list(answers)))
        thread.start()
        try:
            yield server
        finally:
            # Closing alone does not wake a thread in accept.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, server: Canned, answers: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        with connection:
            while request := _read(connection):
                server.requests.append(request)
                given = answers[0] if len(answers) == 1 else answers.pop(0)
                connection.sendall(given)
                if KEEPS not in given:
                    break


def _read(connection: socket.socket) -> bytes:
    """Return one request, empty at the end of the connection. Bodies are small, so none waits for 100 Continue."""
    request = b""
    while b"\r\n\r\n" not in request:
        came = connection.recv(65536)
        if not came:
            return b""
        request += came
    head, _, body = request.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
