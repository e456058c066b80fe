"""Schemas of answers about snapshots, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway.resources.volumes.schemas import (
    _BOOLEAN,
    _METADATA,
    _NULL,
    _SIZE,
    _STRING,
    _TEXT,
    _TIME,
    _list_of,
)
from cinderblock.gateway.rest.openapi_schemas import closed_object
from cinderblock.gateway.rest.validation import Schema

_SNAPSHOT: Final[dict[str, Schema]] = {
    "id": _STRING,
    "name": _TEXT,
    "description": _TEXT,
    "created_at": _TIME,
    "updated_at": _TIME,
    "status": _STRING,
    "size": _SIZE,
    "volume_id": _STRING,
    "metadata": _METADATA,
    "group_snapshot_id": _NULL,
    "user_id": _STRING,
    "consumes_quota": _BOOLEAN,
}


_EXTENDED: Final[dict[str, Schema]] = {
    "os-extended-snapshot-attributes:progress": _STRING,
    "os-extended-snapshot-attributes:project_id": _STRING,
}


_NEWER_OF_SNAPSHOTS: Final = ("group_snapshot_id", "user_id", "consumes_quota")


SNAPSHOT: Final = closed_object({"snapshot": closed_object(_SNAPSHOT, *_NEWER_OF_SNAPSHOTS)})


SNAPSHOT_DETAIL: Final = closed_object({"snapshot": closed_object(_SNAPSHOT | _EXTENDED, *_NEWER_OF_SNAPSHOTS)})


SNAPSHOTS: Final = _list_of("snapshots", closed_object(_SNAPSHOT, *_NEWER_OF_SNAPSHOTS))


SNAPSHOT_DETAILS: Final = _list_of("snapshots", closed_object(_SNAPSHOT | _EXTENDED, *_NEWER_OF_SNAPSHOTS))
