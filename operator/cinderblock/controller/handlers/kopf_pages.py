"""Pages of kopf's lists that are never large: a page has 500 objects, and anybody can make an object very large."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from cinderblock.controller.handlers.watch_filter import is_of_interest
from cinderblock.controller.request import OWN_KINDS
from cinderblock.kube.client import PAGE_BYTES
from cinderblock.kube.page_limits import PAGE_SHRINK
from cinderblock.kube.reduction import reduce_metadata, reduce_object


class SmallPages:
    """A middleware of kopf's session. It asks for fewer objects when a page is too large, and reduces the metadata."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}
        """The limit that the last page of a path needed, if that was less than kopf asked for."""

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request."""
        limit = request.url.query.get("limit")
        if request.method != "GET" or limit is None or "watch" in request.url.query:
            return await handler(request)
        path, asked = request.url.path, int(limit)
        used = min(asked, self._limits.pop(path, asked))
        while True:
            request.url = request.url.update_query(limit=str(used))
            response = await handler(request)
            body = await _read(response) if used > 1 else await response.read()
            if body is None:
                used = max(1, used // PAGE_SHRINK)
                continue
            if used < asked:
                self._limits[path] = 2 * used
            # The response reads its body once. kopf parses less than what was received.
            response._body = _reduced(body) if response.status == 200 else body  # noqa: SLF001 - there is no setter
            return response


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body of a response; None, and close the connection, if it is too large."""
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > PAGE_BYTES:
            response.close()
            return None
    return bytes(body)


def _reduced(body: bytes) -> bytes:
    page: dict[str, Any] = json.loads(body)
    name = str(page.get("kind", "")).removesuffix("List")
    kind = OWN_KINDS.get(name)
    page["items"] = [
        reduce_object(kind, item) if kind is not None else item | {"metadata": reduce_metadata(item)}
        for item in page.get("items") or ()
        # The items of a list do not tell their kind.
        if is_of_interest({"kind": name} | item)
    ]
    return json.dumps(page).encode()
