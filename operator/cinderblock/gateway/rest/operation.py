"""What an operation of the API is: one declaration, from which its route and its part of the OpenAPI document come."""

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
        handler: answers a call.
        summary: for the OpenAPI document.
        policy: Cinder's name for the right to do it, which its 403 tells.
        answers: by code of success, the schema of the body; None: there is no body.
        v2_code: the code of success under /v2, if it is another one.
        body: the widest schema of the request's body, that of the highest microversion; None: there is no body.
        query: the parameters of the query and their schemas.
        since: minor of the first microversion that has it.
        in_v2: whether it is there under /v2.
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
