"""Queries of lists: filters, sorting, limits and markers, as for every resource of Cinder (cinder/api/common.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cinderblock.errors import InvalidInput
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.request import ApiRequest

PAGE_LIMIT: Final = 1000
"""Maximum number of items on a page: Cinder's ``osapi_max_limit``."""
_PAGING: Final = frozenset({"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants"})
_STRICT_FILTERS, _SIMILAR_FILTERS, _COUNT = 31, 34, 45
"""Microversions: unknown filters are rejected; ``name~`` filters by a part of the name; ``with_count``."""
_BOOLEANS: Final = {str(word).lower(): True for word in validation.TRUE} | {
    str(word).lower(): False for word in validation.FALSE
}

T = TypeVar("T")
Column = Callable[[T], Any]


@dataclass(frozen=True, slots=True)
class ListSpec(Generic[T]):
    """How the list of one resource can be queried.

    Attributes:
        noun: for "Backup <id> could not be found."
        collection: key of the list in responses.
        columns: functions that return the values, by Cinder's names; ``id`` and ``created_at`` are required.
        filters: columns that callers can filter by.
        newer_sort_keys: columns that can be sorted by only from a microversion on.
    """

    noun: str
    collection: str
    columns: Mapping[str, Column[T]]
    filters: frozenset[str]
    newer_sort_keys: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The query of a request for a list.

    Attributes:
        limit: maximum number of items on the page, at most PAGE_LIMIT.
        is_limited: whether the caller gave a limit.
        marker: id of the last item of the previous page; None for the first page.
        offset: number of items to skip.
        order: pairs of a column and whether it is descending, the most important one first.
        filters: exact values by column.
        similar: texts that the values must contain, by column.
        with_count: whether the response contains the number of items on all pages.
    """

    limit: int
    is_limited: bool
    marker: str | None
    offset: int
    order: tuple[tuple[str, bool], ...]
    filters: Mapping[str, str]
    similar: Mapping[str, str]
    with_count: bool


def parse_query(request: ApiRequest, spec: ListSpec[T]) -> ListQuery:
    """Parse the query of a list. Raises InvalidInput with Cinder's messages."""
    query = dict(request.query)
    limit = _parse_number(query.get("limit"), "limit param must be an integer", "limit param must be positive")
    offset = _parse_number(query.get("offset"), "offset must be an integer", "offset must be >= 0") or 0
    order = _order(request, spec)
    with_count = _pop_with_count(request, query)
    filters, similar = _filters(request, spec, query)
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


def _parse_number(text: str | None, not_a_number: str, negative: str) -> int | None:
    """Return a number that is not negative; None if it was not given. The other arguments are error messages."""
    if text is None:
        return None
    try:
        value = int(text[:20])
    except ValueError:
        raise InvalidInput(not_a_number) from None
    if value < 0:
        raise InvalidInput(negative)
    return value


def _pop_with_count(request: ApiRequest, query: dict[str, str]) -> bool:
    """Remove ``with_count`` from ``query`` if the microversion has it, and return its value."""
    if not request.at_least(_COUNT) or "with_count" not in query:
        return False
    text = query.pop("with_count")
    if text.lower() not in _BOOLEANS:
        raise InvalidInput(f"Value '{text}' for 'with_count' is not a boolean.")
    return _BOOLEANS[text.lower()]


def _filters(request: ApiRequest, spec: ListSpec[T], query: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return exact and similar filters. Up to 3.30, unknown filters are ignored; later, they are rejected."""
    exact: dict[str, str] = {}
    similar: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in query.items():
        if name in _PAGING:
            continue
        if name in spec.filters:
            exact[name] = value
        elif request.at_least(_SIMILAR_FILTERS) and name.endswith("~") and name[:-1] in spec.filters:
            similar[name[:-1]] = value
        else:
            unknown.append(name)
    if unknown and request.at_least(_STRICT_FILTERS):
        raise InvalidInput(f"Invalid filters {','.join(unknown)} are found in query options.")
    return exact, similar


def _order(request: ApiRequest, spec: ListSpec[T]) -> tuple[tuple[str, bool], ...]:
    """Return a total order of the items (cinder/db/sqlalchemy/api.py ``process_sort_params``)."""
    keys = _sort_parameters(request.query)
    for name, direction in keys:
        newer = spec.newer_sort_keys.get(name)
        if name not in spec.columns or (newer is not None and not request.at_least(newer)):
            raise InvalidInput("Invalid input received: Invalid sort key")
        if direction not in ("asc", "desc"):
            raise InvalidInput("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.")
    default = keys[0][1]
    # A column that is named again changes nothing, but would cost one more sort.
    directions: dict[str, str] = {}
    for name, direction in [*keys, ("created_at", default), ("id", default)]:
        directions.setdefault(name, direction)
    return tuple((name, direction == "desc") for name, direction in directions.items())


def _sort_parameters(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return sort keys and directions (cinder/api/common.py ``get_sort_params``)."""
    if "sort" in query and ("sort_key" in query or "sort_dir" in query):
        raise InvalidInput(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter."
        )
    if "sort" in query:
        pairs = [item.strip().partition(":") for item in query["sort"].strip().split(",")]
        return [(name.strip() or "created_at", direction.strip() or "desc") for name, _, direction in pairs]
    name, direction = query.get("sort_key", "created_at").strip(), query.get("sort_dir", "desc").strip()
    return [(name, direction)]
