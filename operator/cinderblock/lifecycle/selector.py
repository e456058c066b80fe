"""Label selectors (metav1.LabelSelector): checked, matched, and written as the API server's query parameter.

The CustomResourceDefinition does not check the operators and values of a selector. One that is wrong must select
nothing: a mistake in it would otherwise put all volumes into a schedule, or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
WITH_VALUES: Final = ("In", "NotIn")
WITHOUT_VALUES: Final = ("Exists", "DoesNotExist")
MAX_REQUIREMENTS: Final = 64
MAX_VALUES: Final = 256
"""Limits of a selector. The query of a request has at most some 100 KiB."""

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on the labels of an object.

    Attributes:
        key: the key of a label.
        operator: In, NotIn, Exists or DoesNotExist.
        values: the values of In and NotIn.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels meet the condition. NotIn also holds without the label, as in Kubernetes."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels

    @property
    def query(self) -> str:
        """The condition as a part of the query parameter labelSelector."""
        match self.operator:
            case "In" | "NotIn" if len(self.values) == 1:
                return f"{self.key}{'=' if self.operator == 'In' else '!='}{self.values[0]}"
            case "In" | "NotIn":
                return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Conditions that labels must all meet. Without a condition it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels meet all conditions."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def query(self) -> str:
        """The selector as the query parameter labelSelector."""
        return ",".join(requirement.query for requirement in self.requirements)


def parse(selector: Mapping[str, Any], field: str) -> LabelSelector:
    """Return the selector in a field of an object.

    Args:
        selector: the selector.
        field: its path in the object, for the message.

    Raises:
        InvalidInput: the selector is wrong (reason InvalidSelector).
    """
    unknown = selector.keys() - {"matchLabels", "matchExpressions"}
    if unknown:
        raise _invalid(field, f"it has the unknown field {min(unknown)}")
    labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not isinstance(labels, Mapping) or not isinstance(expressions, list):
        raise _invalid(field, "matchLabels is a map and matchExpressions is a list")
    found = [_requirement(field, {"key": k, "operator": "In", "values": [v]}) for k, v in labels.items()]
    found += [_requirement(field, expression) for expression in expressions]
    if len(found) > MAX_REQUIREMENTS:
        raise _invalid(field, f"it has more than {MAX_REQUIREMENTS} conditions")
    return LabelSelector(tuple(found))


def _requirement(field: str, expression: Any) -> Requirement:
    if not isinstance(expression, Mapping):
        raise _invalid(field, "an expression has a key and an operator")
    key, operator, values = expression.get("key"), expression.get("operator"), expression.get("values") or []
    if not isinstance(key, str) or not _is_key(key):
        raise _invalid(field, f"{key!r:.100} is not the key of a label")
    if operator not in (*WITH_VALUES, *WITHOUT_VALUES):
        raise _invalid(field, f"{operator!r:.100} is not an operator: use In, NotIn, Exists or DoesNotExist")
    if not isinstance(values, list) or len(values) > MAX_VALUES or not all(map(_is_value, values)):
        raise _invalid(field, f"the values of {key} are not values of labels")
    if bool(values) != (operator in WITH_VALUES):
        raise _invalid(field, f"{operator} of {key} needs {'values' if not values else 'no values'}")
    return Requirement(key, operator, tuple(values))


def _is_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or _PREFIX.fullmatch(prefix) is not None)


def _is_value(text: Any) -> bool:
    return isinstance(text, str) and (not text or _NAME.fullmatch(text) is not None)


def _invalid(field: str, problem: str) -> InvalidInput:
    return InvalidInput(f"{field} is not a label selector: {problem}.", reason=Reason.INVALID_SELECTOR)
