"""Evaluate IAM policies (IAM User Guide, "Policy evaluation logic"), as far as session policies need it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def permits(policy: str, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Return whether a policy permits an action. A statement that denies it wins."""
    effects = {
        statement["Effect"]
        for statement in json.loads(policy)["Statement"]
        if _matches(statement, action, resource, context or {})
    }
    return effects == {"Allow"}


def _matches(statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    if action not in _list(statement["Action"]):
        return False
    if "NotResource" in statement:
        is_resource = not any(_like(pattern, resource) for pattern in _list(statement["NotResource"]))
    else:
        is_resource = any(_like(pattern, resource) for pattern in _list(statement["Resource"]))
    return is_resource and all(
        _holds(operator, patterns, context) for operator, patterns in statement.get("Condition", {}).items()
    )


def _holds(operator: str, patterns: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    return all(
        key in context and any(_compare(operator, expected, context[key]) for expected in _list(wanted))
        for key, wanted in patterns.items()
    )


def _compare(operator: str, expected: str, found: str) -> bool:
    if operator == "StringLike":
        return _like(expected, found)
    if operator == "StringEquals":
        return expected == found
    assert operator == "NumericLessThanEquals"
    return int(found) <= int(expected)


def _like(pattern: str, text: str) -> bool:
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
