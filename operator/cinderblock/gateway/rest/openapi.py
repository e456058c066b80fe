"""The OpenAPI document: made from the operations, so that it says what is there and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from cinderblock import __version__
from cinderblock.gateway.rest.microversions import HEADER, MAXIMUM, SERVICE
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.validation import Schema

PATH: Final = "/openapi.json"

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_REFUSALS: Final = {
    "400": "The request is wrong, or what it is about is in no state for it",
    "401": "No token was shown, or the API server does not know it",
    "403": "The API server says that the caller may not",
    "404": "There is no such thing, in this project or in this microversion",
    "406": "There is no such microversion",
    "408": "The body did not arrive in time",
    "409": "The object has changed meanwhile",
    "413": "The body is too large, or a limit is reached",
    "415": "The body is no JSON by its type",
    "503": "The API server does not answer",
}
_FAULT: Final[Schema] = {
    "description": "Cinder's envelope: the only key names the fault.",
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": {
        "type": "object",
        "properties": {
            "code": {"type": "integer"},
            "message": {"type": "string"},
            "retryAfter": {"type": "string"},
        },
        "required": ["code", "message"],
        "additionalProperties": False,
    },
}
_NOT_ROUTED: Final[Schema] = {
    "description": "What is said of a path that does not exist.",
    "type": "object",
    "properties": {"code": {"type": "string"}, "title": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "title", "message"],
    "additionalProperties": False,
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document, in OpenAPI 3.1, whose schemas are JSON Schema."""
    paths: dict[str, dict[str, Any]] = {}
    for major in (3, 2):
        for operation in operations:
            if major == MAXIMUM.major or operation.in_v2:
                item = paths.setdefault(f"/v{major}/{{project}}{operation.path}", {})
                item[operation.method.lower()] = _operation(operation, major)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cinder's Block Storage API in front of Kubernetes",
            "version": __version__,
            "description": "A project is a namespace, and a token is a Kubernetes token.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Fault": _FAULT, "NotRouted": _NOT_ROUTED},
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"token": []}, {"bearer": []}],
    }


def _operation(operation: Operation, major: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation, major),
        "parameters": _parameters(operation, major),
        "responses": _answers(operation, major) | _refusals(),
    }
    if operation.since:
        told["description"] = f"Since microversion 3.{operation.since}."
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    return told


def _identifier(operation: Operation, major: int) -> str:
    words = _PARAMETER.sub("one", operation.path).strip("/").replace("-", "_").replace("/", "_")
    return f"{operation.method.lower()}_{words}_v{major}"


def _parameters(operation: Operation, major: int) -> list[dict[str, Any]]:
    names = ["project", *_PARAMETER.findall(operation.path)]
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    found += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query.items()
    ]
    if major == MAXIMUM.major:
        schema = {"type": "string", "examples": [f"{SERVICE} {MAXIMUM}", f"{SERVICE} latest"]}
        found.append({"name": HEADER, "in": "header", "required": False, "schema": schema})
    return found


def _answers(operation: Operation, major: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for code, schema in operation.answers.items():
        shown = operation.v2_code if major == 2 and operation.v2_code is not None else code
        found[str(shown)] = {"description": operation.summary} | _content(schema)
    return found


def _refusals() -> dict[str, Any]:
    fault: Schema = {"$ref": "#/components/schemas/Fault"}
    either: Schema = {"anyOf": [fault, {"$ref": "#/components/schemas/NotRouted"}]}
    return {
        code: {"description": text} | _content(either if code == "404" else fault) for code, text in _REFUSALS.items()
    }


def _content(schema: Schema | None) -> dict[str, Any]:
    return {} if schema is None else {"content": {"application/json": {"schema": schema}}}
