"""One HTTP exchange with the API server: time limit, identity, retries of reads."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTResponse

from cinderblock import __version__
from cinderblock.errors import CinderblockError, InvalidInput, KubeUnavailable, ResponseTooLarge
from cinderblock.kube.responses import Response
from cinderblock.kube.rest_config import ConfigSource, RestConfig

CALL_SECONDS: Final = 30.0
"""Time limit of one exchange. The server's own limit for a request is 60 s (kube-apiserver --request-timeout)."""
CONNECT_SECONDS: Final = 5.0
"""Time limit for making a connection: what dask-kubernetes uses against load balancers that swallow packets."""
CONNECTIONS: Final = 64
"""Connections at once; more calls wait for one. Each of 16 reconcile workers may then read four things at once."""
RELOAD_SECONDS: Final = 60.0
"""Age at which the configuration is read again. The kubelet renews a token 12 minutes before it expires."""
READ_ATTEMPTS: Final = 4
"""How often a read is tried: with waits of 0.2, 0.4 and 0.8 s it rides out the restart of one API server of three."""
RETRY_AFTER_LIMIT: Final = 10.0
"""Seconds of Retry-After that a read waits for; a server that asks for more is reported as unavailable at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, without the server and the identity.

    Attributes:
        method: GET, POST, PUT, PATCH or DELETE.
        path: from the server's root, with a leading slash.
        query: parameters.
        body: object that is sent as JSON; None: nothing.
        content_type: of the body; for a PATCH, it names the kind of patch.
        token: token of a caller, which replaces our own credentials.
        at_most: limit of the response in bytes; None: no limit.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    content_type: str = "application/json"
    token: str | None = field(default=None, repr=False)
    at_most: int | None = None


class RoundTripper(Protocol):
    """Whatever exchanges requests for responses; `Transport` documents the errors."""

    async def config(self) -> RestConfig:
        """Return the configuration in use."""

    async def round_trip(self, request: Request) -> Response:
        """Send a request and read the whole response."""

    async def aclose(self) -> None:
        """Close what is held. May be repeated."""


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
        # The package's own time limit is five minutes, for requests that are sent without one.
        self._timeout = aiohttp.ClientTimeout(total=call_seconds, sock_connect=CONNECT_SECONDS)
        self._config: RestConfig | None = None
        self._loaded_at = 0.0
        self._loading = asyncio.Lock()
        self._load_error: CinderblockError | None = None
        self._connection: _Connection | None = None

    async def config(self) -> RestConfig:
        """Return the configuration in use, which is read again when it is a minute old."""
        if self._config is None or self._clock() - self._loaded_at >= RELOAD_SECONDS:
            await self._load(self._config)
        assert self._config is not None
        return self._config

    async def round_trip(self, request: Request) -> Response:
        """Send a request and read the whole response.

        A GET is tried up to READ_ATTEMPTS times while there is no response, or 429, or 5xx; nothing else is, because a
        write whose response is lost may have happened. (aiohttp itself repeats a GET, PUT or DELETE when a kept
        connection turns out to be closed; resourceVersion and UID make that safe for PUT and DELETE.) After 401 the
        credentials are renewed once, for every method, since the server has not processed the request.

        Raises:
            KubeUnavailable: no response.
            ResponseTooLarge: the response exceeds the limit of the request.
        """
        for attempt in range(1, READ_ATTEMPTS if request.method == "GET" else 1):
            try:
                response = await self._authenticate(request)
            except KubeUnavailable:
                await self._sleep(_backoff(attempt))
                continue
            wait = _backoff(attempt) if response.retry_after is None else response.retry_after
            if not _is_transient(response.status) or wait > RETRY_AFTER_LIMIT:
                return response
            await self._sleep(wait)
        return await self._authenticate(request)

    async def aclose(self) -> None:
        """Close all connections. May be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.api.close()

    async def _authenticate(self, request: Request) -> Response:
        """Send a request as ourselves, and once more with renewed credentials if the server answers 401."""
        config = await self.config()
        if request.token is not None:
            return await self._send(request, config, request.token)
        response = await self._send(request, config, config.token)
        if response.status == 401:
            await self._load(config, renew=True)
            config = await self.config()
            response = await self._send(request, config, config.token)
        return response

    async def _send(self, request: Request, config: RestConfig, token: str | None) -> Response:
        headers = {"Accept": "application/json"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if self._connection is None:
            self._connection = _Connection(api_client(config))
        connection = self._connection
        connection.requests += 1
        try:
            method, url, headers, _, _ = await connection.api.param_serialize(
                request.method,
                request.path,
                query_params=dict(request.query),
                header_params=headers,
                auth_settings=["BearerToken"] if token else [],
                _request_auth=_authorization(token),
            )
            response = await connection.api.call_api(method, url, headers, request.body, _request_timeout=self._timeout)
            body = await _read(response, request)
            return Response(response.status, body, _retry_after(response.headers), _date(response.headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeUnavailable(
                f"Cannot {request.method} {request.path}: the API server at {config.server} does not answer: "
                f"{_describe(error)}"
            ) from error
        finally:
            connection.requests -= 1
            if connection is not self._connection:
                await connection.close_if_idle()

    async def _load(self, known: RestConfig | None, *, renew: bool = False) -> None:
        """Read the configuration, unless another task has replaced ``known`` meanwhile.

        A task that waited while another one failed gets that error, so that a plugin that hangs delays all of them
        once and not one after the other.
        """
        error_before = self._load_error
        async with self._loading:
            if self._config is not known:
                return
            if self._load_error is not None and self._load_error is not error_before:
                raise self._load_error
            replaced = None
            try:
                loaded = await self._source.load(renew=renew)
                if self._config is None or replace(loaded, token=None) != replace(self._config, token=None):
                    # The token is shown with each request, everything else belongs to the connections.
                    replaced, self._connection = self._connection, _Connection(api_client(loaded))
            except CinderblockError as error:
                self._load_error = error
                raise
            self._config = loaded
            self._loaded_at = self._clock()
            if renew:
                _log.info("Renewed credentials after the API server rejected them")
            if replaced is not None:
                await replaced.close_if_idle()


@dataclass(slots=True, eq=False)
class _Connection:
    """The package's client for one server and one set of certificates.

    Attributes:
        api: the client with its pool of connections.
        requests: how many requests are under way; a connection that was replaced closes after the last one.
    """

    api: ApiClient
    requests: int = 0

    async def close_if_idle(self) -> None:
        """Close the pool unless a request is under way."""
        if not self.requests:
            await self.api.close()


def api_client(config: RestConfig) -> ApiClient:
    """Return the ``kubernetes`` package's client for a configuration, without its token.

    Raises InvalidInput if a certificate or key is not PEM.
    """
    configuration = Configuration(
        host=config.server,
        verify_ssl=not config.insecure,
        tls_server_name=config.server_name,
        proxy=config.proxy,
        connection_pool_maxsize=CONNECTIONS,
        # By default HTTPS_PROXY counts, which the chart sets for the S3 store; proxy-url of a kubeconfig is another.
        client_session_kwargs={"trust_env": False},
    )
    # Kubernetes' own CAs often lack the key identifier that RFC 5280 demands. So strict checking, which is the default
    # since Python 3.13, is disabled, as in Go.
    configuration.disable_strict_ssl_verification = True
    try:
        configuration.ca_cert_data = config.ca.decode() if config.ca else None
        client = _with_certificate(configuration, config)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"Cannot connect to {config.server}: its CA, the client certificate or the key is not PEM"
        ) from error
    client.user_agent = f"cinderblock/{__version__}"
    return client


def ssl_context(config: RestConfig) -> ssl.SSLContext:
    """Return the TLS settings of `api_client`."""
    context = api_client(config).rest_client.ssl_context
    assert isinstance(context, ssl.SSLContext)
    return context


def _with_certificate(configuration: Configuration, config: RestConfig) -> ApiClient:
    """Return a client that shows the client certificate, if there is one.

    ``ssl`` takes certificate and key from a file only. The file is ours alone, and is gone when this returns.
    """
    if not (config.certificate and config.private_key):
        return ApiClient(configuration)
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(config.certificate + b"\n" + config.private_key)
        configuration.cert_file = path
        return ApiClient(configuration)
    finally:
        os.unlink(path)


def _authorization(token: str | None) -> dict[str, str] | None:
    """Return the identity of one request, in the package's form."""
    if not token:
        return None
    return {"type": "api_key", "in": "header", "key": "Authorization", "value": f"Bearer {token}"}


async def _read(response: RESTResponse, request: Request) -> bytes:
    """Return the body of a response. Raises ResponseTooLarge, and reads no more, if it exceeds the request's limit."""
    if request.at_most is None:
        return bytes(await response.read())
    body = bytearray()
    async for block in response.response.content.iter_any():
        body += block
        if len(body) > request.at_most:
            response.response.close()
            raise ResponseTooLarge(f"Cannot {request.method} {request.path}: the response exceeds {request.at_most} B")
    return bytes(body)


def _is_transient(status: int) -> bool:
    """Return whether the same read may succeed in a moment."""
    return status == 429 or status >= 500


def _backoff(attempt: int) -> float:
    """Return the seconds to wait after an attempt: 0.2, 0.4, 0.8 and so on."""
    return 0.1 * (1 << attempt)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; the API server always sends a number, never a date."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _date(headers: Mapping[str, str]) -> datetime | None:
    """Return the Date header, which Go's HTTP server always sends (net/http)."""
    try:
        date = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    return date if date.tzinfo is not None else None


def _describe(error: BaseException) -> str:
    """Describe an error without its URL: a proxy's holds credentials."""
    if isinstance(error, TimeoutError):
        return "the time limit has passed"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
