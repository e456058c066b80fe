"""An S3 server on loopback that misbehaves: a catalogue of answers that no honest server gives.

Each misbehavior yields the bytes of its answer, and numbers for seconds of silence between them. The server needs a few
slices of memory, however long an answer is.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

Answer = Iterator[bytes | float]
Misbehavior = Callable[[bytes], Answer]
"""Yields the answer to a request, given its head."""

SLICE: Final = b"x" * 65536
TRICKLE_SECONDS: Final = 0.05


def _head(status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", 'ETag: "x"', "Connection: close", *headers, "", ""]).encode()


def _forever(content: bytes = SLICE) -> Answer:
    return itertools.repeat(content)


def _trickle(content: bytes) -> Answer:
    for position in range(len(content)):
        yield content[position : position + 1]
        yield TRICKLE_SECONDS


def _endless(head: bytes, content: bytes = SLICE) -> Misbehavior:
    def respond(_: bytes) -> Answer:
        yield head
        yield from _forever(content)

    return respond


def _whole(head: bytes, content: bytes = b"") -> Misbehavior:
    return lambda _: iter((head, content))


def _xml(body: bytes, status: str = "200 OK") -> Misbehavior:
    return _whole(_head(status, f"Content-Length: {len(body)}", "Content-Type: application/xml"), body)


def _trickles_after(head: bytes) -> Misbehavior:
    def respond(_: bytes) -> Answer:
        yield head
        while True:
            yield from _trickle(SLICE)

    return respond


def _trickles_everything(_: bytes) -> Answer:
    while True:
        yield from _trickle(_head("200 OK", "X-Padding: " + "x" * 1000))


def _endless_headers(_: bytes) -> Answer:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in itertools.count():
        yield f"X-{number}: x\r\n".encode() * 100


def _endless_pages(_: bytes) -> Answer:
    """Answer with one page of an endless listing, whose keys always advance."""
    for number in _PAGES:
        keys = "".join(f"<Contents><Key>k{number:012}-{item:04}</Key><Size>1</Size></Contents>" for item in range(1000))
        yield from _listing(keys, f"token-{number}")
        return


_PAGES: Final = itertools.count()


def _empty_pages(_: bytes) -> Answer:
    for number in _PAGES:
        yield from _listing("", f"token-{number}")
        return


def _listing(contents: str, token: str | None = None) -> Answer:
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = str(token is not None).lower()
    body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{contents}</ListBucketResult>".encode()
    yield _head("200 OK", f"Content-Length: {len(body)}")
    yield body


def _page(contents: str) -> Misbehavior:
    return lambda _: _listing(contents)


def _asks_for_the_body_and_leaves(head: bytes) -> Answer:
    if b"100-continue" in head:
        yield b"HTTP/1.1 100 Continue\r\n"


def _contents(key: str, size: str = "1") -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"


_BOMB: Final = gzip.compress(bytes(64 << 20))
_LAUGHS: Final = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "'
    + b"x" * 1000
    + b'">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + number, b"&%c;" % (97 + number) * 20) for number in range(8))
    + b"]><Error><Code>&i;</Code></Error>"
)


def _declared(declaration: str, content: str, padding: int = 0) -> bytes:
    """Return XML with declarations, which a parser repeats. Padding makes more repetitions look harmless to expat."""
    return f"<!DOCTYPE a [<!--{'x' * padding}--><!{declaration}>]><a>{content}</a>".encode()


_ENTITY: Final = f"ENTITY e '{'x' * 60_000}'"
_DEFAULT: Final = f"ATTLIST b a CDATA '{'x' * 40_000}'"

MISBEHAVIORS: Final[dict[str, Misbehavior]] = {
    "more than was asked for": _endless(_head("206 Partial Content", "Content-Range: bytes 2-4/10")),
    "announces more than was asked for": _endless(
        _head("206 Partial Content", "Content-Range: bytes 2-4/10", "Content-Length: 99999999999")
    ),
    "the whole object, without end": _endless(_head()),
    "the whole object, of a petabyte": _endless(_head("200 OK", "Content-Length: 1125899906842624")),
    "chunks without end": _endless(_head("200 OK", "Transfer-Encoding: chunked"), b"10000\r\n" + SLICE + b"\r\n"),
    "a chunk size without end": _endless(_head("200 OK", "Transfer-Encoding: chunked"), b"0" * 65536),
    "chunk trailers without end": _endless(_head("200 OK", "Transfer-Encoding: chunked") + b"0\r\n", b"X: y\r\n" * 100),
    "a negative length": _endless(_head("200 OK", "Content-Length: -5")),
    "headers without end": _endless_headers,
    "a header without end": _endless(b"HTTP/1.1 200 OK\r\nX: "),
    "a status line without end": _endless(b"HTTP/1.1 200 "),
    "a status line without a phrase": _whole(b"HTTP/1.1 417\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    "other interim answers without end": _endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "headers of an interim answer without end": _endless(b"HTTP/1.1 102 Processing\r\n", b"X: y\r\n" * 100),
    "interim answers without end": _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "no answer": lambda _: itertools.repeat(0.05),
    "a trickle from the first byte": _trickles_everything,
    "a trickle of a body": _trickles_after(_head("200 OK", "Content-Length: 1000000")),
    "a trickle of a part": _trickles_after(_head("206 Partial Content", "Content-Range: bytes 2-4/10")),
    "a trickle of an error": _trickles_after(_head("500 Internal Server Error", "Content-Length: 60000")),
    "an error without end": _endless(_head("503 Slow Down")),
    "a page of errors without end": _endless(_head("404 Not Found"), b"<Error>" * 1000),
    "a refused range without end": _endless(_head("416 Range Not Satisfiable")),
    "a compressed bomb": _whole(_head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(_BOMB)}"), _BOMB),
    "entities of entities": _xml(_LAUGHS, "400 Bad Request"),
    "entities of entities in an answer": _xml(_LAUGHS),
    "an entity many times": _xml(_declared(_ENTITY, f"<b>{'&e;' * 1000}</b>", padding=1_000_000)),
    "an entity many times, in UTF-16": _xml(
        _declared(_ENTITY, f"<b>{'&e;' * 1000}</b>", padding=1_000_000).decode().encode("utf-16")
    ),
    "an entity many times in an error": _xml(_declared(_ENTITY, f"<b>{'&e;' * 120}</b>"), "403 Forbidden"),
    "a default attribute many times": _xml(_declared(_DEFAULT, "<b/>" * 5000)),
    "a default attribute many times in an error": _xml(_declared(_DEFAULT, "<b/>" * 5000), "403 Forbidden"),
    "elements within elements": _xml(b"<a>" * 300_000),
    "whole elements within elements": _xml(b"<a>" * 32_000 + b"</a>" * 32_000),
    "whole elements within elements of an error": _xml(b"<a>" * 9_000 + b"</a>" * 9_000, "403 Forbidden"),
    "a million elements": _xml(b"<a>" + b"<b/>" * 1_000_000 + b"</a>"),
    "a million attributes": _xml(b"<a " + b"".join(b'a%d="" ' % number for number in range(300_000)) + b"/>"),
    "bytes that are no text": _xml(bytes(range(256)) * 100),
    "a listing without end": _endless_pages,
    "empty pages without end": _empty_pages,
    "more keys than a page has": _page("".join(_contents(f"k{number:06}") for number in range(20_000))),
    "keys of other prefixes": _page(_contents("elsewhere/key")),
    "a key without a size": _page("<Contents><Key>key</Key></Contents>"),
    "a size without a key": _page("<Contents><Size>1</Size></Contents>"),
    "a size that is no number": _page(_contents("key", "many")),
    "a size below zero": _page(_contents("key", "-1")),
    "a date that does not exist": _page("<Contents><Key>k</Key><LastModified>1e300</LastModified></Contents>"),
    "a date without end": _page(
        f"<Contents><Key>k</Key><Size>1</Size><LastModified>{'1.' * 500_000}</LastModified></Contents>"
    ),
    "a version of a date without end": _xml(
        f"<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>k</Key><LastModified>{'1.' * 500_000}"
        "</LastModified></Version></ListVersionsResult>".encode()
    ),
    "an object of a date that does not exist": _whole(
        _head("200 OK", "Last-Modified: 1e300", "x-amz-object-lock-retain-until-date: 1e300", "Content-Length: 0")
    ),
    "an error that is a word": _xml(b"<Answer><Error>no</Error></Answer>", "403 Forbidden"),
    "an error whose code has elements": _xml(b"<Error><Code><a>no</a></Code></Error>", "403 Forbidden"),
    "metadata that are a word": _xml(b"<Answer><ResponseMetadata>no</ResponseMetadata></Answer>", "403 Forbidden"),
    "asks for the body and leaves": _asks_for_the_body_and_leaves,
    "headers before the answer, without end": _endless(b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n" * 100),
    "hangs up": lambda _: iter(()),
    "random bytes": _endless(b"", bytes(reversed(range(256)))),
}
"""Each misbehavior by a name for messages."""


@dataclass
class HostileServer:
    """The running server: its URL, its requests, and how many bytes the client has taken, socket buffers included."""

    url: str
    heads: list[bytes] = field(default_factory=list)
    sent: int = 0


@contextmanager
def hostile_server(misbehavior: Misbehavior) -> Iterator[HostileServer]:
    """Run a server that answers every request with a misbehavior."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = HostileServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    thread = threading.Thread(target=_serve, args=(connection, server, misbehavior, stop), daemon=True)
                    threads.append(thread)
                    thread.start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
            for thread in threads:
                thread.join(5)


def _serve(connection: socket.socket, server: HostileServer, misbehavior: Misbehavior, stop: threading.Event) -> None:
    connection.settimeout(0.2)
    with connection, contextlib.suppress(OSError):
        head = _read_head(connection, stop)
        server.heads.append(head)
        for piece in misbehavior(head):
            if stop.is_set():
                return
            if isinstance(piece, float):
                stop.wait(piece)
            else:
                _send(connection, piece, stop, server)
        # Closing with unread bytes would reset the connection, and the client might lose the answer.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def _read_head(connection: socket.socket, stop: threading.Event) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            came = connection.recv(65536)
            if not came:
                raise ConnectionError
            head += came
    return head.partition(b"\r\n\r\n")[0]


def _send(connection: socket.socket, piece: bytes, stop: threading.Event, server: HostileServer) -> None:
    view = memoryview(piece)
    while view and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            count = connection.send(view)
            server.sent += count
            view = view[count:]
