"""Converts pydantic models to structural schemas, the only schemas that a CustomResourceDefinition accepts.

pydantic writes JSON Schema. ``apiextensions.k8s.io/v1`` accepts a subset of OpenAPI 3: no ``$ref``, no ``anyOf`` with
null, no ``const``, no numeric ``exclusiveMinimum``, and one type per field. The conversion fails on keywords without a
counterpart, so that no constraint of a model is lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from cinderblock.api.crd.core_schemas import INT_OR_STRING, Schema, core_schema
from cinderblock.api.meta import CORE_TYPE, REMEDY
from cinderblock.errors import InvalidInput

_KEPT: Final[tuple[str, ...]] = (
    "type", "format", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties",
)  # fmt: skip
"""Keywords with the same meaning in both dialects."""

_CONVERTED: Final = (
    "$ref", "anyOf", "const", "default", "properties", "required", "items", "additionalProperties", "propertyNames",
    "patternProperties",
)  # fmt: skip
"""Keywords whose counterpart has another form."""

_EXTENSIONS: Final = (
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations", INT_OR_STRING,
)  # fmt: skip
"""Extensions of Kubernetes, which a model adds with ``json_schema_extra``."""

_KNOWN: Final = frozenset((*_KEPT, *_CONVERTED, *_EXTENSIONS, "title", REMEDY))


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """Return the structural schema of ``model``.

    Args:
        model: a model that describes every field, and bounds every string, list and map.
        defaults: whether the schema contains the model's defaults. The API server fills them in, so a status must
            have none: it would contain values that nobody has reported.

    Raises:
        InvalidInput: a structural schema cannot express the model.
    """
    root = model.model_json_schema(by_alias=True)
    return _Converter(root.pop("$defs", {}), defaults=defaults).convert(root, model.__name__)


class _Converter:
    """Converts the schema of one model. ``path`` is the position within it, for errors.

    Attributes:
        definitions: schemas that ``$ref`` refers to.
        defaults: whether defaults are kept.
        keeps_unknown: whether objects keep fields that the schema does not name.
    """

    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool, keeps_unknown: bool = False) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._keeps_unknown = keeps_unknown

    def convert(self, node: Schema, path: str) -> Schema:
        if CORE_TYPE in node:
            return _convert_core_type(node, path)
        node = self._flatten(node, path)
        if CORE_TYPE in node:
            return _convert_core_type(node, path)
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
        return schema | {key: node[key] for key in _EXTENSIONS if key in node} | self._convert_rules(node)

    def _flatten(self, node: Schema, path: str) -> Schema:
        """Return ``node`` with its reference resolved and ``| None`` removed. Keywords next to them take precedence."""
        while "$ref" in node or "anyOf" in node:
            siblings = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
            if "$ref" in node:
                inner = self._definitions[node["$ref"].removeprefix("#/$defs/")]
            else:
                choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
                if len(choices) != 1:
                    raise InvalidInput(f"{path}: a structural schema has no unions")
                (inner,) = choices
            node = {**inner, **siblings}
        return node

    def _convert_default(self, node: Schema, schema: Schema) -> None:
        """Keep a default that is not empty. An object gets an empty default, which its fields' own defaults fill."""
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
            if self._keeps_unknown:
                schema["x-kubernetes-preserve-unknown-fields"] = True
            return
        values = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties", True))
        if values is True:
            schema["x-kubernetes-preserve-unknown-fields"] = True
        else:
            schema["additionalProperties"] = self.convert(values, f"{path}{{}}")

    def _convert_rules(self, node: Schema) -> Schema:
        """Return the rules of a field.

        Keys of a map get one because a structural schema has no schema for keys, and patterns because their errors name
        no remedy. Nobody reads remedies of a status.
        """
        rules = list(node.get("x-kubernetes-validations", ()))
        if REMEDY in node and self._defaults:
            rules.insert(0, {"rule": f"self.matches({_cel_string(node['pattern'])})", "message": node[REMEDY]})
        for pattern in node.get("patternProperties", {}):
            rule = f"self.all(key, key.matches({_cel_string(pattern)}))"
            rules.append({"rule": rule, "message": f"keys must match {pattern}"})
        return {"x-kubernetes-validations": rules} if rules else {}


def _convert_core_type(node: Schema, path: str) -> Schema:
    """Return the structural schema of a field that holds one of Kubernetes' own types.

    Unknown fields are kept: a newer Kubernetes may know them, and objects that exist may have them.
    """
    schema = core_schema(node[CORE_TYPE])
    converter = _Converter(schema.pop("$defs", {}), defaults=False, keeps_unknown=True)
    own = {"description": node["description"]} if "description" in node else {}
    return converter.convert(schema | own, path)


def _cel_string(text: str) -> str:
    """Return ``text`` as a string literal of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
