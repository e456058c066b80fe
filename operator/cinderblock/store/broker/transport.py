"""Send requests to the broker over HTTPS, with reused connections, and within limits of time and bytes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from typing_extensions import override

from cinderblock import __version__
from cinderblock.errors import CinderblockError, InvalidInput, StoreTooSlow, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store import deadline
from cinderblock.store.deadline import Deadline, limit_seconds

CALL_SECONDS: Final = 30.0
"""Seconds of one call. The broker itself may have to ask the API server and the token service of the S3 server."""
CONNECT_SECONDS: Final = 10.0
"""Seconds to connect."""
ANSWER_BYTES: Final = 64 << 10
"""Most bytes of an answer. Session credentials have some kilobytes."""
_SCHEME: Final = "https"
_DEFAULT_PORT: Final = 443
_CLOSED: Final = (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError, BrokenPipeError)
"""Exceptions for a connection that was closed before the end of the answer."""


class Answer(NamedTuple):
    """An answer of the broker, or of something in its place.

    Attributes:
        status: of HTTP.
        headers: by names in lower case.
        content: the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class _Connection(http.client.HTTPConnection):
    """A connection with TLS whose socket belongs to the deadline of the current call."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port)
        self._context = context

    @override
    def connect(self) -> None:
        """Connect within the time that is left, and let the deadline watch the socket, also during TLS."""
        limit = deadline.current()
        seconds = CONNECT_SECONDS if limit is None else max(0.001, min(CONNECT_SECONDS, limit.remaining))
        connected = socket.create_connection((self.host, self.port), seconds)
        try:
            if limit is not None:
                limit.watch(connected)
            # A request is two small writes: Nagle's algorithm would delay the second by up to 40 ms.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._context.wrap_socket(connected, server_hostname=self.host)
        except BaseException:
            connected.close()
            raise
        self.sock.settimeout(CALL_SECONDS)


class Transport:
    """Sends requests to one broker. Several threads may use it; each has a connection for its call.

    Args:
        url: URL of the broker.
        ca_certificate: PEM certificate of the authority that signs its certificate; no other one is trusted.

    Raises InvalidInput if one of them is malformed.
    """

    def __init__(self, url: str, ca_certificate: str) -> None:
        self.url = url
        self._host, self._port, self._path = _parse(url)
        self._context = _context(url, ca_certificate)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._is_closed = False

    def post(self, path: str, body: bytes, token: str) -> Answer:
        """Return the answer to a request. It may be sent twice, so repeating it must be harmless.

        Raises StoreUnreachable and StoreTooSlow.
        """
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": f"cinderblock/{__version__}",
        }
        with limit_seconds(CALL_SECONDS) as limit:
            if limit.has_expired:
                raise self._too_slow(limit)
            try:
                return self._post(self._path + path, body, headers)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise (self._too_slow(limit) if limit.has_expired else self._from_network(error)) from None

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                # The broker has closed it meanwhile, or is gone. Then the other kept connections are useless too.
                self._close_idle()
                if isinstance(error, TimeoutError):
                    raise
        return self._exchange(_Connection(self._host, self._port, self._context), path, body, headers)

    def _exchange(self, connection: _Connection, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request and read its answer. Afterwards, the connection is closed or kept."""
        is_kept = False
        try:
            limit = deadline.current()
            if limit is not None and connection.sock is not None:
                limit.watch(connection.sock)
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES + 1)
            if len(content) > ANSWER_BYTES:
                raise self._foreign(f"an answer of more than {ANSWER_BYTES >> 10} KiB")
            if not response.isclosed() and response.length:
                raise http.client.IncompleteRead(content, response.length)
            is_kept = response.isclosed() and not response.will_close
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, content)
        finally:
            if is_kept:
                self._keep(connection)
            else:
                connection.close()

    def _take(self) -> _Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            # If the broker has closed the connection, the end of TLS fails.
            with contextlib.suppress(OSError):
                connection.close()

    def close(self) -> None:
        """Close all connections. Those of calls that are running are closed at their end."""
        with self._lock:
            self._is_closed = True
        self._close_idle()

    def _too_slow(self, limit: Deadline) -> StoreTooSlow:
        return StoreTooSlow(
            f"Cannot use the broker at {self.url}: a call was not complete after {limit.seconds:.0f} s. Check the"
            " network, and the load of the broker.",
            reason=Reason.BROKER_UNAVAILABLE,
        )

    def _foreign(self, answer: str) -> StoreUnreachable:
        return StoreUnreachable(
            f"Cannot use the broker at {self.url}: something else answers there, and sent {answer}. Check the Service"
            " of the broker.",
            reason=Reason.BROKER_UNAVAILABLE,
        )

    def _from_network(self, error: Exception) -> CinderblockError:
        """Return the error for a request that got no complete answer. Texts of libraries may quote headers."""
        if isinstance(error, ssl.SSLCertVerificationError):
            # A certificate that is replaced is wrong for a moment. The next mover gets the present authority.
            return StoreUnreachable(
                f"Cannot trust the certificate of the broker at {self.url}: {error.verify_message}. Check the Secret of"
                " its certificate.",
                reason=Reason.CERTIFICATE_NOT_TRUSTED,
            )
        if isinstance(error, http.client.HTTPException) and not isinstance(error, _CLOSED):
            return self._foreign("something other than HTTP")
        if isinstance(error, TimeoutError):
            cause = "no answer arrived in time"
        elif isinstance(error, _CLOSED):
            cause = "the connection was closed"
        else:
            cause = getattr(error, "strerror", None) or type(error).__name__
        return StoreUnreachable(
            f"Cannot reach the broker at {self.url}: {cause}. Check that its pods run, and that no NetworkPolicy is in"
            " between.",
            reason=Reason.BROKER_UNAVAILABLE,
        )


def _parse(url: str) -> tuple[str, int, str]:
    """Return host, port and path of the URL. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != _SCHEME or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(
            "Cannot use the broker: its URL must be https://host[:port]. Enable the broker in the chart"
            " (broker.enabled), or correct its URL."
        )
    return parts.hostname, port or _DEFAULT_PORT, parts.path.rstrip("/")


def _context(url: str, ca_certificate: str) -> ssl.SSLContext:
    """Return a context that trusts only one authority. Raises InvalidInput."""
    try:
        return trusting(ca_certificate)
    except (ssl.SSLError, ValueError):
        raise InvalidInput(
            f"Cannot use the broker at {url}: its CA is not a PEM certificate. Check ca.crt in the Secret of its"
            " certificate."
        ) from None


def trusting(ca_certificate: str) -> ssl.SSLContext:
    """Return a context that trusts these PEM certificates and no others. Raises SSLError and ValueError.

    The operator checks the broker with the same context, so that it never finds ready what movers reject.
    """
    if not ca_certificate.strip():
        # The context would trust all authorities of the system.
        raise ValueError("no certificate")
    context = ssl.create_default_context(cadata=ca_certificate)
    # Python 3.13 demands key identifiers. An authority of an administrator may add none, like that of Kubernetes.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
