"""Schemas of the CustomResourceDefinitions that refuse unknown fields, as the API server does for kubectl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def _strict(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as the API server does for kubectl."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def _definitions() -> dict[str, Any]:
    bodies = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    return {
        body["spec"]["names"]["kind"].lower(): _strict(body["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        for body in bodies
    }


SCHEMAS = _definitions()
"""By the lower-case name of the kind."""
