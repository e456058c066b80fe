"""Names of new objects. Cinder's names are free text and need not be unique, unlike Kubernetes names."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

_NOT_ALLOWED: Final = re.compile(r"[^a-z0-9]+")
_MAX_CHARACTERS: Final = 50
"""Leaves room for the suffix of the API server within the 63 characters of a label."""


def slug(text: str | None, default: str, max_characters: int = _MAX_CHARACTERS) -> str:
    """Return ``text`` as a prefix of a Kubernetes name; ``default`` if no character remains."""
    plain = unicodedata.normalize("NFKD", text or "").encode("ascii", "ignore").decode().lower()
    return _NOT_ALLOWED.sub("-", plain)[:max_characters].strip("-") or default


def metadata(namespace: str, text: str | None, default: str, annotations: dict[str, str]) -> dict[str, Any]:
    """Return the metadata of a new object. The API server makes its name unique."""
    named = {"namespace": namespace, "generateName": f"{slug(text, default)}-"}
    return named | {"annotations": annotations} if annotations else named
