"""Pages of a list repeat and skip no item, even if items come and go while a client reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.rest.links import Links
from cinderblock.gateway.rest.list_query import PAGE_LIMIT, ListSpec, parse_query
from cinderblock.gateway.rest.microversions import MAXIMUM, MINIMUM, Version
from cinderblock.gateway.rest.pagination import Page, make_page
from cinderblock.gateway.rest.request import ApiRequest


@dataclass(frozen=True)
class Item:
    id: str
    created_at: int
    name: str | None = None
    size: int | None = None


LIST_SPEC: ListSpec[Item] = ListSpec(
    noun="Thing",
    collection="things",
    columns={
        "id": lambda item: item.id,
        "created_at": lambda item: item.created_at,
        "name": lambda item: item.name,
        "size": lambda item: item.size,
    },
    filters=frozenset({"name"}),
    newer_sort_keys={"name": 37},
)

items = st.builds(
    Item,
    id=st.uuids().map(str),
    created_at=st.integers(0, 3),
    name=st.sampled_from([None, "a", "b", "ab"]),
    size=st.sampled_from([None, 1, 2]),
)
collections = st.lists(items, unique_by=lambda item: item.id, max_size=30)
orders = st.sampled_from(["", "created_at:asc", "size:desc,name:asc", "name", "id:asc", "size:asc,created_at:asc"])


def read_page(things: list[Item], version: Version = MAXIMUM, /, **query: str) -> Page[Item]:
    query = {key: value for key, value in query.items() if value}
    request: Any = ApiRequest(None, version, {}, query, b"", Links("http://x", 3, "shop"))  # type: ignore[arg-type]
    return make_page(things, parse_query(request, LIST_SPEC), LIST_SPEC, request, "/things")


def next_query(found: Page[Item]) -> dict[str, str] | None:
    links = found.extra.get("things_links")
    return dict(parse_qsl(urlsplit(links[0]["href"]).query)) if links else None


def read_all(things: list[Item], between: list[tuple[list[Item], list[Item]]], **query: str) -> list[Item]:
    """Read page by page as clients do. Between two pages, items are added and removed."""
    seen: list[Item] = []
    current = list(things)
    steps = iter(between)
    parameters: dict[str, str] | None = query
    while parameters is not None:
        found = read_page(current, **parameters)
        seen += found.items
        parameters = next_query(found)
        added, removed = next(steps, ([], []))
        marker = parameters["marker"] if parameters else ""
        current = [item for item in current if item not in removed or item.id == marker] + added
    return seen


@given(things=collections, limit=st.integers(1, 7), sort=orders)
def test_pages_are_the_whole_list_in_order(things: list[Item], limit: int, sort: str) -> None:
    whole = list(read_page(things, sort=sort).items)
    assert sorted(item.id for item in whole) == sorted(item.id for item in things)
    assert read_all(things, [], limit=str(limit), sort=sort) == whole


@given(data=st.data(), things=collections, limit=st.integers(1, 5), sort=orders)
def test_unchanged_items_appear_exactly_once_and_others_at_most_once(
    data: st.DataObject, things: list[Item], limit: int, sort: str
) -> None:
    ids = {item.id for item in things}
    fresh = st.lists(items.filter(lambda item: item.id not in ids), max_size=3, unique_by=lambda item: item.id)
    gone = st.lists(st.sampled_from(things), max_size=3) if things else st.just([])
    between = data.draw(st.lists(st.tuples(fresh, gone), max_size=5))
    seen = read_all(things, between, limit=str(limit), sort=sort)
    assert len(seen) == len(set(seen))
    removed = {item for _, go in between for item in go}
    assert {item for item in things if item not in removed} <= set(seen)


def test_marker_outside_the_filter_keeps_its_position() -> None:
    things = [Item("1", 1, "a"), Item("2", 2, "b"), Item("3", 3, "a")]
    assert [item.id for item in read_page(things, name="a", marker="2").items] == ["1"]


def test_unknown_marker_is_404_with_cinders_message() -> None:
    with pytest.raises(NotFound, match=r"^Thing zz could not be found\.$"):
        read_page([Item("1", 1)], marker="zz")


def test_page_without_limit_ends_at_cinders_maximum_with_a_link() -> None:
    things = [Item(f"{number:05d}", number) for number in range(PAGE_LIMIT + 1)]
    found = read_page(things)
    assert len(found.items) == PAGE_LIMIT
    assert next_query(found) == {"marker": "00001"}
    assert len(read_page(things, limit="5000").items) == PAGE_LIMIT
    assert read_page(things[1:]).extra == {}


def test_count_includes_all_pages() -> None:
    things = [Item(str(number), number, "a" if number % 2 else "b") for number in range(9)]
    found = read_page(things, limit="2", name="a", with_count="yes")
    assert (len(found.items), found.extra["count"]) == (2, 4)


def test_items_without_a_value_sort_first() -> None:
    things = [Item("1", 1, size=2), Item("2", 1), Item("3", 1, size=1)]
    assert [item.id for item in read_page(things, sort="size:asc").items] == ["2", "3", "1"]
    assert [item.id for item in read_page(things, sort="size:desc").items] == ["1", "3", "2"]


@pytest.mark.parametrize(
    ("query", "version", "message"),
    [
        ({"limit": "x"}, MAXIMUM, "limit param must be an integer"),
        ({"limit": "-1"}, MAXIMUM, "limit param must be positive"),
        ({"limit": "9" * 5000 + "x"}, MAXIMUM, None),
        ({"offset": "x"}, MAXIMUM, "offset must be an integer"),
        ({"offset": "-1"}, MAXIMUM, "offset must be >= 0"),
        ({"sort": "nothing"}, MAXIMUM, "Invalid input received: Invalid sort key"),
        ({"sort": "name"}, Version(3, 36), "Invalid input received: Invalid sort key"),
        ({"sort": "name:up"}, MAXIMUM, "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'."),
        ({"foo": "1", "bar": "2"}, Version(3, 31), "Invalid filters foo,bar are found in query options."),
        ({"name~": "a"}, Version(3, 33), "Invalid filters name~ are found in query options."),
        ({"with_count": "perhaps"}, MAXIMUM, "Value 'perhaps' for 'with_count' is not a boolean."),
    ],
)
def test_invalid_queries_get_cinders_messages(query: dict[str, str], version: Version, message: str | None) -> None:
    if message is None:
        assert read_page([], version, **query).items == []
        return
    with pytest.raises(InvalidInput) as raised:
        read_page([], version, **query)
    assert raised.value.message == message


@pytest.mark.parametrize("sort", [",".join(["id"] * 2000), ",".join(["id:desc", "size", "name:asc", "id"] * 500)])
def test_columns_that_are_named_again_are_not_sorted_again(sort: str) -> None:
    request: Any = ApiRequest(None, MAXIMUM, {}, {"sort": sort}, b"", Links("http://x", 3, "shop"))  # type: ignore[arg-type]
    order = parse_query(request, LIST_SPEC).order
    assert len(order) == len(dict(order)) <= len(LIST_SPEC.columns)
    assert order[0] == ("id", True)


def test_unknown_filters_are_ignored_before_3_31() -> None:
    things = [Item("1", 1)]
    assert read_page(things, MINIMUM, foo="bar").items == things
    assert read_page(things, Version(2, 0), foo="bar").items == things
