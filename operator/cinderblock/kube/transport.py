"""One HTTP exchange with the API server: time limit, identity, retries of what only reads."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import aiohttp

from cinderblock.errors import KubeUnavailable
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import ConfigSource, RestConfig

CALL_SECONDS: Final = 30.0
"""Time limit of one exchange. The server's own limit for a request is 60 s (kube-apiserver --request-timeout)."""
CONNECT_SECONDS: Final = 5.0
"""Time limit for making a connection: what dask-kubernetes uses against load balancers that swallow packets."""
CONNECTIONS: Final = 64
"""Connections at once; more calls wait for one. Each of 16 reconcile workers may then read four things at once."""
RELOAD_SECONDS: Final = 60.0
"""Age at which credentials are read anew. The kubelet renews a token when a fifth of its life is left: 12 minutes."""
READ_ATTEMPTS: Final = 4
"""How often a read is tried: with waits of 0.2, 0.4 and 0.8 s it rides out the restart of one API server of three."""
RETRY_AFTER_LIMIT: Final = 10.0
"""Seconds of Retry-After that a read waits for; a server that asks for more is reported as unavailable at once."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, but for the server and the identity.

    Attributes:
        method: GET, POST, PUT, PATCH or DELETE.
        path: from the server's root, with a leading slash.
        query: parameters.
        body: what is sent; None: nothing.
        content_type: of the body; of a PATCH, it says which kind of patch.
        token: of somebody on whose behalf it is made, to be shown in place of our own credentials.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"
    token: str | None = field(default=None, repr=False)


class RoundTripper(Protocol):
    """Whatever exchanges requests for answers; what is raised, `Transport` tells."""

    async def credentials(self) -> RestConfig:
        """The credentials in use."""

    async def round_trip(self, request: Request) -> Response:
        """Send a request and read the whole answer."""

    async def aclose(self) -> None:
        """Give up what is held. May be repeated."""


class Transport:
    """Exchanges with one API server. Close it with ``aclose``."""

    def __init__(
        self,
        source: ConfigSource,
        *,
        call_seconds: float = CALL_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._sleep = sleep
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=call_seconds, sock_connect=CONNECT_SECONDS)
        self._credentials: RestConfig | None = None
        self._loaded_at = 0.0
        self._ssl: ssl.SSLContext | bool = True
        self._session: aiohttp.ClientSession | None = None
        self._loading = asyncio.Lock()

    async def credentials(self) -> RestConfig:
        """The credentials in use, read anew when they are a minute old."""
        if self._credentials is None or self._clock() - self._loaded_at >= RELOAD_SECONDS:
            await self._load(self._credentials)
        assert self._credentials is not None
        return self._credentials

    async def round_trip(self, request: Request) -> Response:
        """Send a request and read the whole answer.

        A GET is tried up to READ_ATTEMPTS times while there is no answer, or 429, or 5xx; nothing else is, because a
        write whose answer is lost may have happened. (aiohttp by itself sends a GET, PUT or DELETE once more when a
        kept connection turns out to be closed; PUT and DELETE bear it: resourceVersion and UID hold them.) After 401
        the credentials are renewed once, for every method, since the server has not looked at the request.

        Raises:
            KubeUnavailable: no answer.
        """
        for attempt in range(1, READ_ATTEMPTS if request.method == "GET" else 1):
            try:
                answer = await self._identified(request)
            except KubeUnavailable:
                await self._sleep(_backoff(attempt))
                continue
            wait = _backoff(attempt) if answer.retry_after is None else answer.retry_after
            if not _may_pass(answer.status) or wait > RETRY_AFTER_LIMIT:
                return answer
            await self._sleep(wait)
        return await self._identified(request)

    async def aclose(self) -> None:
        """Give up all connections. May be repeated."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _identified(self, request: Request) -> Response:
        """One request as ourselves, and a second one if the server does not know us any more."""
        shown = await self.credentials()
        if request.token is not None:
            return await self._once(request, replace(shown, token=request.token))
        answer = await self._once(request, shown)
        if answer.status == 401:
            await self._load(shown, renew=True)
            answer = await self._once(request, await self.credentials())
        return answer

    async def _once(self, request: Request, shown: RestConfig) -> Response:
        headers = {"Accept": "application/json"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if shown.token:
            headers["Authorization"] = f"Bearer {shown.token}"
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.request(
                request.method,
                shown.server + request.path,
                params=request.query,
                data=request.body,
                headers=headers,
                ssl=self._ssl,
                server_hostname=shown.server_name,
                proxy=shown.proxy,
            ) as response:
                return Response(response.status, await response.read(), _retry_after(response.headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            asked = f"{request.method} {request.path}"
            raise KubeUnavailable(
                f"The API server at {shown.server} does not answer {asked}: {_describe(error)}"
            ) from error

    async def _load(self, seen: RestConfig | None, *, renew: bool = False) -> None:
        """Read the credentials, unless another task has done so since ``seen`` was handed out."""
        async with self._loading:
            if self._credentials is not seen:
                return
            loaded = await self._source.load(renew=renew)
            if self._credentials is None or _tls(loaded) != _tls(self._credentials):
                self._ssl = ssl_context(loaded)
            if renew:
                _logger.info("Renewed credentials after the API server refused them")
            self._credentials = loaded
            self._loaded_at = self._clock()


def ssl_context(credentials: RestConfig) -> ssl.SSLContext:
    """TLS as the credentials ask for it.

    Kubernetes' own CAs often lack what RFC 5280 demands (a key identifier), so strict checking, which Python 3.13 has
    switched on, is off as it is in Go.
    """
    context = ssl.create_default_context(cadata=credentials.ca.decode() if credentials.ca else None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if credentials.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credentials.certificate and credentials.private_key:
        _load_client_certificate(context, credentials.certificate, credentials.private_key)
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    """Hand certificate and key over through a file of our own, the only way that ``ssl`` takes them."""
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate + b"\n" + private_key)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


def _tls(credentials: RestConfig) -> tuple[object, ...]:
    return credentials.ca, credentials.certificate, credentials.private_key, credentials.insecure


def _may_pass(status: int) -> bool:
    """Whether the same read may succeed in a moment."""
    return status == 429 or status >= 500


def _backoff(attempt: int) -> float:
    """Seconds to wait after the given attempt: 0.2, 0.4, 0.8 and so on."""
    return 0.1 * (1 << attempt)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; the API server always sends a number, never a date."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _describe(error: BaseException) -> str:
    """The error in words that hold no URL with credentials: a proxy's has some."""
    if isinstance(error, TimeoutError):
        return "time is up"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
