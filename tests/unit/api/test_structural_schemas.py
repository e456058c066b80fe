"""Conversion of pydantic models to structural schemas."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from cinderblock.api.crd.core_schemas import _CHOICES, _QUANTITIES, core_schema
from cinderblock.api.crd.structural_schema import structural_schema
from cinderblock.api.meta import CORE_TYPE, REMEDY, Model
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
    toleration: Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "Toleration"})] = {}
    """A type of Kubernetes."""
    resources: Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "ResourceRequirements"})] = {}
    """Another type of Kubernetes."""
    size: Annotated[str, Field(max_length=9, pattern=r"^\d+Gi$", json_schema_extra={REMEDY: "write 10Gi"})] | None = (
        None
    )
    """A pattern with a remedy."""


@pytest.fixture
def properties() -> dict[str, Any]:
    result = structural_schema(Outer)["properties"]
    assert isinstance(result, dict)
    return result


def test_references_are_resolved_and_keep_the_description_of_the_field(properties: dict[str, Any]) -> None:
    assert properties["colour"] == {"type": "string", "description": "Which colour.", "enum": ["red", "blue"]}


def test_optional_field_loses_null_and_keeps_its_bounds(properties: dict[str, Any]) -> None:
    assert properties["maybeName"] == {
        "type": "string",
        "description": "A name, in two lines.",
        "pattern": "^a",
        "maxLength": 7,
    }


def test_required_fields_are_those_without_default() -> None:
    assert structural_schema(Outer)["required"] == ["colour"]


def test_integer_has_64_bits_and_keeps_bounds_and_default(properties: dict[str, Any]) -> None:
    assert properties["inner"]["properties"]["depth"] == {
        "type": "integer",
        "description": "How deep.",
        "minimum": 1,
        "maximum": 9,
        "format": "int64",
        "default": 3,
    }


def test_object_has_a_default_only_if_its_fields_have_defaults(properties: dict[str, Any]) -> None:
    assert properties["inner"]["default"] == {}
    assert "default" not in properties["optionalInner"]
    assert "default" not in properties["plain"]


def test_datetime_becomes_a_date_time(properties: dict[str, Any]) -> None:
    assert properties["when"] == {"type": "string", "format": "date-time", "description": "An instant."}


def test_map_of_anything_preserves_unknown_fields(properties: dict[str, Any]) -> None:
    assert properties["anything"]["x-kubernetes-preserve-unknown-fields"] is True
    assert "default" not in properties["anything"]


def test_list_is_atomic_and_bounded(properties: dict[str, Any]) -> None:
    assert properties["tags"] == {
        "type": "array",
        "description": "Some tags.",
        "maxItems": 2,
        "items": {"type": "string", "maxLength": 3},
        "x-kubernetes-list-type": "atomic",
    }


def test_constant_becomes_an_enum_of_one(properties: dict[str, Any]) -> None:
    assert properties["always"] == {"type": "string", "description": "One word.", "enum": ["this"], "default": "this"}


def test_pattern_of_keys_becomes_an_escaped_rule(properties: dict[str, Any]) -> None:
    assert properties["words"]["additionalProperties"] == {"type": "string", "maxLength": 4}
    assert properties["words"]["x-kubernetes-validations"] == [
        {"rule": r"self.all(key, key.matches('^[a-z\'\\\\]+$'))", "message": r"keys must match ^[a-z'\\]+$"}
    ]


def test_remedy_becomes_a_rule_of_a_spec_and_not_of_a_status(properties: dict[str, Any]) -> None:
    assert properties["size"]["pattern"] == r"^\d+Gi$"
    assert properties["size"]["x-kubernetes-validations"] == [
        {"rule": r"self.matches('^\\d+Gi$')", "message": "write 10Gi"}
    ]
    status = structural_schema(Outer, defaults=False)["properties"]["size"]
    assert (status["pattern"], "x-kubernetes-validations" in status) == (r"^\d+Gi$", False)


def test_core_type_has_the_schema_of_kubernetes_and_our_description(properties: dict[str, Any]) -> None:
    toleration = properties["toleration"]
    assert toleration["description"] == "A type of Kubernetes."
    assert toleration["x-kubernetes-preserve-unknown-fields"] is True
    assert toleration["properties"].keys() == {"effect", "key", "operator", "tolerationSeconds", "value"}
    assert toleration["properties"]["tolerationSeconds"]["type"] == "integer"
    assert toleration["properties"]["effect"]["enum"] == ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]


def test_quantities_are_integers_or_strings(properties: dict[str, Any]) -> None:
    limits = properties["resources"]["properties"]["limits"]
    assert limits["type"] == "object"
    assert limits["additionalProperties"]["x-kubernetes-int-or-string"] is True
    assert "x-kubernetes-preserve-unknown-fields" not in limits


@pytest.mark.parametrize("quantity", ["1", "0.5", ".5", "1.", "100m", "1Gi", "2e9", "1.5E3", "+1k", "-1", "7n", "7u"])
def test_pattern_of_quantities_accepts_what_kubernetes_does(properties: dict[str, Any], quantity: str) -> None:
    assert re.search(pattern_of_quantities(properties), quantity)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "1e", "ten", "1.2.3", "1e1Gi"])
def test_pattern_of_quantities_refuses_other_text(properties: dict[str, Any], text: str) -> None:
    assert not re.search(pattern_of_quantities(properties), text)


def pattern_of_quantities(properties: dict[str, Any]) -> str:
    return str(properties["resources"]["properties"]["limits"]["additionalProperties"]["pattern"])


@pytest.mark.parametrize(
    "name", ["Toleration", "ResourceRequirements", "Affinity", "SecurityContext", "PodSecurityContext"]
)
def test_corrections_apply_to_fields_that_exist(name: str) -> None:
    """A release of the package may rename what the tables of corrections name."""
    schema = core_schema(name)
    found = {
        f"{model}.{field}"
        for model, part in {f"V1{name}": schema, **schema.get("$defs", {})}.items()
        for field in part["properties"]
    }
    assert {path for path in (*_CHOICES, *_QUANTITIES) if path.startswith(f"V1{name}.")} <= found


def test_descriptions_of_kubernetes_contain_no_python_attributes(properties: dict[str, Any]) -> None:
    assert "openapi_types" not in str(structural_schema(Outer))


def test_status_gets_no_defaults() -> None:
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
def test_model_that_cannot_be_expressed_is_refused_with_its_path(model: type[Model], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        structural_schema(model)
