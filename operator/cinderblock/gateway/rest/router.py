"""Operations as paths: below /v2 and /v3, with the project or without it, and the documents of versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

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


def routes(operations: Sequence[Operation], who: Authenticator, settings: GatewaySettings) -> list[BaseRoute]:
    """Every route of the API.

    A path without the project is looked at last: Cinder lets the project be left out since 3.x, and ``/v3/backups/x``
    is then a backup, not a project called "backups".
    """
    found: list[BaseRoute] = []
    walks = ListCache()
    for prefix in ("/v3/{project}", "/v2/{project}", "/v3"):
        major = int(prefix[2])
        chosen = [operation for operation in operations if major == microversions.MAXIMUM.major or operation.in_v2]
        by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
        for operation in chosen:
            by_path[operation.path][operation.method] = operation
        found += [
            Route(prefix + path, Endpoint(major, by_path[path], who, settings, walks))
            for path in _literal_first(by_path)
        ]
    return found + [Route(path, _Versions(major, settings)) for path, major in _DOCUMENTS]


_DOCUMENTS = (("/", None), ("/v3", 3), ("/v3/", 3), ("/v2", 2), ("/v2/", 2))


def _literal_first(paths: Iterable[str]) -> list[str]:
    """``/backups/detail`` before ``/backups/{backup_id}``: the first that fits is taken."""
    return sorted(paths, key=lambda path: [part.startswith("{") for part in path.split("/")])


class _Versions:
    """What is at / (300: there are several), /v3 and /v2 (200); nobody needs to say who they are."""

    def __init__(self, major: int | None, settings: GatewaySettings) -> None:
        self._major = major
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await self._answer(request)(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return not_routed()
        endpoint = root_url(request, self._settings)
        if self._major == microversions.V2.major:
            return json_response(200, microversions.document_of(endpoint, self._major))
        headers = {"Vary": microversions.HEADER}
        try:
            version = microversions.negotiated(request.headers.get(microversions.HEADER))
        except CinderblockError as error:
            return fault_response(error, "", headers)
        headers[microversions.HEADER] = f"{microversions.SERVICE} {version}"
        if self._major is None:
            return json_response(300, microversions.document(endpoint), headers)
        return json_response(200, microversions.document_of(endpoint, self._major), headers)


class NotRouted:
    """What is at every other path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404, whatever is asked."""
        await not_routed()(scope, receive, send)


NOWHERE: ASGIApp = NotRouted()
