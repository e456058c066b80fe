"""Lists page by page, read from the API server or taken from the cache.

A page is identified by the id of the last item of the previous page and by the order of the list. Objects that are
created or deleted between two requests therefore shift nothing: no item is repeated, and no other item is skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from pydantic_core import from_json, to_json

from cinderblock.errors import NotFound
from cinderblock.gateway.rest.list_cache import CachedTail, key_of
from cinderblock.gateway.rest.list_query import Column, ListQuery, ListSpec, parse_query
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.kube.kinds import Kind

MIN_CACHED_ITEMS: Final = 500
"""Shorter tails are not cached: they fit in one page of the API server, so reading them again is quick."""

IN_THREAD_ITEMS: Final = 2000
"""Longer lists are sorted in a thread, which lets the event loop answer others: 10,000 rows take 20 ms for each key."""
_ROW_BYTES: Final = 300
"""Memory of a row in addition to its view: two objects, an id and a time."""

T = TypeVar("T")
Read = Callable[[ListQuery], AsyncIterator[Sequence[T]]]
ToViews = Callable[[Sequence[T]], Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Row:
    """The part of an item that is kept until the page is complete: a model takes ten times as much memory.

    Attributes:
        values: its values in the columns that the query needs.
        view: its JSON in Cinder's form.
    """

    values: tuple[Any, ...]
    view: bytes


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: the items of the page, in order.
        extra: the other keys of the response: the link to the next page, the number of all items.
        marker: id of the last item; None if the page is empty.
        tail: the items after the page.
        count: number of items on all pages.
    """

    items: Sequence[T]
    extra: Mapping[str, Any]
    marker: str | None
    tail: Sequence[T]
    count: int


async def paginate(
    request: ApiRequest, spec: ListSpec[T], kind: Kind, path: str, *, read: Read[T], to_views: ToViews[T]
) -> dict[str, Any]:
    """Return the body of a response with one page, from the cache if it holds the page.

    Args:
        request: the request.
        spec: how the list can be queried.
        kind: the kind that the caller must be allowed to list.
        path: path of the list below the project.
        read: returns at least the items that the query selects, in parts.
        to_views: converts items to Cinder's form.
    """
    query = parse_query(request, spec)
    tail = await _take_cached(request, query, kind, path)
    if tail is not None:
        return _next_page(request, query, spec, path, tail)
    names = tuple({"id": None, **dict.fromkeys(name for name, _ in query.order), **query.filters, **query.similar})
    rows = [row async for row in _rows(request, query, spec, names, parts=read(query), to_views=to_views)]
    row_spec = _spec_of_rows(spec, names)
    if len(rows) > IN_THREAD_ITEMS:
        page = await asyncio.to_thread(make_page, rows, query, row_spec, request, path)
    else:
        page = make_page(rows, query, row_spec, request, path)
    if page.marker is not None and len(page.tail) >= MIN_CACHED_ITEMS:
        _cache(request, path, page)
    return {spec.collection: [from_json(row.view) for row in page.items], **page.extra}


async def _rows(
    request: ApiRequest,
    query: ListQuery,
    spec: ListSpec[T],
    names: Sequence[str],
    *,
    parts: AsyncIterator[Sequence[T]],
    to_views: ToViews[T],
) -> AsyncIterator[Row]:
    """Yield the rows of the items that match the query, and of the marker, which need not."""
    columns = [spec.columns[name] for name in names]
    async for part in parts:
        items = [item for item in part if _matches(item, query, spec) or spec.columns["id"](item) == query.marker]
        views = [to_json(view) for view in await to_views(items)]
        await request.account.hold(sum(len(view) + _ROW_BYTES for view in views))
        for item, view in zip(items, views, strict=True):
            yield Row(tuple(column(item) for column in columns), view)


def _spec_of_rows(spec: ListSpec[T], names: Sequence[str]) -> ListSpec[Row]:
    columns: dict[str, Column[Row]] = {name: partial(_value, index) for index, name in enumerate(names)}
    return ListSpec(spec.noun, spec.collection, columns, spec.filters, spec.newer_sort_keys)


def _value(index: int, row: Row) -> Any:
    return row.values[index]


async def _take_cached(request: ApiRequest, query: ListQuery, kind: Kind, path: str) -> CachedTail | None:
    """Return the cached tail that begins with this page. Raises AccessDenied if the caller must not list any more."""
    if query.marker is None or query.offset:
        return None
    tail = request.list_cache.pop(request.project, _cache_key(request, path, query.marker))
    if tail is not None:
        await request.kube.check_may_list(kind, request.project)
    return tail


def _cache(request: ApiRequest, path: str, page: Page[Row]) -> None:
    assert page.marker is not None
    items = [(str(row.values[0]), row.view) for row in page.tail]
    tail = CachedTail(items, page.count, request.list_cache.now())
    request.list_cache.put(request.project, _cache_key(request, path, page.marker), tail)


def _next_page(request: ApiRequest, query: ListQuery, spec: ListSpec[T], path: str, tail: CachedTail) -> dict[str, Any]:
    """Return the body of a response with the first page of ``tail``, and cache what comes after it."""
    items, after = tail.items[: query.limit], tail.items[query.limit :]
    marker = items[-1][0] if items else None
    if marker is not None:
        remaining = CachedTail(after, tail.count, tail.read_at)
        request.list_cache.put(request.project, _cache_key(request, path, marker), remaining)
    extra = page_links(query, spec, request, path, marker=marker, shown=len(items), count=tail.count, is_last=not after)
    return {spec.collection: [from_json(text) for _, text in items], **extra}


def _cache_key(request: ApiRequest, path: str, marker: str) -> str:
    where = [str(request.version), request.links.endpoint, path, marker]
    return key_of(request.caller.token, where, request.query)


def make_page(items: Sequence[T], query: ListQuery, spec: ListSpec[T], request: ApiRequest, path: str) -> Page[T]:
    """Return the page that the query selects. Raises NotFound for a marker that is not in the list."""
    selected = sort([item for item in items if _matches(item, query, spec)], query, spec)
    start = query.offset
    if query.marker is not None:
        start += _index_after_marker(selected, items, query, spec)
    shown, tail = selected[start : start + query.limit], selected[start + query.limit :]
    marker = spec.columns["id"](shown[-1]) if shown else None
    extra = page_links(
        query, spec, request, path, marker=marker, shown=len(shown), count=len(selected), is_last=not tail
    )
    return Page(shown, extra, marker, tail, len(selected))


def page_links(
    query: ListQuery,
    spec: ListSpec[T],
    request: ApiRequest,
    path: str,
    *,
    marker: str | None,
    shown: int,
    count: int,
    is_last: bool,
) -> dict[str, Any]:
    """Return the keys next to the items of a page (cinder/api/common.py ``_get_collection_links``).

    With a limit, a full page has a link to the next page even if it is the last one. With ``with_count``, it has one
    whenever the limit does not exceed the count. Without a limit, it has one only if there is a next page.
    """
    extra: dict[str, Any] = {}
    if (
        marker is not None
        and query.limit <= (count if query.with_count else shown)
        and (query.is_limited or not is_last)
    ):
        parameters = {key: value for key, value in request.query.items() if key != "offset"}
        extra[f"{spec.collection}_links"] = request.links.next_page(path, parameters, marker)
    if query.with_count:
        extra["count"] = count
    return extra


def sort(items: Sequence[T], query: ListQuery, spec: ListSpec[T]) -> list[T]:
    """Return the items in the order of the query. As in Cinder's databases, items without a value come first."""
    result = list(items)
    for name, descending in reversed(query.order):
        result.sort(key=_sort_key(spec.columns[name]), reverse=descending)
    return result


def _index_after_marker(selected: Sequence[T], items: Sequence[T], query: ListQuery, spec: ListSpec[T]) -> int:
    """Return how many of ``selected`` come up to the marker, which itself need not match the filters."""
    identifier = spec.columns["id"]
    marker = next((item for item in items if identifier(item) == query.marker), None)
    if marker is None:
        raise NotFound(f"{spec.noun} {query.marker} could not be found.")
    is_selected = any(item is marker for item in selected)
    with_marker = selected if is_selected else sort([*selected, marker], query, spec)
    position = next(number for number, item in enumerate(with_marker) if item is marker)
    return position + is_selected


def _sort_key(column: Column[T]) -> Callable[[T], tuple[bool, Any]]:
    def key(item: T) -> tuple[bool, Any]:
        value = column(item)
        return (value is not None, value if value is not None else "")

    return key


def _matches(item: T, query: ListQuery, spec: ListSpec[T]) -> bool:
    exact = all(str(spec.columns[name](item)) == value for name, value in query.filters.items())
    return exact and all(part in str(spec.columns[name](item) or "") for name, part in query.similar.items())
