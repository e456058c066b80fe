"""Answers in which names in angle brackets replace everything that differs from run to run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?![\dZ+])")
"""Cinder's times, with microseconds and without a time zone."""

KEPT = ("content-type", "openstack-api-version", "vary", "retry-after", "location")
"""Headers that matter to clients."""


@dataclass
class Names:
    """The values of the names in angle brackets in one run."""

    values: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Replace names in ``text`` by their values."""
        for name, value in self.values.items():
            text = text.replace(f"<{name}>", value)
        return text

    def hide(self, text: str) -> str:
        """Replace values in ``text`` by names. Unknown ids and times get names as well."""
        for name, value in sorted(self.values.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, f"<{name}>")
        return TIME.sub("<time>", UUID.sub("<uuid>", text))


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        headers: the headers of KEPT, with names in lower case, and content types without character sets.
        has_request_id: whether the headers contain one id of the request.
        body: parsed JSON, or text.
    """

    status: int
    headers: dict[str, str]
    has_request_id: bool
    body: Any

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], text: str, names: Names) -> Answer:
        """Return an answer from the parts of an HTTP response."""
        lower = {name.lower(): value for name, value in headers.items()}
        kept = {name: names.hide(lower[name].split(";")[0]) for name in KEPT if name in lower}
        if not text:
            kept.pop("content-type", None)
        request_id = lower.get("x-openstack-request-id", "")
        agrees = request_id.startswith("req-") and lower.get("x-compute-request-id", request_id) == request_id
        hidden = names.hide(text)
        try:
            body = json.loads(hidden)
        except ValueError:
            body = hidden
        return cls(status, kept, agrees, body)

    @classmethod
    def load(cls, recorded: dict[str, Any]) -> Answer:
        """Return a recorded answer."""
        return cls(**recorded)

    def dump(self) -> dict[str, Any]:
        """Return the answer in the form of recordings."""
        return asdict(self)


def found(text: str, where: str) -> str:
    """Return the value at ``where`` (such as ``backup.id``) in JSON."""
    value: Any = json.loads(text)
    for key in where.split("."):
        value = value[key]
    return str(value)
