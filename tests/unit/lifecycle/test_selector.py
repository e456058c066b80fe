"""Label selectors: what is refused, what matches, and what the API server is asked."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.selector import parse
from cinderblock.reasons import Reason


def expression(key: Any, operator: Any, values: Any = None) -> dict[str, Any]:
    found = {"key": key, "operator": operator}
    return found if values is None else found | {"values": values}


@pytest.mark.parametrize(
    ("selector", "query", "matching", "other"),
    [
        ({}, "", {}, None),
        ({"matchLabels": {"app": "db"}}, "app=db", {"app": "db"}, {"app": "web"}),
        (
            {"matchLabels": {"app": "db", "example.org/tier": ""}},
            "app=db,example.org/tier=",
            {"app": "db", "example.org/tier": ""},
            {"app": "db"},
        ),
        (
            {"matchExpressions": [expression("app", "In", ["db", "web"])]},
            "app in (db,web)",
            {"app": "web"},
            {"app": "x"},
        ),
        ({"matchExpressions": [expression("app", "NotIn", ["db"])]}, "app!=db", {}, {"app": "db"}),
        (
            {"matchExpressions": [expression("app", "NotIn", ["db", "web"])]},
            "app notin (db,web)",
            {"app": "x"},
            {"app": "db"},
        ),
        ({"matchExpressions": [expression("app", "Exists")]}, "app", {"app": ""}, {}),
        ({"matchExpressions": [expression("app", "DoesNotExist", [])]}, "!app", {}, {"app": ""}),
        (
            {"matchLabels": {"a": "1"}, "matchExpressions": [expression("b", "Exists")]},
            "a=1,b",
            {"a": "1", "b": "2"},
            {"b": "2"},
        ),
    ],
)
def test_selector_asks_for_what_it_matches(
    selector: dict[str, Any], query: str, matching: dict[str, str], other: dict[str, str] | None
) -> None:
    parsed = parse(selector, "spec.volumes.selector")
    assert parsed.query == query
    assert parsed.matches(matching)
    assert other is None or not parsed.matches(other)


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabel": {"app": "db"}},
        {"matchLabels": ["app"]},
        {"matchExpressions": {"key": "app"}},
        {"matchExpressions": ["app"]},
        {"matchExpressions": [{}]},
        {"matchExpressions": [expression("app", "Equals", ["db"])]},
        {"matchExpressions": [expression("app", "in", ["db"])]},
        {"matchExpressions": [expression("app", "In")]},
        {"matchExpressions": [expression("app", "In", [])]},
        {"matchExpressions": [expression("app", "Exists", ["db"])]},
        {"matchExpressions": [expression("app", "In", "db")]},
        {"matchExpressions": [expression("app", "In", [1])]},
        {"matchExpressions": [expression("app", "In", ["a b"])]},
        {"matchExpressions": [expression("app", "In", ["a),x=(b"])]},
        {"matchExpressions": [expression("", "Exists")]},
        {"matchExpressions": [expression("-app", "Exists")]},
        {"matchExpressions": [expression("Example.org/app", "Exists")]},
        {"matchExpressions": [expression(5, "Exists")]},
        {"matchLabels": {"app": None}},
        {"matchLabels": {"a,b": "c"}},
        {"matchLabels": {f"key-{number}": "" for number in range(65)}},
    ],
)
def test_malformed_selector_is_refused_and_selects_nothing(selector: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.volumes\.selector is not a label selector") as caught:
        parse(selector, "spec.volumes.selector")
    assert caught.value.reason == Reason.INVALID_SELECTOR
