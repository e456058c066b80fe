"""Schemas of the OpenAPI document that several resources share."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway.rest.validation import Schema

_LINK: Final[Schema] = {
    "type": "object",
    "properties": {"rel": {"enum": ["self", "bookmark", "next"]}, "href": {"type": "string"}},
    "required": ["rel", "href"],
    "additionalProperties": False,
}

LINKS: Final[Schema] = {"type": "array", "items": _LINK}


def closed_object(properties: dict[str, Schema], *optional: str) -> Schema:
    """Return the schema of an object with exactly these properties; ``optional`` ones may be missing."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
