"""Routes of the operations below /v2 and /v3, with or without a project, and of the version documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cinderblock.errors import CinderblockError
from cinderblock.gateway.auth import Authenticator
from cinderblock.gateway.rest import microversions
from cinderblock.gateway.rest.endpoint import Endpoint, fault_response, json_response, not_routed, root_url
from cinderblock.gateway.rest.list_cache import ListCache
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.settings import GatewaySettings
from cinderblock.kube.list_memory import ListMemory


def routes(
    operations: Sequence[Operation], authenticator: Authenticator, settings: GatewaySettings, list_memory: ListMemory
) -> list[BaseRoute]:
    """Return the routes of the API.

    In v3 the project may be missing: ``/v3/backups/x`` is then a backup, not the project "backups". These routes come
    last.
    """
    found: list[BaseRoute] = []
    list_cache = ListCache()
    for prefix in ("/v3/{project}", "/v2/{project}", "/v3"):
        major = int(prefix[2])
        chosen = [operation for operation in operations if major == microversions.MAXIMUM.major or operation.in_v2]
        by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
        for operation in chosen:
            by_path[operation.path][operation.method] = operation
        make = partial(
            Endpoint, authenticator=authenticator, settings=settings, list_cache=list_cache, list_memory=list_memory
        )
        found += [Route(prefix + path, make(major, by_path[path])) for path in _literal_first(by_path)]
    return found + [Route(path, _Versions(major, settings)) for path, major in _DOCUMENTS]


_DOCUMENTS = (("/", None), ("/v3", 3), ("/v3/", 3), ("/v2", 2), ("/v2/", 2))


def _literal_first(paths: Iterable[str]) -> list[str]:
    """Sort ``/backups/detail`` before ``/backups/{backup_id}``: the first route that matches is used."""
    return sorted(paths, key=lambda path: [part.startswith("{") for part in path.split("/")])


class _Versions:
    """The documents at / (300: several versions), /v3 and /v2 (200). They need no authentication."""

    def __init__(self, major: int | None, settings: GatewaySettings) -> None:
        self._major = major
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await self._respond(request)(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return not_routed()
        endpoint = root_url(request, self._settings)
        if self._major == microversions.V2.major:
            return json_response(200, microversions.document_of(endpoint, self._major))
        headers = {"Vary": microversions.HEADER}
        try:
            version = microversions.negotiate(request.headers.get(microversions.HEADER))
        except CinderblockError as error:
            return fault_response(error, "", headers)
        headers[microversions.HEADER] = f"{microversions.SERVICE} {version}"
        if self._major is None:
            return json_response(300, microversions.document(endpoint), headers)
        return json_response(200, microversions.document_of(endpoint, self._major), headers)


class _NotFound:
    """All other paths."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with 404."""
        await not_routed()(scope, receive, send)


NOT_FOUND: ASGIApp = _NotFound()
