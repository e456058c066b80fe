"""Connections of botocore whose time and answers are bounded.

botocore and urllib3 trust their server: they read an answer to its end, however long it is, and wait for the next byte
however many there were. So `bound` gives the connections of a client to the deadline of the call, and reads every
answer except the body of an object itself.
"""

from __future__ import annotations

import functools
import itertools
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPResponse,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSResponse,
)
from typing_extensions import override

from cinderblock.store import deadline
from cinderblock.store.failures import forget_partial_answers

if TYPE_CHECKING:
    import socket

    from botocore.awsrequest import AWSPreparedRequest
    from types_boto3_s3.client import S3Client

ANSWER_BYTES: Final = 4 << 20
"""Most bytes of an answer that is not the body of an object. A listing of 1000 keys has 0.4 MB; with keys of 1024
characters, each encoded as three, it has 3.5 MB."""
ERROR_BYTES: Final = 64 << 10
"""Most bytes of an answer that reports an error. A longer one, such as a web page, counts only by its status."""
_LINE_BYTES: Final = 64 << 10
"""Most bytes of a line before the answer; http.client has the same limit for the lines of headers."""
_INTERIM_LINES: Final = 100
"""Most header lines of an interim answer; http.client has the same limit for headers."""
_INTERIM_ANSWERS: Final = 100
"""Most interim answers before the final one. Servers send 102 Processing every few seconds, if at all."""

_TAGS: Final = 64_000
"""Most tags of an answer. 1000 keys of a listing have 26,000 at most. Four MiB of small elements would take 90 MiB and
seconds to parse."""
_ATTRIBUTES: Final = 10_000
"""Most attributes of an answer, counted in the simplest way. Answers of S3 have a few namespaces."""
_ATTRIBUTE: Final = re.compile(rb"=\s*[\"']")
_DECLARATION: Final = re.compile(rb"<!(?:ENTITY|ATTLIST)")
"""Declarations that S3 never makes. A parser repeats an entity at each use, and a default attribute at each element.
expat limits entities to a hundred times the text, and default attributes not at all. An answer of 2 MB took 6 GiB."""


class AnswerTooLong(Exception):
    """An answer has more bytes, or more elements, than any answer to this request can have."""


class _Response(AWSHTTPResponse):
    """A response that skips interim answers. http.client skips only 100, and takes 102 and 103 for final ones."""

    def __init__(self, *args: Any, status_tuple: tuple[str, int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, status_tuple=status_tuple, **kwargs)

    def _read_status(self) -> tuple[str, int, str]:
        """Return version, status and reason of the final answer (RFC 9110, section 15.2)."""
        for _ in range(_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not _is_interim(status):
                return version, status, reason
            _skip_headers(self.fp)
        raise ConnectionError("the server sent too many interim answers")


def _is_interim(status: int) -> bool:
    """Return whether another answer follows. 101 Switching Protocols ends HTTP."""
    return 100 <= status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS


class _Watched:
    """Mixin: a connection whose socket belongs to the deadline of the current call."""

    response_class: Any = _Response

    sock: socket.socket | None
    timeout: float | None

    def _new_conn(self) -> socket.socket:
        """Connect within the time that is left, and let the deadline watch the new socket, also during TLS."""
        limit = deadline.current()
        if limit is not None and isinstance(self.timeout, int | float):
            self.timeout = max(0.001, min(self.timeout, limit.remaining))
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        if limit is not None:
            limit.watch(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request, perhaps on a connection that an earlier call has made."""
        limit = deadline.current()
        if limit is not None and self.sock is not None:
            limit.watch(self.sock)
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def _handle_expect_response(self, message_body: Any) -> None:
        """Read the interim answer to Expect: 100-continue.

        botocore 1.44 reads it without a limit, and loops forever if the server closes the connection after its status
        line. It takes every other interim answer for a final one, and rejects a status line without a phrase
        (RFC 9112, section 4: the phrase is optional). The rest is as in botocore: a final answer means that the body
        is not sent.
        """
        assert self.sock is not None
        with self.sock.makefile("rb", 0) as lines:
            for _ in range(_INTERIM_ANSWERS):
                version, status, reason = _parse_status(lines.readline(_LINE_BYTES))
                if not _is_interim(status):
                    self.response_class = functools.partial(_Response, status_tuple=(version, status, reason))
                    self._response_received = True
                    return
                _skip_headers(lines)
                if status == HTTPStatus.CONTINUE:
                    self._send_message_body(message_body)  # type: ignore[attr-defined]
                    return
            raise ConnectionError("the server sent too many interim answers")


def _parse_status(line: bytes) -> tuple[str, int, str]:
    """Return version, status and reason phrase of a status line. Raises ConnectionError if it is none."""
    version, _, rest = line.decode("iso-8859-1").strip().partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if not version.startswith("HTTP/") or not (status.isdecimal() and len(status) == 3):
        raise ConnectionError("the server closed the connection instead of reading the body")
    return version, int(status), reason


def _skip_headers(lines: Any) -> None:
    for _ in range(_INTERIM_LINES):
        line = lines.readline(_LINE_BYTES)
        if line in (b"\r\n", b"\n"):
            return
        if not line:
            raise ConnectionError("the server closed the connection before its answer")
    raise ConnectionError("the server sent too many headers before its answer")


class _Connection(_Watched, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Watched, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _ReadResponse(AWSResponse):
    """A response whose content has been read."""

    def __init__(self, response: AWSResponse, content: bytes) -> None:
        super().__init__(response.url, response.status_code, cast("Any", response.headers), response.raw)
        self._read = content

    @property
    @override
    def content(self) -> bytes:
        return self._read


def bound(client: Any, service: str = "s3") -> None:
    """Bound the time and the answers of a new client's requests to a service."""
    # botocore has no public way to choose its session or its connections. test_hostile_servers fails if these go.
    endpoint: Any = client._endpoint  # noqa: SLF001
    session: Any = endpoint.http_session
    session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)  # noqa: SLF001

    def send(request: AWSPreparedRequest, **_: Any) -> Any:
        """Handle botocore's event before-send: take the place of its own sending."""
        is_object = request.stream_output
        request.stream_output = True  # so that botocore does not read the answer
        response: AWSResponse = session.send(request)
        if is_object and response.status_code < 300:
            return response
        return _ReadResponse(response, _read(response))

    client.meta.events.register_last(f"before-send.{service}", send)


def close_connections(client: S3Client) -> None:
    """Close the idle connections of a client.

    ``client.close`` leaves that to the garbage collector, and an exception that is being handled keeps the pool alive.
    """
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    for manager in (session._manager, *session._proxy_managers.values()):  # noqa: SLF001
        for key in manager.pools.keys():  # noqa: SIM118 - no dict: iterating over it is an error
            pool = manager.pools.get(key)
            if pool is not None:
                pool.close()
    client.close()


def _read(response: AWSResponse) -> bytes:
    """Read an answer. Raises AnswerTooLong, and what urllib3 raises."""
    is_error = response.status_code >= 300
    limit = ERROR_BYTES if is_error else ANSWER_BYTES
    try:
        content: bytes = response.raw.read(limit + 1)
    except Exception as error:
        forget_partial_answers(error)
        raise
    if len(content) <= limit and not _is_costly(content):
        return content
    response.raw.close()
    if is_error:
        return b""
    raise AnswerTooLong(f"an answer that no S3 server gives, of {len(content)} bytes or more")


def _is_costly(content: bytes) -> bool:
    """Return whether it would take much memory and time to parse an answer."""
    # expat accepts UTF-16, whatever encoding botocore names. There, each character of markup has a NUL.
    if _DECLARATION.search(content.replace(b"\0", b"")):
        return True
    if len(content) <= ERROR_BYTES:
        return False
    attributes = itertools.islice(_ATTRIBUTE.finditer(content), _ATTRIBUTES, None)
    return content.count(b"<") > _TAGS or next(attributes, None) is not None
