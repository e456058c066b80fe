"""Responses of the API server, and the errors that they mean.

An error quotes only the server's own message (``Status.message``), and none about a Secret. The content of requests
and objects never appears in an error.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

from pydantic_core import from_json

from cinderblock.errors import (
    AccessDenied,
    AlreadyExists,
    CinderblockError,
    Conflict,
    InvalidInput,
    KubeUnavailable,
    NotFound,
)
from cinderblock.kube.kinds import SECRET, Kind
from cinderblock.reasons import Reason

_MESSAGE_LIMIT: Final = 1000
"""Characters of the server's message that are passed on: a rejected Job can produce pages."""

_FORBIDDEN_REASONS: Final = (
    ("because it is being terminated", Reason.NAMESPACE_TERMINATING),
    ("exceeded quota", Reason.QUOTA_EXCEEDED),
    ("failed quota", Reason.QUOTA_EXCEEDED),
    ("insufficient quota to", Reason.QUOTA_EXCEEDED),
    ("status unknown for quota", Reason.QUOTA_EXCEEDED),
    ("per PersistentVolumeClaim", Reason.LIMIT_RANGE_VIOLATED),
    ("violates PodSecurity", Reason.POD_SECURITY_VIOLATION),
)
"""Admission rejects with 403 as RBAC does, and only the message tells which (apiserver/pkg/admission)."""

_DENIALS: Final = (
    re.compile(r"ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: "),
    re.compile(r'admission webhook "[^"]*" denied the request'),
)
"""Words of a policy that denies a request. A ValidatingAdmissionPolicy answers with 422 by default, and a webhook with
400, or with any code from 400 on that it chooses (apiserver, policy/validating and webhook/errors)."""

NO_DRY_RUN: Final = "does not support dry run"
"""A webhook with side effects fails every dry run with 400 (apiserver, webhook/errors: NewDryRunUnsupportedErr)."""

_NO_SUCH_FIELD: Final = "field not declared in schema"
"""Server-side apply of a field that the schema lacks returns 500 (structured-merge-diff), every time."""

_MEANINGS: Final[dict[int, tuple[type[CinderblockError], str]]] = {
    400: (InvalidInput, "the API server rejected the request"),
    401: (AccessDenied, "the API server does not accept the credentials"),
    404: (NotFound, "not found"),
    409: (Conflict, "the object has changed since it was read"),
    410: (KubeUnavailable, "the requested version has expired"),
    422: (InvalidInput, "the API server rejected the object"),
    429: (KubeUnavailable, "the API server is overloaded"),
}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request, as RBAC sees it.

    Attributes:
        verb: get, list, create, update, patch or delete.
        kind: type of the object.
        namespace: None for cluster-wide lists and for objects outside namespaces.
        name: None for lists; for ``create``, the name in the body.
        subresource: for example ``status`` or ``log``.
    """

    verb: str
    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""

    @property
    def is_write(self) -> bool:
        """Return whether the request changes something."""
        return self.verb not in ("get", "list")

    @property
    def resource(self) -> str:
        """Type and subresource: ``volumebackups.cinderblock.io/status``."""
        return f"{self.kind.resource}/{self.subresource}" if self.subresource else self.kind.resource

    def describe(self) -> str:
        """Return the request in words: ``patch volumebackups.cinderblock.io/status shop/nightly``."""
        name = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {name}".rstrip()


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response, read to its end.

    Attributes:
        status: HTTP status code.
        body: content of the response.
        retry_after: seconds that the server asks us to wait; None if it does not.
        date: when the server sent it, by its own clock; None: it did not say that.
    """

    status: int
    body: bytes = b""
    retry_after: float | None = None
    date: datetime | None = None

    @property
    def is_success(self) -> bool:
        """Return whether the request succeeded."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """Return the body as an object. Raises KubeUnavailable if it is not one: then a proxy has responded."""
        try:
            value = from_json(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise KubeUnavailable(
                f"Cannot use a response with HTTP {self.status}: it is not from the API server, because it is not JSON"
            )
        return value

    def status_object(self) -> dict[str, Any]:
        """Return the ``Status`` of a failure; empty if the response is not from the API server."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def raise_for_status(info: RequestInfo, response: Response) -> NoReturn:
    """Raise the error that a failed response means.

    401 and 403 are AccessDenied, 404 is NotFound, 409 is Conflict (AlreadyExists, if that is the reason), 410 (an
    expired continuation), 429 and 5xx are KubeUnavailable, and every other code is InvalidInput. The denial of a policy
    or a webhook is AccessDenied, whatever its code.
    """
    status = response.status_object()
    message = _server_message(info, status)
    code = response.status
    if code == 500 and _NO_SUCH_FIELD in message:
        code = 422
    if any(pattern.search(message) for pattern in _DENIALS):
        # A policy may change, unlike an invalid value, and the objects of the operator may be exempted from it.
        code = 403
    if code == 422 and "metadata.uid" in _rejected_fields(status):
        code = 409
    raise _error(info, code, str(status.get("reason", "")), message)


def _rejected_fields(status: dict[str, Any]) -> set[str]:
    """Return the paths of the fields that failed validation."""
    causes = (status.get("details") or {}).get("causes") or ()
    return {str(cause["field"]) for cause in causes if cause.get("field")}


def _error(info: RequestInfo, code: int, reason: str, message: str) -> CinderblockError:
    request = info.describe()
    if code == 403:
        specific_reason = next((name for text, name in _FORBIDDEN_REASONS if text in message), None)
        return AccessDenied(f"Cannot {request}: the API server refused it{message}", reason=specific_reason)
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExists(f"Cannot {request}: an object of that name exists{message}")
    if code == 401:
        return AccessDenied(f"Cannot {request}: {_MEANINGS[code][1]}{message}", reason=Reason.UNAUTHORIZED)
    if code in _MEANINGS:
        error, cause = _MEANINGS[code]
        return error(f"Cannot {request}: {cause}{message}")
    error = KubeUnavailable if code >= 500 else InvalidInput
    return error(f"Cannot {request}: the API server returned HTTP {code}{message}")


def _server_message(info: RequestInfo, status: dict[str, Any]) -> str:
    """Return the server's message, in the form in which it ends ours."""
    message = str(status.get("message", ""))
    if not message or info.kind == SECRET:
        return ""
    causes = (status.get("details") or {}).get("causes") or []
    more = [str(cause["message"]) for cause in causes if cause.get("message") and cause["message"] not in message]
    text = "; ".join([" ".join(message.split()), *more])
    return ": " + (text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…")
