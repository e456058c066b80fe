"""Everything around an operation: caller, microversion, body, and errors as faults."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput
from cinderblock.gateway.auth import Authenticator
from cinderblock.gateway.rest import body as rest_body
from cinderblock.gateway.rest import faults, microversions
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.list_cache import ListCache
from cinderblock.gateway.rest.microversions import Version
from cinderblock.gateway.rest.middleware import OPERATION_KEY
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse, Caller
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.list_memory import ListAccount, ListMemory
from cinderblock.reasons import Reason
from cinderblock.serving.client_address import UNKNOWN, group_of

_PROJECT: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Names of namespaces (apimachinery ``validation.IsDNS1123Label``)."""
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_OUT_OF_RANGE: Final = re.compile(r"volume\s+(3\.\d{1,9})", re.IGNORECASE)

_logger = logging.getLogger(__name__)


class Endpoint:
    """An ASGI application for one path in one major version."""

    def __init__(
        self,
        major: int,
        operations: Mapping[str, Operation],
        authenticator: Authenticator,
        settings: GatewaySettings,
        *,
        list_cache: ListCache,
        list_memory: ListMemory,
    ) -> None:
        self._major = major
        self._operations = operations
        self._authenticator = authenticator
        self._settings = settings
        self._list_cache = list_cache
        self._list_memory = list_memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        operation = self._operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            return not_routed()
        request.scope[OPERATION_KEY] = f"{operation.method} {operation.path}"
        headers: dict[str, str] = {}
        try:
            async with self._list_memory.account(caller_of(request)) as account:
                response = await self._run(request, operation, headers, account)
        except CinderblockError as error:
            return fault_response(error, operation.policy, headers)
        except Exception:
            _logger.exception("Request failed unexpectedly", extra={"method": request.method, "path": operation.path})
            return json_response(500, faults.envelope(500, faults.UNEXPECTED), headers)
        return json_response(response.status, response.body, headers | dict(response.headers))

    async def _run(
        self, request: Request, operation: Operation, headers: dict[str, str], account: ListAccount
    ) -> ApiResponse:
        token = self._authenticator.token_of(request.headers)
        version = self._version(request, headers)
        caller = Caller(token, self._project(request, token), self._authenticator.client(token, account))
        if version >= microversions.MINIMUM and version.minor < operation.since:
            raise InvalidInput("The resource could not be found.", reason=Reason.NOT_IN_VERSION)
        body = await rest_body.read(request, self._settings.body_limit, self._settings.body_seconds)
        query = {key: value for key, value in request.query_params.multi_items() if _is_text(key + value)}
        links = Links(root_url(request, self._settings), self._major, caller.project)
        path = {key: value for key, value in request.path_params.items() if key != "project"}
        try:
            response = await operation.handler(
                ApiRequest(caller, version, path, query, body, links, self._list_cache, account)
            )
        finally:
            if operation.method != "GET":
                self._list_cache.forget(caller.project)
        if self._major == microversions.V2.major and operation.v2_code is not None:
            return ApiResponse(operation.v2_code, response.body, response.headers)
        return response

    def _version(self, request: Request, headers: dict[str, str]) -> Version:
        """Return the version that the caller selects, and add it to ``headers``."""
        if self._major == microversions.V2.major:
            return microversions.V2
        headers["Vary"] = microversions.HEADER
        header = request.headers.get(microversions.HEADER)
        out_of_range = _OUT_OF_RANGE.fullmatch((header or "").strip())
        if out_of_range:
            headers[microversions.HEADER] = f"{microversions.SERVICE} {out_of_range[1]}"
        version = microversions.negotiate(header)
        headers[microversions.HEADER] = f"{microversions.SERVICE} {version}"
        return version

    def _project(self, request: Request, token: str | None) -> str:
        """Return the namespace in the path; without one, the namespace of the caller's ServiceAccount."""
        project = str(request.path_params.get("project") or self._authenticator.default_project(token))
        if not _PROJECT.fullmatch(project):
            raise InvalidInput("Malformed request url")
        return project


def caller_of(request: Request) -> str:
    """Return whose share of the memory for lists a request uses. `RequestLimits` has found out the client's address."""
    return group_of(request.client.host if request.client else UNKNOWN)


def fault_response(error: CinderblockError, policy: str, headers: Mapping[str, str]) -> Response:
    """Return an error in Cinder's form. For a missing right, the API server's message follows Cinder's."""
    code = faults.code_of(error)
    message = error.message
    all_headers = dict(headers)
    if isinstance(error, AccessDenied) and code == 403:
        message = f"Policy doesn't allow {policy} to be performed. {message}"
    if code == 401:
        message = "The request you have made requires authentication."
        all_headers["WWW-Authenticate"] = "Bearer"
    if code == 413:
        all_headers["Retry-After"] = "0"
    if code == 408:
        all_headers["Connection"] = "close"
    if code >= 500:
        _logger.warning("Request failed", extra={"reason": error.reason, "error": error.message})
    return json_response(code, faults.envelope(code, message), all_headers)


def json_response(status: int, body: Mapping[str, object] | None, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON body, or without a body."""
    if body is None:
        return Response(status_code=status, headers=dict(headers or {}))
    return Response(to_json(body), status, dict(headers or {}), "application/json")


def not_routed() -> Response:
    """Return the response for a path or method that does not exist."""
    return json_response(404, faults.NOT_ROUTED)


def root_url(request: Request, settings: GatewaySettings) -> str:
    """Return the gateway's root URL as the caller sees it."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        server = request.scope.get("server") or ("localhost", settings.port)
        host = f"{server[0]}:{server[1]}"
    return f"{request.url.scheme}://{host}"


def _is_text(text: str) -> bool:
    """Return whether a parameter can be sent to the API server. Undecodable bytes were replaced before."""
    return "\x00" not in text
