"""``POST /volumes``: a PersistentVolumeClaim, or with ``backup_id`` a VolumeRestore that makes one."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.backups.find import find as find_backup
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.backups.restore import create_restore, free_name
from cinderblock.gateway.resources.backups.view import own_status, status_of
from cinderblock.gateway.resources.snapshots.gather import Snapshot
from cinderblock.gateway.resources.snapshots.gather import find as find_snapshot
from cinderblock.gateway.resources.volumes import view
from cinderblock.gateway.resources.volumes.gather import SNAPSHOT_ANNOTATION, NamespaceVolumes, Volume
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import BOOLEAN, NAME, UUID_OR_NULL, Schema, is_true, metadata, strings
from cinderblock.kube.kinds import PVC, STORAGE_CLASS, VOLUME_SNAPSHOT

_FROM_BACKUP, _CLOSED = 47, 53
"""Microversions: ``backup_id``; unknown fields are refused."""
_SOURCES: Final = ("backup_id", "imageRef", "snapshot_id", "source_volid")

_TEXT: Final[Schema] = {"type": ["string", "null"]}
_SIZE: Final[Schema] = {"type": ["integer", "string", "null"], "pattern": "^[0-9]+$", "minimum": 1, "maxLength": 255}
"""parameter_types.volume_size_allows_null, with a length that `int` accepts: Python refuses more than 4300 digits."""
_FIELDS: Final[dict[str, Schema]] = {
    "name": _TEXT,
    "description": _TEXT,
    "display_name": _TEXT,
    "display_description": _TEXT,
    "volume_type": NAME,
    "metadata": metadata("object", "null"),
    "snapshot_id": UUID_OR_NULL,
    "source_volid": UUID_OR_NULL,
    "consistencygroup_id": UUID_OR_NULL,
    "size": _SIZE,
    "availability_zone": strings("string", "null", minLength=1),
    "multiattach": BOOLEAN,
    "image_id": NAME,
    "imageRef": NAME,
    "group_id": NAME,
    "backup_id": UUID_OR_NULL,
}
_NEWER: Final = {"group_id": 13, "backup_id": _FROM_BACKUP}


def schema(minor: int) -> Schema:
    """Schema of the body in a microversion (cinder/api/schemas/volumes.py)."""
    known = {name: field for name, field in _FIELDS.items() if minor >= _NEWER.get(name, 0)}
    return {
        "type": "object",
        "properties": {
            "volume": {"type": "object", "properties": known, "additionalProperties": minor < _CLOSED},
            "OS-SCH-HNT:scheduler_hints": {"type": ["object", "null"]},
        },
        "required": ["volume"],
        "additionalProperties": False,
    }


async def create(call: ApiRequest) -> ApiResponse:
    """Create a volume: empty, from a snapshot, or from a backup."""
    minor = call.version.minor if call.at_least(0) else 0
    wanted = object_annotations.normalized(call.checked(schema(minor))["volume"])
    if not call.at_least(_FROM_BACKUP):
        wanted.pop("backup_id", None)
    _check_sources(wanted)
    await _check_type(call, wanted.get("volume_type"))
    volume = await (_from_backup(call, wanted) if wanted.get("backup_id") else _claim(call, wanted))
    return ApiResponse(202, {"volume": view.created(volume, call)})


async def _check_type(call: ApiRequest, name: str | None) -> None:
    """Raises NotFound if there is no such StorageClass; whoever may not see them, is believed."""
    classes = await if_permitted(call.kube.list(STORAGE_CLASS)) if name else None
    if classes is not None and name not in {item["metadata"]["name"] for item in classes}:
        raise NotFound(f"Volume type with name {name} could not be found.")


def _check_sources(wanted: dict[str, Any]) -> None:
    named = [source for source in _SOURCES if wanted.get(source)]
    if len(named) > 1:
        raise InvalidInput("Invalid input received: May specify only one of backup, imageRef, snapshot, source volume")
    for field, what in (("imageRef", "an image"), ("image_id", "an image"), ("source_volid", "another volume")):
        if wanted.get(field):
            raise InvalidInput(f"Invalid input received: volumes cannot be made from {what} here")
    if is_true(wanted.get("multiattach")):
        raise InvalidInput("Invalid input received: multiattach is a property of the volume type")


async def _claim(call: ApiRequest, wanted: dict[str, Any]) -> Volume:
    notes = object_annotations.to_annotations(wanted.get("name"), wanted.get("description"), wanted.get("metadata"))
    snapshot: Snapshot | None = None
    if wanted.get("snapshot_id"):
        snapshot = await find_snapshot(call, wanted["snapshot_id"])
        notes[SNAPSHOT_ANNOTATION] = snapshot.id
    size = _size(wanted, snapshot.size if snapshot else None, "snapshot")
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": f"{size}Gi"}}}
    if wanted.get("volume_type"):
        spec["storageClassName"] = wanted["volume_type"]
    if snapshot is not None:
        group = VOLUME_SNAPSHOT.group
        spec["dataSource"] = {"apiGroup": group, "kind": VOLUME_SNAPSHOT.kind, "name": snapshot.source.name}
    body = {"metadata": {"annotations": notes}, "spec": spec}
    made = await object_annotations.create(call.kube, PVC, call.project, wanted.get("name"), body)
    return NamespaceVolumes([PersistentVolumeClaim.model_validate(made)], [], [], []).volumes()[0]


async def _from_backup(call: ApiRequest, wanted: dict[str, Any]) -> Volume:
    backup = await find_backup(call.kube, call.project, wanted["backup_id"])
    if status_of(backup, call.version) != "available":
        raise InvalidInput("Invalid backup: Originating backup status must be one of 'available' values")
    size = _size(wanted, own_status(backup).size, "backup")
    notes = object_annotations.to_annotations(
        wanted.get("name"),
        wanted.get("description"),
        wanted.get("metadata") or object_annotations.kept_metadata(backup.metadata),
    )
    called = wanted.get("name") or f"restore_backup_{backup.backup_id}"
    target = {"name": await free_name(call, called), "size": f"{size}Gi", "annotations": notes}
    if wanted.get("volume_type"):
        target["storageClassName"] = wanted["volume_type"]
    made = await create_restore(call, backup, target, called)
    return NamespaceVolumes([], [], [backup], [made]).volumes()[0]


def _size(wanted: dict[str, Any], least: int | None, source: str) -> int:
    """GiB that are asked for, or those of the source."""
    if wanted.get("size") is None:
        if least is None:
            raise InvalidInput(
                "The server could not comply with the request since it is either malformed or otherwise incorrect."
            )
        return least
    size = int(wanted["size"])
    if size < 1:
        raise InvalidInput(f"Invalid input received: Volume size '{size}' must be an integer and greater than 0")
    if least is not None and size < least:
        raise InvalidInput(
            f"Invalid input received: Volume size {size}GB cannot be smaller than the {source} size {least}GB."
            f" It must be >= {source} size."
        )
    return size
