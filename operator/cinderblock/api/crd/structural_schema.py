"""From a pydantic model to a structural schema, which is what a CustomResourceDefinition may hold.

pydantic writes JSON Schema; ``apiextensions.k8s.io/v1`` takes a part of OpenAPI 3: no ``$ref``, no ``anyOf`` with null,
no ``const``, no numeric ``exclusiveMinimum``, one type for each field. What has no counterpart here is refused instead
of left out, so that no bound of a model gets lost on the way unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from cinderblock.errors import InvalidInput

Schema = dict[str, Any]

_KEPT: Final[tuple[str, ...]] = (
    "type", "format", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties",
)  # fmt: skip
"""Keywords that mean the same on both sides."""

_CONVERTED: Final = (
    "$ref", "anyOf", "const", "default", "properties", "required", "items", "additionalProperties", "propertyNames",
    "patternProperties",
)  # fmt: skip
"""Keywords that have a counterpart of another form."""

_EXTENSIONS: Final = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations")
"""What a model says to the API server beyond JSON Schema, by ``json_schema_extra``."""

_KNOWN: Final = frozenset((*_KEPT, *_CONVERTED, *_EXTENSIONS, "title"))


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of ``model``.

    Args:
        model: every field described; every string, list and map bounded.
        defaults: whether the API server is to fill in the model's defaults. Not in a status: the server would make up
            what nobody has reported.

    Raises:
        InvalidInput: the model uses something that a structural schema cannot express.
    """
    whole = model.model_json_schema(by_alias=True)
    return _Converter(whole.pop("$defs", {}), defaults=defaults).convert(whole, model.__name__)


class _Converter:
    """Converts one model; ``path`` says where we are, for errors."""

    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, node: Schema, path: str) -> Schema:
        node = self._flat(node, path)
        unknown = node.keys() - _KNOWN
        if unknown:
            raise InvalidInput(f"{path}: a structural schema has no {', '.join(sorted(unknown))}")
        schema: Schema = {key: node[key] for key in _KEPT if key in node}
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        if "const" in node:
            schema |= {"type": "string", "enum": [node["const"]]}
        if schema.get("type") == "integer":
            schema["format"] = "int64"
        self._convert_default(node, schema)
        if schema.get("type") == "object":
            self._convert_object(node, schema, path)
        if schema.get("type") == "array":
            schema["items"] = self.convert(node["items"], f"{path}[]")
            schema["x-kubernetes-list-type"] = "atomic"
        return schema | {key: node[key] for key in _EXTENSIONS if key in node} | self._key_rules(node)

    def _flat(self, node: Schema, path: str) -> Schema:
        """``node`` with its reference put in place and ``| None`` taken off; what stands beside them wins."""
        while "$ref" in node or "anyOf" in node:
            beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
            if "$ref" in node:
                inner = self._definitions[node["$ref"].removeprefix("#/$defs/")]
            else:
                choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
                if len(choices) != 1:
                    raise InvalidInput(f"{path}: a structural schema has no unions")
                (inner,) = choices
            node = {**inner, **beside}
        return node

    def _convert_default(self, node: Schema, schema: Schema) -> None:
        """Keep a default that says something; of an object, an empty one, which its fields' own defaults then fill."""
        default = node.get("default")
        if not self._defaults or default in (None, {}, []):
            return
        if schema.get("type") != "object":
            schema["default"] = default
        elif any(field.get("default") not in (None, {}, []) for field in node["properties"].values()):
            schema["default"] = {}

    def _convert_object(self, node: Schema, schema: Schema, path: str) -> None:
        if "properties" in node:
            fields = node["properties"].items()
            schema["properties"] = {name: self.convert(field, f"{path}.{name}") for name, field in fields}
            if node.get("required"):
                schema["required"] = node["required"]
            return
        values = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties", True))
        if values is True:
            schema["x-kubernetes-preserve-unknown-fields"] = True
        else:
            schema["additionalProperties"] = self.convert(values, f"{path}{{}}")

    def _key_rules(self, node: Schema) -> Schema:
        """Rules for the keys of a map, which have no schema of their own in a structural schema."""
        rules = list(node.get("x-kubernetes-validations", ()))
        for pattern in node.get("patternProperties", {}):
            rule = f"self.all(key, key.matches({_cel_string(pattern)}))"
            rules.append({"rule": rule, "message": f"keys must match {pattern}"})
        return {"x-kubernetes-validations": rules} if rules else {}


def _cel_string(text: str) -> str:
    """``text`` as a string literal of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
