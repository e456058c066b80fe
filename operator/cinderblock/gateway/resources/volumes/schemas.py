"""Schemas of answers about volumes and snapshots, and of the queries of their lists, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.gateway.rest.openapi_schemas import LINKS, closed_object
from cinderblock.gateway.rest.validation import Schema

_STRING: Final[Schema] = {"type": "string"}
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_NULL: Final[Schema] = {"type": "null"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_SIZE: Final[Schema] = {"type": "integer", "minimum": 0}
_METADATA: Final[Schema] = {"type": "object", "additionalProperties": _STRING}
_TIME: Final[Schema] = {"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$"}

LIST_QUERY: Final[dict[str, dict[str, Any]]] = {
    name: {"type": "string"}
    for name in (
        "limit", "marker", "offset", "sort", "sort_key", "sort_dir", "name", "status", "with_count", "all_tenants",
    )
}  # fmt: skip

_ATTACHMENT: Final = closed_object(
    dict.fromkeys(("id", "volume_id", "attachment_id", "server_id", "device"), _STRING)
    | {"host_name": _TEXT, "attached_at": _TIME}
)
_SUMMARY: Final[dict[str, Schema]] = {"id": _STRING, "name": _TEXT, "links": LINKS}
_TENANT: Final = "os-vol-tenant-attr:tenant_id"
_DETAIL: Final[dict[str, Schema]] = _SUMMARY | {
    "status": _STRING,
    "size": _SIZE,
    "availability_zone": _STRING,
    "created_at": _TIME,
    "updated_at": _TIME,
    "description": _TEXT,
    "volume_type": _TEXT,
    "snapshot_id": _TEXT,
    "source_volid": _NULL,
    "metadata": _METADATA,
    "user_id": _STRING,
    "bootable": {"enum": ["true", "false"]},
    "encrypted": _BOOLEAN,
    "replication_status": _NULL,
    "consistencygroup_id": _NULL,
    "multiattach": _BOOLEAN,
    "attachments": {"type": "array", "items": _ATTACHMENT},
    _TENANT: _STRING,
    "group_id": _NULL,
    "service_uuid": _NULL,
    "shared_targets": _BOOLEAN,
    "volume_type_id": _TEXT,
    "consumes_quota": _BOOLEAN,
}
_NEWER: Final = ("group_id", "service_uuid", "shared_targets", "volume_type_id", "consumes_quota")


def _list_of(collection: str, item: Schema) -> Schema:
    links = f"{collection}_links"
    return closed_object({collection: {"type": "array", "items": item}, links: LINKS, "count": _SIZE}, links, "count")


VOLUME: Final = closed_object({"volume": closed_object(_DETAIL, *_NEWER, _TENANT)})
VOLUME_DETAIL: Final = closed_object({"volume": closed_object(_DETAIL, *_NEWER)})
VOLUMES: Final = _list_of("volumes", closed_object(_SUMMARY))
VOLUME_DETAILS: Final = _list_of("volumes", closed_object(_DETAIL, *_NEWER))
VOLUME_SUMMARY: Final = closed_object(
    {
        "volume-summary": closed_object(
            {
                "total_count": _SIZE,
                "total_size": _SIZE,
                "metadata": {"type": "object", "additionalProperties": {"type": "array", "items": _STRING}},
            },
            "metadata",
        )
    }
)
