"""A list, page by page: read anew, or from what is kept of the list whose first page was read a moment ago."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from pydantic_core import from_json, to_json

from cinderblock.gateway.rest import pagination
from cinderblock.gateway.rest.list_cache import CachedTail, key_of
from cinderblock.gateway.rest.pagination import ListQuery, ListSpec, Page
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.kube.kinds import Kind

MIN_CACHED_ITEMS: Final = 500
"""Items that must come after a page for them to be kept: what fits in one page of the API server is soon read anew."""

T = TypeVar("T")
Read = Callable[[ListQuery], Awaitable[Sequence[T]]]
Views = Callable[[Sequence[T]], Awaitable[list[dict[str, Any]]]]


async def paginate(
    call: ApiRequest, rules: ListSpec[T], kind: Kind, path: str, *, read: Read[T], views: Views[T]
) -> dict[str, Any]:
    """The body of an answer with one page.

    Args:
        call: the request.
        rules: what may be asked of the list.
        kind: what one needs the right to list.
        path: of the list, below the project.
        read: gives at least the items that are asked for.
        views: what is shown of each item.
    """
    asked = pagination.parse_query(call, rules)
    rest = await _kept(call, asked, kind, path)
    if rest is not None:
        return _next_page(call, asked, rules, path, rest)
    page = pagination.page(await read(asked), asked, rules, call, path)
    if page.marker is not None and len(page.rest) >= MIN_CACHED_ITEMS:
        await _keep(call, path, page, rules, views)
    return {rules.collection: await views(page.items), **page.more}


async def _kept(call: ApiRequest, asked: ListQuery, kind: Kind, path: str) -> CachedTail | None:
    """What is kept for this page; the API server is asked whether the caller may (still) list."""
    if asked.marker is None or asked.offset:
        return None
    rest = call.list_cache.pop(call.project, _key(call, path, asked.marker))
    if rest is not None:
        await call.kube.check_may_list(kind, call.project)
    return rest


async def _keep(call: ApiRequest, path: str, page: Page[T], rules: ListSpec[T], views: Views[T]) -> None:
    assert page.marker is not None
    identifier = rules.columns["id"]
    shown = await views(page.rest)
    items = [(str(identifier(item)), to_json(view)) for item, view in zip(page.rest, shown, strict=True)]
    call.list_cache.put(
        call.project, _key(call, path, page.marker), CachedTail(items, page.count, call.list_cache.now())
    )


def _next_page(call: ApiRequest, asked: ListQuery, rules: ListSpec[T], path: str, rest: CachedTail) -> dict[str, Any]:
    shown, after = rest.items[: asked.limit], rest.items[asked.limit :]
    marker = shown[-1][0] if shown else None
    if marker is not None:
        call.list_cache.put(call.project, _key(call, path, marker), CachedTail(after, rest.count, rest.read_at))
    more = pagination.page_links(
        asked, rules, call, path, marker=marker, shown=len(shown), count=rest.count, is_last=not after
    )
    return {rules.collection: [from_json(text) for _, text in shown], **more}


def _key(call: ApiRequest, path: str, marker: str) -> str:
    where = [str(call.version), call.links.endpoint, path, marker]
    return key_of(call.caller.token, where, call.query)
