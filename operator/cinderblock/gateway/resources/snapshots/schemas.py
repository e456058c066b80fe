"""Schemas of snapshots for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway.resources.volumes.schemas import (
    BOOLEAN,
    METADATA,
    NULL,
    SIZE,
    STRING,
    TEXT,
    TIME,
    list_of,
)
from cinderblock.gateway.rest.openapi_schemas import closed_object
from cinderblock.gateway.rest.validation import Schema

_SNAPSHOT: Final[dict[str, Schema]] = {
    "id": STRING,
    "name": TEXT,
    "description": TEXT,
    "created_at": TIME,
    "updated_at": TIME,
    "status": STRING,
    "size": SIZE,
    "volume_id": STRING,
    "metadata": METADATA,
    "group_snapshot_id": NULL,
    "user_id": STRING,
    "consumes_quota": BOOLEAN,
}

_EXTENDED: Final[dict[str, Schema]] = {
    "os-extended-snapshot-attributes:progress": STRING,
    "os-extended-snapshot-attributes:project_id": STRING,
}

_NEWER: Final = ("group_snapshot_id", "user_id", "consumes_quota")

SNAPSHOT: Final = closed_object({"snapshot": closed_object(_SNAPSHOT, *_NEWER)})

SNAPSHOT_DETAIL: Final = closed_object({"snapshot": closed_object(_SNAPSHOT | _EXTENDED, *_NEWER)})

SNAPSHOTS: Final = list_of("snapshots", closed_object(_SNAPSHOT, *_NEWER))

SNAPSHOT_DETAILS: Final = list_of("snapshots", closed_object(_SNAPSHOT | _EXTENDED, *_NEWER))
