"""Secrets of stores, read at most once for each look at an object."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

_seen: ContextVar[dict[tuple[str, str], Secret]] = ContextVar("secrets that were read during this look")


def begin_to_look() -> None:
    """Secrets that are needed several times are read once, until this task calls this again."""
    _seen.set({})


class Secret:
    """A Secret, decoded. Its contents never appear in a repr."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.data = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        metadata = body["metadata"]
        self.annotations: dict[str, str] = metadata.get("annotations") or {}
        self.version = f"{metadata['uid']}/{metadata['resourceVersion']}"
