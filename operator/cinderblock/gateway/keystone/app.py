"""Keystone's Identity API for logging in. Users and rights come from Kubernetes, and nothing is stored.

The token that a client receives is the Kubernetes token that it sent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput, NotFound
from cinderblock.gateway.auth import Authenticator, claims, namespace_of, user_name
from cinderblock.gateway.keystone.models import AuthRequest
from cinderblock.gateway.keystone.tokens import DOMAIN, catalog, open_session, roles_in
from cinderblock.gateway.rest import body as rest_body
from cinderblock.gateway.rest import faults
from cinderblock.gateway.rest.endpoint import caller_of, json_response, not_routed, root_url
from cinderblock.gateway.rest.middleware import OPERATION_KEY
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE
from cinderblock.kube.list_memory import ListAccount, ListMemory
from cinderblock.reasons import Reason

_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}
_VERSION: Final = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z"}
_MEDIA: Final = [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]

_logger = logging.getLogger(__name__)

Handler = Callable[["KeystoneApi", Request], Awaitable[Response]]


class KeystoneApi:
    """The operations below /identity, for one request."""

    def __init__(self, authenticator: Authenticator, settings: GatewaySettings, account: ListAccount) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._account = account

    async def versions(self, request: Request) -> Response:
        """List the versions of the API."""
        return json_response(300, {"versions": {"values": [self._version(request)]}})

    async def version(self, request: Request) -> Response:
        """Show the only version."""
        return json_response(200, {"version": self._version(request)})

    async def create_token(self, request: Request) -> Response:
        """Look up the user of the token and their roles in the project."""
        login = await self._login(request)
        token = login.auth.identity.secret
        session = await open_session(self._client(token), token, login.auth.project)
        return json_response(
            201, session.body(self._endpoint(request)), {"X-Subject-Token": token, "Vary": "X-Auth-Token"}
        )

    async def validate_token(self, request: Request) -> Response:
        """Show a token if it is valid. HEAD gets no body."""
        token = await self._require(request)
        subject = request.headers.get("x-subject-token", "")
        if token != subject:
            # Keystone demands a valid token of the caller. Otherwise this would tell strangers which tokens are valid.
            await user_name(self._client(token))
        try:
            session = await open_session(self._client(subject), subject, None)
        except AccessDenied:
            raise NotFound("The subject token is invalid or expired") from None
        headers = {"X-Subject-Token": subject, "Vary": "X-Auth-Token"}
        return json_response(200, session.body(self._endpoint(request)), headers)

    async def revoke_token(self, request: Request) -> Response:
        """Refuse: a Kubernetes token is valid until it expires."""
        await self._require(request)
        raise AccessDenied(
            "Cannot revoke a Kubernetes token: it is valid until it expires. Delete the object that it is bound to"
        )

    async def catalog(self, request: Request) -> Response:
        """List the services, with their URLs for the caller's own project."""
        token = await self._require(request)
        project = self._authenticator.default_project(token)
        return json_response(200, {"catalog": catalog(self._endpoint(request), project), "links": {}})

    async def projects(self, request: Request) -> Response:
        """List the projects that the caller may use: the named one, all that can be listed, or the caller's own."""
        token = await self._require(request)
        named = request.query_params.get("name")
        names = [named] if named else await self._projects_of(token)
        kube = self._client(token)
        usable = [name for name in names if await roles_in(kube, name)]
        return json_response(200, {"projects": [self._project(request, name) for name in usable], "links": {}})

    async def project(self, request: Request) -> Response:
        """Show a project."""
        token = await self._require(request)
        name = request.path_params["project_id"]
        if not await roles_in(self._client(token), name):
            raise NotFound(f"Could not find project: {name}.")
        return json_response(200, {"project": self._project(request, name)})

    async def _projects_of(self, token: str | None) -> list[str]:
        try:
            namespaces = await self._client(token).list(NAMESPACE)
        except AccessDenied as error:
            if error.reason == Reason.UNAUTHORIZED:
                raise
            return [namespace_of(claims(token or ""))]
        return [str(namespace["metadata"]["name"]) for namespace in namespaces]

    async def _login(self, request: Request) -> AuthRequest:
        body = await rest_body.read(request, self._settings.body_limit, self._settings.body_seconds)
        try:
            return AuthRequest.model_validate(rest_body.parse(body))
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise InvalidInput(f"Invalid input for field/attribute {field}.") from None

    async def _require(self, request: Request) -> str | None:
        """Return the caller's token. Raises AccessDenied if there is none."""
        return self._authenticator.token_of(request.headers)

    def _client(self, token: str | None) -> KubeClient:
        return self._authenticator.client(token, self._account)

    def _endpoint(self, request: Request) -> str:
        return root_url(request, self._settings)

    def _version(self, request: Request) -> dict[str, Any]:
        links = [{"rel": "self", "href": f"{self._endpoint(request)}/identity/v3/"}]
        return {**_VERSION, "media-types": _MEDIA, "links": links}

    def _project(self, request: Request, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "name": name,
            "domain_id": DOMAIN["id"],
            "parent_id": DOMAIN["id"],
            "is_domain": False,
            "enabled": True,
            "description": "",
            "tags": [],
            "options": {},
            "links": {"self": f"{self._endpoint(request)}/identity/v3/projects/{name}"},
        }


class _Endpoint:
    """An ASGI application for one path below /identity. Errors have Keystone's envelope."""

    def __init__(
        self,
        authenticator: Authenticator,
        settings: GatewaySettings,
        list_memory: ListMemory,
        handlers: dict[str, Handler],
    ) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._list_memory = list_memory
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await (await self._respond(request))(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        handler = self._handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            return not_routed()
        request.scope[OPERATION_KEY] = f"{request.method} identity"
        try:
            async with self._list_memory.account(caller_of(request)) as account:
                return await handler(KeystoneApi(self._authenticator, self._settings, account), request)
        except CinderblockError as error:
            return _error_response(faults.code_of(error), error.message)
        except Exception:
            _logger.exception("Request failed unexpectedly", extra={"method": request.method, "path": request.url.path})
            return _error_response(500, faults.UNEXPECTED)


def _error_response(code: int, message: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    error = {"code": code, "title": _TITLES.get(code, "Internal Server Error"), "message": message}
    return json_response(code, {"error": error}, headers)


def routes(authenticator: Authenticator, settings: GatewaySettings, list_memory: ListMemory) -> list[BaseRoute]:
    """Return the routes below /identity."""
    tokens: dict[str, Handler] = {
        "POST": KeystoneApi.create_token,
        "GET": KeystoneApi.validate_token,
        "DELETE": KeystoneApi.revoke_token,
    }
    paths: dict[str, dict[str, Handler]] = {
        "": {"GET": KeystoneApi.versions},
        "/": {"GET": KeystoneApi.versions},
        "/v3": {"GET": KeystoneApi.version},
        "/v3/": {"GET": KeystoneApi.version},
        "/v3/auth/tokens": tokens,
        "/v3/auth/catalog": {"GET": KeystoneApi.catalog},
        "/v3/auth/projects": {"GET": KeystoneApi.projects},
        "/v3/projects": {"GET": KeystoneApi.projects},
        "/v3/projects/{project_id}": {"GET": KeystoneApi.project},
        "/v3/users/{user_id}/projects": {"GET": KeystoneApi.projects},
    }
    return [
        Route(f"/identity{path}", _Endpoint(authenticator, settings, list_memory, handlers))
        for path, handlers in paths.items()
    ]
