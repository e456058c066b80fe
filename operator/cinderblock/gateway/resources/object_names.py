"""Names for new objects: Cinder's names are free text and need not be unique, Kubernetes' are neither."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

_NOT_ALLOWED: Final = re.compile(r"[^a-z0-9]+")
_LONGEST: Final = 50
"""Characters: room is left for what the API server puts behind it, in 63 of a label."""


def slug(text: str | None, otherwise: str, longest: int = _LONGEST) -> str:
    """``text`` as the beginning of a name that Kubernetes allows; ``otherwise`` if nothing of it is left."""
    plain = unicodedata.normalize("NFKD", text or "").encode("ascii", "ignore").decode().lower()
    return _NOT_ALLOWED.sub("-", plain)[:longest].strip("-") or otherwise


def metadata(namespace: str, text: str | None, otherwise: str, annotations: dict[str, str]) -> dict[str, Any]:
    """Metadata of a new object, whose name the API server completes so that it is free."""
    named = {"namespace": namespace, "generateName": f"{slug(text, otherwise)}-"}
    return named | {"annotations": annotations} if annotations else named
