"""What becomes of a pydantic model on its way to a structural schema."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from cinderblock.api.crd.structural_schema import structural_schema
from cinderblock.api.meta import Model
from cinderblock.errors import InvalidInput


class Colour(StrEnum):
    """Docstrings of enums never win over those of fields."""

    RED = "red"
    BLUE = "blue"


class Inner(Model):
    """An inner object."""

    depth: Annotated[int, Field(ge=1, le=9)] = 3
    """How deep."""


class Plain(Model):
    """An inner object without defaults."""

    note: Annotated[str, Field(max_length=5)] | None = None
    """A note."""


class Outer(Model):
    """An outer
    object."""

    colour: Colour
    """Which colour."""
    maybe_name: Annotated[str, Field(max_length=7, pattern="^a")] | None = None
    """A name, in
    two lines."""
    inner: Inner = Inner()
    """With defaults inside."""
    optional_inner: Inner | None = None
    """None by default."""
    plain: Plain = Plain()
    """Without defaults inside."""
    when: datetime | None = None
    """An instant."""
    anything: dict[str, Any] = {}
    """Whatever it is."""
    tags: Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=2)] = []
    """Some tags."""
    always: Literal["this"] = "this"
    """One word."""
    words: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z'\\]+$")], Annotated[str, Field(max_length=4)]], Field(max_length=6)
    ] = {}
    """Keys with a pattern."""


@pytest.fixture
def properties() -> dict[str, Any]:
    result = structural_schema(Outer)["properties"]
    assert isinstance(result, dict)
    return result


def test_references_are_put_in_place_and_the_fields_own_description_wins(properties: dict[str, Any]) -> None:
    assert properties["colour"] == {"type": "string", "description": "Which colour.", "enum": ["red", "blue"]}


def test_an_optional_field_loses_its_null_and_keeps_its_bounds(properties: dict[str, Any]) -> None:
    assert properties["maybeName"] == {
        "type": "string",
        "description": "A name, in two lines.",
        "pattern": "^a",
        "maxLength": 7,
    }


def test_only_fields_without_default_are_required() -> None:
    assert structural_schema(Outer)["required"] == ["colour"]


def test_integers_are_64_bits_wide_and_keep_bounds_and_defaults(properties: dict[str, Any]) -> None:
    assert properties["inner"]["properties"]["depth"] == {
        "type": "integer",
        "description": "How deep.",
        "minimum": 1,
        "maximum": 9,
        "format": "int64",
        "default": 3,
    }


def test_an_object_is_filled_in_only_where_its_fields_have_defaults(properties: dict[str, Any]) -> None:
    assert properties["inner"]["default"] == {}
    assert "default" not in properties["optionalInner"]
    assert "default" not in properties["plain"]


def test_an_instant_is_a_date_time(properties: dict[str, Any]) -> None:
    assert properties["when"] == {"type": "string", "format": "date-time", "description": "An instant."}


def test_free_content_is_preserved(properties: dict[str, Any]) -> None:
    assert properties["anything"]["x-kubernetes-preserve-unknown-fields"] is True
    assert "default" not in properties["anything"]


def test_a_list_is_atomic_and_bounded(properties: dict[str, Any]) -> None:
    assert properties["tags"] == {
        "type": "array",
        "description": "Some tags.",
        "maxItems": 2,
        "items": {"type": "string", "maxLength": 3},
        "x-kubernetes-list-type": "atomic",
    }


def test_a_constant_becomes_an_enum_of_one(properties: dict[str, Any]) -> None:
    assert properties["always"] == {"type": "string", "description": "One word.", "enum": ["this"], "default": "this"}


def test_a_pattern_of_keys_becomes_a_rule_with_quotes_and_backslashes_escaped(properties: dict[str, Any]) -> None:
    assert properties["words"]["additionalProperties"] == {"type": "string", "maxLength": 4}
    assert properties["words"]["x-kubernetes-validations"] == [
        {"rule": r"self.all(key, key.matches('^[a-z\'\\\\]+$'))", "message": r"keys must match ^[a-z'\\]+$"}
    ]


def test_a_status_gets_no_defaults() -> None:
    assert "'default':" not in str(structural_schema(Outer, defaults=False))


class Union(Model):
    """A union of two types."""

    value: int | str
    """One of two."""


class Exclusive(Model):
    """A bound that structural schemas have only as a boolean."""

    value: Annotated[int, Field(gt=3)]
    """Above three."""


class Pair(Model):
    """A tuple."""

    value: tuple[int, str]
    """Two things."""


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Union, "Union.value: a structural schema has no unions"),
        (Exclusive, "Exclusive.value: a structural schema has no exclusiveMinimum"),
        (Pair, "Pair.value: a structural schema has no prefixItems"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_place(model: type[Model], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        structural_schema(model)
