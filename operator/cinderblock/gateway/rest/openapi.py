"""The OpenAPI document, generated from the operations so that it matches them."""

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
_ERRORS: Final = {
    "400": "The request is invalid, or the object is in the wrong status for it",
    "401": "The token is missing, invalid or expired",
    "403": "The caller lacks the rights in the API server",
    "404": "The object or the operation does not exist in this project or microversion",
    "406": "The microversion is not supported",
    "408": "The body did not arrive in time",
    "409": "The object was changed at the same time",
    "413": "The body is too large, or a quota is exceeded",
    "415": "The Content-Type is not JSON",
    "503": "The API server does not answer",
}
_FAULT: Final[Schema] = {
    "description": "Cinder's envelope. Its only key names the fault.",
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
    "description": "The response for a path that does not exist.",
    "type": "object",
    "properties": {"code": {"type": "string"}, "title": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "title", "message"],
    "additionalProperties": False,
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document in OpenAPI 3.1, whose schemas are JSON Schema."""
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
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation, major),
        "parameters": _parameters(operation, major),
        "responses": _responses(operation, major) | _error_responses(),
    }
    if operation.since:
        described["description"] = f"Since microversion 3.{operation.since}."
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    return described


def _identifier(operation: Operation, major: int) -> str:
    words = _PARAMETER.sub("one", operation.path).strip("/").replace("-", "_").replace("/", "_")
    return f"{operation.method.lower()}_{words}_v{major}"


def _parameters(operation: Operation, major: int) -> list[dict[str, Any]]:
    names = ["project", *_PARAMETER.findall(operation.path)]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query.items()
    ]
    if major == MAXIMUM.major:
        schema = {"type": "string", "examples": [f"{SERVICE} {MAXIMUM}", f"{SERVICE} latest"]}
        parameters.append({"name": HEADER, "in": "header", "required": False, "schema": schema})
    return parameters


def _responses(operation: Operation, major: int) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code, schema in operation.answers.items():
        shown = operation.v2_code if major == 2 and operation.v2_code is not None else code
        responses[str(shown)] = {"description": operation.summary} | _content(schema)
    return responses


def _error_responses() -> dict[str, Any]:
    fault: Schema = {"$ref": "#/components/schemas/Fault"}
    either: Schema = {"anyOf": [fault, {"$ref": "#/components/schemas/NotRouted"}]}
    return {
        code: {"description": text} | _content(either if code == "404" else fault) for code, text in _ERRORS.items()
    }


def _content(schema: Schema | None) -> dict[str, Any]:
    return {} if schema is None else {"content": {"application/json": {"schema": schema}}}
