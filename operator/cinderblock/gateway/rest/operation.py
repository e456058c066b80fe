"""The declaration of an operation, from which its route and its part of the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema

Handler = Callable[[ApiRequest], Awaitable[ApiResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: below the project, with parameters in braces: ``/backups/{backup_id}``.
        handler: responds to a request.
        summary: title in the OpenAPI document.
        policy: Cinder's name of the required right, for the message of a 403.
        answers: schema of the response's body by code of success; None: no body.
        v2_code: code of success under /v2, if it differs.
        body: schema of the request's body in the highest microversion; None: no body.
        query: schemas of the query's parameters.
        since: minor version of the first microversion with the operation.
        in_v2: whether the operation exists under /v2.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    policy: str
    answers: Mapping[int, Schema | None]
    v2_code: int | None = None
    body: Schema | None = None
    query: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    since: int = 0
    in_v2: bool = True
