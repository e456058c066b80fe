"""Specs of our kinds for fuzzing: everything that a CustomResourceDefinition accepts, and hostile strings.

`specs` follows the structural schema of a kind. `hostile` replaces strings with those of an attacker: paths with `..`,
names and UIDs of other objects, control characters, text that is too long.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from cinderblock.api.crd.definitions import CustomResource, definition

Schema = dict[str, Any]

NASTY = (
    "",
    "..",
    "../../others",
    "/etc/passwd",
    "a/../../b",
    "%2e%2e%2f",
    "nul\x00byte",
    "line\nbreak",
    "\u202eright-to-left",
    "name\u0301",
    "💣" * 20,
    "A" * 300,
    "x" * 100_000,
    "{{ .Values.secret }}",
    "$(CINDERBLOCK_MOVER_IMAGE)",
    "'; drop table backups; --",
    "volumebackups/../../api/v1/secrets",
    "?watch=true",
    "#fragment",
)


def schema_of(resource: CustomResource) -> Schema:
    """Return the schema of a kind's spec."""
    [version] = definition(resource)["spec"]["versions"]
    spec: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def specs(schema: Schema) -> st.SearchStrategy[Any]:
    """Return values that the schema accepts."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return _objects(schema)
        case "array":
            return st.lists(specs(schema["items"]), min_size=schema.get("minItems", 0), max_size=2, unique_by=repr)
        case "string":
            return _strings(schema)
        case "integer":
            return st.integers(schema.get("minimum", -5), schema.get("maximum", 2**40))
        case "boolean":
            return st.booleans()
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**40) | _strings(schema)
    return st.just({})


def _objects(schema: Schema) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        values = schema.get("additionalProperties")
        return (
            st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), specs(values), max_size=2)
            if values
            else (st.just({}))
        )
    required = {name: specs(schema["properties"][name]) for name in schema.get("required", ())}
    optional = {name: specs(part) for name, part in schema["properties"].items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 60)
    if schema.get("format") == "date-time":
        years = st.datetimes(datetime(1000, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
        return years.map(lambda time: time.isoformat().replace("+00:00", "Z"))
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True)
        return found.filter(lambda text: shortest <= len(text) <= longest)
    return st.text(min_size=shortest, max_size=min(longest, 60))


@st.composite
def hostile(draw: st.DrawFn, schema: Schema, tempting: tuple[str, ...]) -> Any:
    """Return a spec in which some strings are an attacker's. ``tempting`` contains names and ids of other objects."""
    return _poisoned(draw, draw(specs(schema)), st.sampled_from((*NASTY, *tempting)))


def _poisoned(draw: st.DrawFn, value: Any, poison: st.SearchStrategy[str]) -> Any:
    if isinstance(value, dict):
        return {key: _poisoned(draw, part, poison) for key, part in value.items()}
    if isinstance(value, list):
        return [_poisoned(draw, part, poison) for part in value]
    if isinstance(value, str) and draw(st.integers(0, 2)) == 0:
        return draw(poison)
    return value
