"""What the API server answered, and what that means as an error of ours.

Only the server's own sentence (``Status.message``) is passed on, and never one about a Secret: neither the body of a
request nor that of an object gets into an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
"""Characters of the server's sentence that are passed on: a rejected Job can produce pages."""

_FORBIDDEN_REASONS: Final = (
    ("because it is being terminated", Reason.NAMESPACE_TERMINATING),
    ("exceeded quota", Reason.QUOTA_EXCEEDED),
    ("violates PodSecurity", Reason.POD_SECURITY_VIOLATION),
)
"""403 is not only RBAC: admission refuses with it too, and only the sentence tells (apiserver/pkg/admission)."""


_NO_SUCH_FIELD: Final = "field not declared in schema"
"""Server-side apply of a field that the schema lacks answers 500 (structured-merge-diff), and always will."""

_MEANINGS: Final[dict[int, tuple[type[CinderblockError], str]]] = {
    400: (InvalidInput, "the API server finds the request wrong"),
    401: (AccessDenied, "the API server does not accept our credentials"),
    404: (NotFound, "there is no such object"),
    409: (Conflict, "it is not as it was when we read it"),
    410: (KubeUnavailable, "what was asked for has expired"),
    422: (InvalidInput, "the API server finds the object wrong"),
    429: (KubeUnavailable, "the API server has too much to do"),
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
        """Whether the request changes something."""
        return self.verb not in ("get", "list")

    @property
    def resource(self) -> str:
        """Type and subresource: ``volumebackups.cinderblock.io/status``."""
        return f"{self.kind.resource}/{self.subresource}" if self.subresource else self.kind.resource

    def describe(self) -> str:
        """For people: ``patch volumebackups.cinderblock.io/status shop/nightly``."""
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {where}".rstrip()


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer, read to its end.

    Attributes:
        status: HTTP status code.
        body: what came with it.
        retry_after: seconds that the server asks us to wait; None if it does not say.
    """

    status: int
    body: bytes = b""
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked to do."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises KubeUnavailable if it is none: then something else answered, a proxy."""
        try:
            value = from_json(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise KubeUnavailable(f"What answered with HTTP {self.status} is not the API server: the body is not JSON")
        return value

    def status_object(self) -> dict[str, Any]:
        """The ``Status`` of a failure; empty if something other than the API server answered."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def raise_for_status(call: RequestInfo, answer: Response) -> NoReturn:
    """Raise the error that ``answer``, a failure, stands for.

    401 and 403 are AccessDenied, 404 is NotFound, 409 is Conflict (AlreadyExists, if that is the reason), 429 and 5xx
    are KubeUnavailable, 410 too (what was asked for has expired: ask anew), every other code is InvalidInput.
    """
    status = answer.status_object()
    said = _message_of(call, status)
    code = answer.status
    if code == 500 and _NO_SUCH_FIELD in said:
        code = 422
    if code == 422 and "metadata.uid" in rejected_fields(answer):
        code = 409
    raise _error(call, code, str(status.get("reason", "")), said)


def rejected_fields(answer: Response) -> set[str]:
    """Paths of the fields that validation finds wrong; empty if it is not validation that refuses."""
    causes = (answer.status_object().get("details") or {}).get("causes") or ()
    return {str(cause["field"]) for cause in causes if cause.get("field")}


def _error(call: RequestInfo, code: int, reason: str, said: str) -> CinderblockError:
    what = call.describe()
    if code == 403:
        finer = next((word for text, word in _FORBIDDEN_REASONS if text in said), None)
        return AccessDenied(
            f"The API server refuses to {what}: grant it, or remove what forbids it{said}", reason=finer
        )
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExists(f"Could not {what}: an object of that name exists{said}")
    if code == 401:
        return AccessDenied(f"Could not {what}: {_MEANINGS[code][1]}{said}", reason=Reason.UNAUTHORIZED)
    if code in _MEANINGS:
        meaning, sentence = _MEANINGS[code]
        return meaning(f"Could not {what}: {sentence}{said}")
    meaning = KubeUnavailable if code >= 500 else InvalidInput
    return meaning(f"The API server answered {code} when asked to {what}{said}")


def _message_of(call: RequestInfo, status: dict[str, Any]) -> str:
    """The server's sentence, ready to be put at the end of ours."""
    message = str(status.get("message", ""))
    if not message or call.kind == SECRET:
        return ""
    causes = (status.get("details") or {}).get("causes") or []
    more = [str(cause["message"]) for cause in causes if cause.get("message") and cause["message"] not in message]
    text = "; ".join([" ".join(message.split()), *more])
    return ": " + (text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…")
