"""``POST /volumes``: creates a PersistentVolumeClaim, or with ``backup_id`` a VolumeRestore that creates one."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.labels import SNAPSHOT_ANNOTATION
from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.backups.find import find as find_backup
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.backups.restore import create_restore, free_name
from cinderblock.gateway.resources.backups.view import own_status, status_of
from cinderblock.gateway.resources.snapshots.gather import Snapshot
from cinderblock.gateway.resources.snapshots.gather import find as find_snapshot
from cinderblock.gateway.resources.volumes import view
from cinderblock.gateway.resources.volumes.gather import NamespaceVolumes, Volume
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import BOOLEAN, NAME, UUID_OR_NULL, Schema, is_true, metadata, strings
from cinderblock.kube.kinds import PVC, STORAGE_CLASS, VOLUME_SNAPSHOT

_FROM_BACKUP, _CLOSED = 47, 53
"""Microversions: ``backup_id`` exists; unknown fields are rejected."""
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
    """Return the schema of the body in a microversion (cinder/api/schemas/volumes.py)."""
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


async def create(request: ApiRequest) -> ApiResponse:
    """Create a volume: empty, from a snapshot, or from a backup."""
    minor = request.version.minor if request.at_least(0) else 0
    body = object_annotations.normalize(request.validated(schema(minor))["volume"])
    if not request.at_least(_FROM_BACKUP):
        body.pop("backup_id", None)
    _check_sources(body)
    await _check_type(request, body.get("volume_type"))
    volume = await (_create_from_backup(request, body) if body.get("backup_id") else _create_claim(request, body))
    return ApiResponse(202, {"volume": view.without_tenant(volume, request)})


async def _check_type(request: ApiRequest, name: str | None) -> None:
    """Check that the StorageClass exists, if the caller may read them. Raises NotFound."""
    classes = await if_permitted(request.kube.list(STORAGE_CLASS)) if name else None
    if classes is not None and name not in {item["metadata"]["name"] for item in classes}:
        raise NotFound(f"Volume type with name {name} could not be found.")


def _check_sources(body: dict[str, Any]) -> None:
    if sum(bool(body.get(source)) for source in _SOURCES) > 1:
        raise InvalidInput("Invalid input received: May specify only one of backup, imageRef, snapshot, source volume")
    for field, source in (("imageRef", "an image"), ("image_id", "an image"), ("source_volid", "another volume")):
        if body.get(field):
            raise InvalidInput(f"Invalid input received: Creating a volume from {source} is not supported.")
    if is_true(body.get("multiattach")):
        raise InvalidInput("Invalid input received: multiattach is a property of the volume type.")


async def _create_claim(request: ApiRequest, body: dict[str, Any]) -> Volume:
    annotations = object_annotations.to_annotations(body.get("name"), body.get("description"), body.get("metadata"))
    snapshot: Snapshot | None = None
    if body.get("snapshot_id"):
        snapshot = await find_snapshot(request, body["snapshot_id"])
        annotations[SNAPSHOT_ANNOTATION] = snapshot.id
    size = _size(body, snapshot.size if snapshot else None, "snapshot")
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": f"{size}Gi"}}}
    if body.get("volume_type"):
        spec["storageClassName"] = body["volume_type"]
    if snapshot is not None:
        group = VOLUME_SNAPSHOT.group
        spec["dataSource"] = {"apiGroup": group, "kind": VOLUME_SNAPSHOT.kind, "name": snapshot.source.name}
    claim = {"metadata": {"annotations": annotations}, "spec": spec}
    created = await object_annotations.create(request.kube, PVC, request.project, body.get("name"), claim)
    return NamespaceVolumes([PersistentVolumeClaim.model_validate(created)], [], [], []).volumes()[0]


async def _create_from_backup(request: ApiRequest, body: dict[str, Any]) -> Volume:
    backup = await find_backup(request.kube, request.project, body["backup_id"])
    if status_of(backup, request.version) != "available":
        raise InvalidInput("Invalid backup: Originating backup status must be one of 'available' values")
    size = _size(body, own_status(backup).size, "backup")
    annotations = object_annotations.to_annotations(
        body.get("name"),
        body.get("description"),
        body.get("metadata") or object_annotations.saved_metadata(backup.metadata),
    )
    display_name = body.get("name") or f"restore_backup_{backup.backup_id}"
    target = {"name": await free_name(request, display_name), "size": f"{size}Gi", "annotations": annotations}
    if body.get("volume_type"):
        target["storageClassName"] = body["volume_type"]
    created = await create_restore(request, backup, target, display_name)
    return NamespaceVolumes([], [], [backup], [created]).volumes()[0]


def _size(body: dict[str, Any], minimum: int | None, source: str) -> int:
    """Return the requested size in GiB, or the size of the source. ``source`` is its name in errors."""
    if body.get("size") is None:
        if minimum is None:
            raise InvalidInput(
                "The server could not comply with the request since it is either malformed or otherwise incorrect."
            )
        return minimum
    size = int(body["size"])
    if size < 1:
        raise InvalidInput(f"Invalid input received: Volume size '{size}' must be an integer and greater than 0")
    if minimum is not None and size < minimum:
        raise InvalidInput(
            f"Invalid input received: Volume size {size}GB cannot be smaller than the {source} size {minimum}GB."
            f" It must be >= {source} size."
        )
    return size
