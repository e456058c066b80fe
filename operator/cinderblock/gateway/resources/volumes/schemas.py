"""Schemas of volumes and of queries of their lists, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.gateway.rest.openapi_schemas import LINKS, closed_object
from cinderblock.gateway.rest.validation import Schema

STRING: Final[Schema] = {"type": "string"}
TEXT: Final[Schema] = {"type": ["string", "null"]}
NULL: Final[Schema] = {"type": "null"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
SIZE: Final[Schema] = {"type": "integer", "minimum": 0}
METADATA: Final[Schema] = {"type": "object", "additionalProperties": STRING}
TIME: Final[Schema] = {"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$"}

LIST_QUERY: Final[dict[str, dict[str, Any]]] = {
    name: {"type": "string"}
    for name in (
        "limit", "marker", "offset", "sort", "sort_key", "sort_dir", "name", "status", "with_count", "all_tenants",
    )
}  # fmt: skip

_ATTACHMENT: Final = closed_object(
    dict.fromkeys(("id", "volume_id", "attachment_id", "server_id", "device"), STRING)
    | {"host_name": TEXT, "attached_at": TIME}
)
_SUMMARY: Final[dict[str, Schema]] = {"id": STRING, "name": TEXT, "links": LINKS}
_TENANT: Final = "os-vol-tenant-attr:tenant_id"
_DETAIL: Final[dict[str, Schema]] = _SUMMARY | {
    "status": STRING,
    "size": SIZE,
    "availability_zone": STRING,
    "created_at": TIME,
    "updated_at": TIME,
    "description": TEXT,
    "volume_type": TEXT,
    "snapshot_id": TEXT,
    "source_volid": NULL,
    "metadata": METADATA,
    "user_id": STRING,
    "bootable": {"enum": ["true", "false"]},
    "encrypted": BOOLEAN,
    "replication_status": NULL,
    "consistencygroup_id": NULL,
    "multiattach": BOOLEAN,
    "attachments": {"type": "array", "items": _ATTACHMENT},
    _TENANT: STRING,
    "group_id": NULL,
    "service_uuid": NULL,
    "shared_targets": BOOLEAN,
    "volume_type_id": TEXT,
    "consumes_quota": BOOLEAN,
}
_NEWER: Final = ("group_id", "service_uuid", "shared_targets", "volume_type_id", "consumes_quota")


def list_of(collection: str, item: Schema) -> Schema:
    links = f"{collection}_links"
    return closed_object({collection: {"type": "array", "items": item}, links: LINKS, "count": SIZE}, links, "count")


VOLUME: Final = closed_object({"volume": closed_object(_DETAIL, *_NEWER, _TENANT)})
VOLUME_DETAIL: Final = closed_object({"volume": closed_object(_DETAIL, *_NEWER)})
VOLUMES: Final = list_of("volumes", closed_object(_SUMMARY))
VOLUME_DETAILS: Final = list_of("volumes", closed_object(_DETAIL, *_NEWER))
VOLUME_SUMMARY: Final = closed_object(
    {
        "volume-summary": closed_object(
            {
                "total_count": SIZE,
                "total_size": SIZE,
                "metadata": {"type": "object", "additionalProperties": {"type": "array", "items": STRING}},
            },
            "metadata",
        )
    }
)
