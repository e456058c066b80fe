"""Schemas of responses and queries for the OpenAPI document. A test validates responses against them."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.gateway.rest.openapi_schemas import LINKS, closed_object
from cinderblock.gateway.rest.validation import Schema

_STRING: Final[Schema] = {"type": "string"}
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_TIME: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$"}
_TIME_OR_NULL: Final[Schema] = {**_TIME, "type": ["string", "null"]}

_SUMMARY: Final = {"id": _STRING, "name": _TEXT, "links": LINKS}
_DETAIL: Final = {
    **_SUMMARY,
    "status": {"enum": [phase.value for phase in BackupPhase]},
    "size": {"type": ["integer", "null"], "minimum": 0},
    "object_count": {"type": "integer", "minimum": 0},
    "availability_zone": _TEXT,
    "container": _TEXT,
    "created_at": _TIME,
    "updated_at": _TIME_OR_NULL,
    "description": _TEXT,
    "fail_reason": _TEXT,
    "volume_id": _TEXT,
    "is_incremental": {"type": "boolean"},
    "has_dependent_backups": {"type": "boolean"},
    "snapshot_id": _TEXT,
    "data_timestamp": _TIME,
    "os-backup-project-attr:project_id": _STRING,
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    "user_id": _TEXT,
}
_NEWER: Final = ("os-backup-project-attr:project_id", "metadata", "user_id")
_PAGING: Final = ("backups_links", "count")


def _list_of(item: Schema) -> Schema:
    return closed_object(
        {
            "backups": {"type": "array", "items": item},
            "backups_links": LINKS,
            "count": {"type": "integer", "minimum": 0},
        },
        *_PAGING,
    )


BACKUP: Final = closed_object({"backup": closed_object(_SUMMARY)})
BACKUP_DETAIL: Final = closed_object({"backup": closed_object(_DETAIL, *_NEWER)})
BACKUPS: Final = _list_of(closed_object(_SUMMARY))
BACKUP_DETAILS: Final = _list_of(closed_object(_DETAIL, *_NEWER))
RESTORE: Final = closed_object(
    {"restore": closed_object({"backup_id": _STRING, "volume_id": _STRING, "volume_name": _STRING})}
)
RECORD: Final = closed_object({"backup-record": closed_object({"backup_service": _STRING, "backup_url": _STRING})})

BACKUP_ACTION: Final[Schema] = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"os-force_delete": {}},
            "required": ["os-force_delete"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "os-reset_status": {
                    "type": "object",
                    "properties": {"status": {"enum": ["available", "error"]}},
                    "required": ["status"],
                    "additionalProperties": False,
                }
            },
            "required": ["os-reset_status"],
            "additionalProperties": False,
        },
    ]
}

LIST_QUERY: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 0},
    "marker": {"type": "string"},
    "offset": {"type": "integer", "minimum": 0},
    "sort": {"type": "string"},
    "sort_key": {"type": "string"},
    "sort_dir": {"enum": ["asc", "desc"]},
    "name": {"type": "string"},
    "status": {"type": "string"},
    "volume_id": {"type": "string"},
    "with_count": {"type": "string"},
    "all_tenants": {"type": "string"},
}
