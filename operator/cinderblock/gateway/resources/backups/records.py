"""Records of backups. An exported record describes where the data is; importing it creates a VolumeBackup for it.

A record is base64 of JSON with Cinder's field names. ``service_metadata``, in which Cinder's drivers keep the location
of a backup, is the key of the manifest.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.auth import user_name
from cinderblock.gateway.resources import object_names
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view
from cinderblock.gateway.resources.backups.find import find
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.timestamps import format_timestamp
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import BACKUP_STORE, VOLUME_BACKUP

SERVICE: Final = "cinder.backup.drivers.s3.S3BackupDriver"
"""Name of Cinder's S3 driver. Clients check its beginning."""
_MAX_SIZE_GIB: Final = 1 << 31
"""Cinder stores the size as an integer of 32 bits."""
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

SCHEMA: Final[Schema] = validation.strict_object(
    {
        "backup-record": validation.strict_object(
            {
                "backup_service": {"type": "string", "minLength": 0, "maxLength": 255},
                "backup_url": {"type": "string", "minLength": 1, "format": "base64"},
            },
            "backup_service",
            "backup_url",
        )
    },
    "backup-record",
)
"""cinder/api/schemas/backups.py ``import_record``"""


async def export_record(request: ApiRequest) -> ApiResponse:
    """Describe where the data of a backup is."""
    backup = await find(request.kube, request.project, request.path["backup_id"])
    status = view.own_status(backup)
    if view.phase_of(backup) not in (BackupPhase.AVAILABLE, BackupPhase.ERROR_RESTORING):
        raise InvalidInput("Invalid backup: Backup status must be available and not creating.")
    record = {
        "id": backup.backup_id,
        "status": "available",
        "volume_id": status.volume_id,
        "display_name": backup.spec.name,
        "display_description": backup.spec.description,
        "container": status.container,
        "service": SERVICE,
        "service_metadata": status.manifest_key,
        "size": status.size,
        "object_count": status.object_count,
        "parent_id": status.parent_id,
        "created_at": format_timestamp(view.created_at(backup)),
        "data_timestamp": format_timestamp(status.data_timestamp),
        "availability_zone": backup.spec.availability_zone,
        "project_id": backup.namespace,
        "store_name": status.store_name,
        "metadata": dict(backup.spec.metadata),
    }
    url = base64.b64encode(json.dumps(record).encode()).decode()
    return ApiResponse(200, {"backup-record": {"backup_service": SERVICE, "backup_url": url}})


async def import_record(request: ApiRequest) -> ApiResponse:
    """Create a VolumeBackup from a record. The operator verifies the record against the store."""
    body = request.validated(SCHEMA)["backup-record"]
    record = _parse_record(body["backup_url"])
    identifier = str(record["id"])
    if not _ID.fullmatch(identifier):
        raise InvalidInput("Invalid input received: Can't parse backup record.")
    if await _exists(request, identifier):
        raise InvalidInput("Invalid backup: Backup already exists in database.")
    name = _text(record, "display_name")
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(request.kube)} | _size_of(record)
    backup = {
        "metadata": object_names.metadata(request.project, name, "imported", annotations),
        "spec": await _spec(request, record, identifier),
    }
    created = VolumeBackup.model_validate(await request.kube.create(VOLUME_BACKUP, backup))
    return ApiResponse(201, {"backup": view.summary(created, request.links)})


def _parse_record(url: str) -> dict[str, Any]:
    """Parse a record. Raises InvalidInput with Cinder's messages."""
    try:
        record = json.loads(base64.b64decode(url, validate=True).decode())
    except (ValueError, binascii.Error, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InvalidInput("Invalid input received: Can't parse backup record.")
    if not record.get("id"):
        raise InvalidInput("Invalid input received: Provided backup record is missing an id")
    for name in ("size", "object_count", "container", "service_metadata"):
        if name not in record:
            raise InvalidInput(f"Invalid input received: Provided backup record is missing {name} attribute")
    return record


async def _exists(request: ApiRequest, identifier: str) -> bool:
    try:
        await find(request.kube, request.project, identifier)
    except NotFound:
        return False
    return True


async def _spec(request: ApiRequest, record: dict[str, Any], identifier: str) -> dict[str, Any]:
    """Return the spec for a record, with the store that it names if the namespace has it."""
    imported = {"id": identifier, "manifest": _text(record, "service_metadata")}
    spec = {
        "import": {key: value for key, value in imported.items() if value},
        "name": _text(record, "display_name"),
        "description": _text(record, "display_description"),
        "container": _text(record, "container"),
        "storeName": await _store(request, _text(record, "store_name")),
        "metadata": _metadata(record),
    }
    return {key: value for key, value in spec.items() if value}


async def _store(request: ApiRequest, name: str | None) -> str | None:
    if name is None or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        return None
    return name if await request.kube.get(BACKUP_STORE, name, request.project) else None


def _size_of(record: dict[str, Any]) -> dict[str, str]:
    """Return an annotation with the size in GiB, which is shown until the operator has read the manifest."""
    size = record["size"]
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_SIZE_GIB
    return {labels.RECORDED_SIZE_ANNOTATION: str(size)} if is_size else {}


def _text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None


def _metadata(record: dict[str, Any]) -> dict[str, str]:
    metadata = record.get("metadata")
    items = metadata.items() if isinstance(metadata, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


EXPORT: Final = Operation(
    "GET",
    "/backups/{backup_id}/export_record",
    export_record,
    "Export the record of a backup",
    "backup:export-import",
    {200: backups_schemas.RECORD},
)
IMPORT: Final = Operation(
    "POST",
    "/backups/import_record",
    import_record,
    "Import the record of a backup",
    "backup:backup-import",
    {201: backups_schemas.BACKUP},
    body=SCHEMA,
)
