"""Validation of requests against Cinder's JSON schemas, with its messages.

The messages come from the ``jsonschema`` library, in a sentence as in cinder/api/validation/validators.py. So the
schemas have the same order of keywords as Cinder's: it decides which of several errors is reported.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft4Validator, FormatChecker, ValidationError

from cinderblock.errors import InvalidInput

Schema = Mapping[str, Any]

_formats: Final = FormatChecker(formats=())


@_formats.checks("uuid")
def _is_uuid(value: object) -> bool:
    """Return whether Python accepts the value as a UUID, even in braces (oslo_utils.uuidutils.is_uuid_like)."""
    if not isinstance(value, str):
        return False
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True


def strings(*types: str, max_length: int = 255, **keywords: Any) -> Schema:
    """Return the schema of a string of at most ``max_length`` characters; ``types`` are the allowed types."""
    return {"type": list(types) if len(types) > 1 else types[0], "minLength": 0, "maxLength": max_length, **keywords}


NAME: Final = strings("string", "null")
"""parameter_types.name_allow_zero_min_length, and all other strings that may be null."""
DESCRIPTION: Final = strings("string", "null", pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
"""parameter_types.description. Cinder lists all printable characters, this pattern the others."""
UUID: Final[Schema] = {"type": "string", "format": "uuid"}
UUID_OR_NULL: Final[Schema] = {"oneOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}

TRUE: Final = (True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t")
FALSE: Final = (False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f")
BOOLEAN: Final[Schema] = {"type": ["boolean", "string"], "enum": [*TRUE, *FALSE]}
"""parameter_types.boolean"""


def metadata(*types: str) -> Schema:
    """Return the schema of the user's own keys and values (parameter_types.extra_specs)."""
    return {
        "type": list(types) if len(types) > 1 else types[0],
        "patternProperties": {"^[a-zA-Z0-9-_:. /]{1,255}$": {"type": "string", "minLength": 0, "maxLength": 255}},
        "additionalProperties": False,
    }


def strict_object(properties: Mapping[str, Schema], *required: str, types: tuple[str, ...] = ("object",)) -> Schema:
    """Return the schema of an object with these properties and no others."""
    schema: dict[str, Any] = {"type": list(types) if len(types) > 1 else types[0], "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    return schema | {"additionalProperties": False}


def check(body: object, schema: Schema) -> None:
    """Check ``body``. Raises InvalidInput with the first error."""
    try:
        error = next(Draft4Validator(schema, format_checker=_formats).iter_errors(body), None)
    except RecursionError:
        raise InvalidInput("Malformed request body") from None
    if error is not None:
        raise InvalidInput(_sentence(error))


def _sentence(error: ValidationError) -> str:
    if not error.path:
        return error.message
    return f"Invalid input for field/attribute {error.path[-1]}. Value: {error.instance}. {error.message}"


def is_true(value: object) -> bool:
    """Return whether a BOOLEAN is true (oslo_utils.strutils.bool_from_string)."""
    return value in TRUE


def strip(text: str | None) -> str | None:
    """Strip blanks around a name or a description (cinder ``clean_name_and_description``)."""
    return text.strip() if text is not None else None
