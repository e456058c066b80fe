"""Lists: filters, sorting and pages, as every resource of Cinder has them (cinder/api/common.py).

A page is told by the id of the last item of the page before it, and by the order of the list. So what is created or
deleted meanwhile shifts nothing: no item comes twice, and none that was there all the time is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.request import ApiRequest

PAGE_LIMIT: Final = 1000
"""Items of a page at most: Cinder's ``osapi_max_limit``."""
_PAGING: Final = frozenset({"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants"})
_STRICT_FILTERS: Final = 31
_SIMILAR_FILTERS: Final = 34
_COUNT: Final = 45

T = TypeVar("T")
Column = Callable[[T], Any]


@dataclass(frozen=True, slots=True)
class ListSpec(Generic[T]):
    """What may be asked of the list of one resource.

    Attributes:
        noun: for "Backup <id> could not be found."
        collection: key of the list in answers.
        columns: how to get each column, by its name in Cinder; ``id`` and ``created_at`` are among them.
        filters: columns that everybody may filter by.
        newer_sort_keys: names of columns that may be sorted by only from a microversion on.
    """

    noun: str
    collection: str
    columns: Mapping[str, Column[T]]
    filters: frozenset[str]
    newer_sort_keys: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a caller wants of a list.

    Attributes:
        limit: items of the page, at most PAGE_LIMIT.
        is_limited: whether the caller named a limit.
        marker: id of the last item of the page before; None: it is the first page.
        offset: items to leave out.
        order: column and whether it is descending, the most important one first.
        filters: column and its value.
        similar: column and what must be part of its value.
        with_count: whether to tell how many there are on all pages.
    """

    limit: int
    is_limited: bool
    marker: str | None
    offset: int
    order: tuple[tuple[str, bool], ...]
    filters: Mapping[str, str]
    similar: Mapping[str, str]
    with_count: bool


def parse_query(call: ApiRequest, rules: ListSpec[T]) -> ListQuery:
    """Read the query of a list. Raises InvalidInput in Cinder's words."""
    query = dict(call.query)
    limit = _limit(query.get("limit"))
    offset = _whole(query.get("offset"), "offset must be an integer", "offset must be >= 0") or 0
    order = _order(call, rules)
    with_count = _with_count(call, query)
    filters, similar = _filters(call, rules, query)
    return ListQuery(
        limit=PAGE_LIMIT if limit is None else min(limit, PAGE_LIMIT),
        is_limited=limit is not None,
        marker=query.get("marker"),
        offset=offset,
        order=order,
        filters=filters,
        similar=similar,
        with_count=with_count,
    )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: in order.
        more: what stands beside them in the answer: the link to the next page, the number of all items.
        marker: id of the last item; None: there is none.
        rest: the items that come after them.
        count: how many there are on all pages.
    """

    items: Sequence[T]
    more: Mapping[str, Any]
    marker: str | None
    rest: Sequence[T]
    count: int


def page(items: Sequence[T], asked: ListQuery, rules: ListSpec[T], call: ApiRequest, path: str) -> Page[T]:
    """The page that is asked for. Raises NotFound for a marker that is no item of the list."""
    chosen = ordered([item for item in items if _fits(item, asked, rules)], asked, rules)
    start = asked.offset
    if asked.marker is not None:
        start += _behind(chosen, items, asked, rules)
    shown, rest = chosen[start : start + asked.limit], chosen[start + asked.limit :]
    marker = rules.columns["id"](shown[-1]) if shown else None
    more = page_links(asked, rules, call, path, marker=marker, shown=len(shown), count=len(chosen), is_last=not rest)
    return Page(shown, more, marker, rest, len(chosen))


def page_links(
    asked: ListQuery,
    rules: ListSpec[T],
    call: ApiRequest,
    path: str,
    *,
    marker: str | None,
    shown: int,
    count: int,
    is_last: bool,
) -> dict[str, Any]:
    """What stands beside the items of a page (cinder/api/common.py ``_get_collection_links``).

    The link to the next page is there whenever the page is full, even if it is the last one; and with ``with_count``
    whenever the limit is not above the count. Without a limit it is there only if something comes after the page.
    """
    more: dict[str, Any] = {}
    if (
        marker is not None
        and asked.limit <= (count if asked.with_count else shown)
        and (asked.is_limited or not is_last)
    ):
        query = {key: value for key, value in call.query.items() if key != "offset"}
        more[f"{rules.collection}_links"] = call.links.next_page(path, query, marker)
    if asked.with_count:
        more["count"] = count
    return more


def ordered(items: Sequence[T], asked: ListQuery, rules: ListSpec[T]) -> list[T]:
    """Items in the order that is asked for. As in its databases, what has no value comes before what has one."""
    result = list(items)
    for name, descending in reversed(asked.order):
        result.sort(key=_sort_key(rules.columns[name]), reverse=descending)
    return result


def _behind(chosen: Sequence[T], items: Sequence[T], asked: ListQuery, rules: ListSpec[T]) -> int:
    """How many items of ``chosen`` come before the place behind the marker, which itself may not fit the filters."""
    identifier = rules.columns["id"]
    marker = next((item for item in items if identifier(item) == asked.marker), None)
    if marker is None:
        raise NotFound(f"{rules.noun} {asked.marker} could not be found.")
    is_chosen = any(item is marker for item in chosen)
    with_it = chosen if is_chosen else ordered([*chosen, marker], asked, rules)
    place = next(number for number, item in enumerate(with_it) if item is marker)
    return place + is_chosen


def _sort_key(column: Column[T]) -> Callable[[T], tuple[bool, Any]]:
    def key(item: T) -> tuple[bool, Any]:
        value = column(item)
        return (value is not None, value if value is not None else "")

    return key


def _fits(item: T, asked: ListQuery, rules: ListSpec[T]) -> bool:
    exact = all(str(rules.columns[name](item)) == value for name, value in asked.filters.items())
    return exact and all(part in str(rules.columns[name](item) or "") for name, part in asked.similar.items())


def _limit(text: str | None) -> int | None:
    return _whole(text, "limit param must be an integer", "limit param must be positive")


def _whole(text: str | None, no_number: str, negative: str) -> int | None:
    """A whole number that is not negative; None: it was not given."""
    if text is None:
        return None
    try:
        value = int(text[:20])
    except ValueError:
        raise InvalidInput(no_number) from None
    if value < 0:
        raise InvalidInput(negative)
    return value


def _with_count(call: ApiRequest, query: dict[str, str]) -> bool:
    """Takes ``with_count`` out of ``query`` where it is known."""
    if not call.at_least(_COUNT) or "with_count" not in query:
        return False
    text = query.pop("with_count")
    if text.lower() not in _BOOLEANS:
        raise InvalidInput(f"Value '{text}' for 'with_count' is not a boolean.")
    return _BOOLEANS[text.lower()]


_BOOLEANS: Final = {str(word).lower(): True for word in validation.TRUE} | {
    str(word).lower(): False for word in validation.FALSE
}


def _filters(call: ApiRequest, rules: ListSpec[T], query: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Filters by equality and by likeness. Up to 3.30 those that are not known are ignored, later refused."""
    exact: dict[str, str] = {}
    similar: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in query.items():
        if name in _PAGING:
            continue
        if name in rules.filters:
            exact[name] = value
        elif call.at_least(_SIMILAR_FILTERS) and name.endswith("~") and name[:-1] in rules.filters:
            similar[name[:-1]] = value
        else:
            unknown.append(name)
    if unknown and call.at_least(_STRICT_FILTERS):
        raise InvalidInput(f"Invalid filters {','.join(unknown)} are found in query options.")
    return exact, similar


def _order(call: ApiRequest, rules: ListSpec[T]) -> tuple[tuple[str, bool], ...]:
    """The order, completed so that no two items are equal (cinder/db/sqlalchemy/api.py ``process_sort_params``)."""
    asked = _sort_parameters(call.query)
    for name, direction in asked:
        newer = rules.newer_sort_keys.get(name)
        if name not in rules.columns or (newer is not None and not call.at_least(newer)):
            raise InvalidInput("Invalid input received: Invalid sort key")
        if direction not in ("asc", "desc"):
            raise InvalidInput("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.")
    order = [(name, direction == "desc") for name, direction in asked]
    named = {name for name, _ in order}
    default = order[0][1] if order else True
    order += [(name, default) for name in ("created_at", "id") if name not in named]
    return tuple(order)


def _sort_parameters(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """Sort keys and directions (cinder/api/common.py ``get_sort_params``)."""
    if "sort" in query and ("sort_key" in query or "sort_dir" in query):
        raise InvalidInput(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter."
        )
    if "sort" in query:
        pairs = [item.strip().partition(":") for item in query["sort"].strip().split(",")]
        return [(name.strip() or "created_at", direction.strip() or "desc") for name, _, direction in pairs]
    name, direction = query.get("sort_key", "created_at").strip(), query.get("sort_dir", "desc").strip()
    return [(name, direction)]
