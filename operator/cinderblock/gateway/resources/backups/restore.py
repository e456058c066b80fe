"""Restore of a backup: creates a VolumeRestore, and returns the id of the volume that it creates or overwrites."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.quantity import to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.auth import user_name
from cinderblock.gateway.resources import object_annotations, object_names
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view
from cinderblock.gateway.resources.backups.find import find
from cinderblock.gateway.resources.backups.gather import if_permitted, pods_using, restores_into
from cinderblock.gateway.resources.volumes.ids import find_claim, volume_id
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import PVC, VOLUME_RESTORE

_RESTORABLE: Final = frozenset({BackupPhase.AVAILABLE, BackupPhase.ERROR_RESTORING})

_DESCRIPTION: Final = "auto-created_from_restore_from_backup"
"""Cinder's description of a volume that a restore creates (cinder/backup/api.py ``API.restore``)."""

SCHEMA: Final[Schema] = validation.strict_object(
    {
        "restore": validation.strict_object(
            {"name": validation.NAME, "volume_id": validation.UUID_OR_NULL}, types=("object", "null")
        )
    },
    "restore",
)
"""cinder/api/schemas/backups.py ``restore``"""


async def restore(request: ApiRequest) -> ApiResponse:
    """Restore the backup into an existing volume or a new one. ``volume_id`` takes precedence over ``name``."""
    body = request.validated(SCHEMA)["restore"]
    if body is None:
        raise InvalidInput("Invalid input for field/attribute restore. Value: None. None is not of type 'object'")
    backup = await find(request.kube, request.project, request.path["backup_id"])
    if view.phase_of(backup) not in _RESTORABLE:
        raise InvalidInput("Invalid backup: Backup status must be available")
    if body.get("volume_id") is not None:
        return await _into_existing(request, backup, body["volume_id"])
    return await _into_new(request, backup, body.get("name"))


async def _into_existing(request: ApiRequest, backup: VolumeBackup, identifier: str) -> ApiResponse:
    claim = await find_claim(request.kube, request.project, identifier)
    if claim is None:
        raise NotFound(f"Volume {identifier} could not be found.")
    await _check_target(request, backup, claim)
    await create_restore(request, backup, {"volumeId": claim.uid}, claim.name)
    return _response(backup, volume_id(claim), object_annotations.name_of(claim.metadata) or claim.name)


async def _check_target(request: ApiRequest, backup: VolumeBackup, claim: PersistentVolumeClaim) -> None:
    """Check that the volume is available and large enough, in Cinder's order. Raises InvalidInput."""
    users, restores = await asyncio.gather(
        if_permitted(pods_using(request.kube, claim)), restores_into(request.kube, request.project, claim)
    )
    running = any(_is_running(restore) for restore in restores)
    if users or running or claim.metadata.is_being_deleted or not claim.is_bound:
        raise InvalidInput("Invalid volume: Volume to be restored to must be available")
    available, required = to_gib(claim.capacity_bytes), view.own_status(backup).size or 0
    if available < required:
        raise InvalidInput(
            f"Invalid volume: volume size {available} is too small to restore backup of size {required}."
        )


def _is_running(restore: VolumeRestore) -> bool:
    return restore.status.phase in (None, RestorePhase.RESTORING)


async def _into_new(request: ApiRequest, backup: VolumeBackup, name: str | None) -> ApiResponse:
    """Restore into a new volume. Its id is the VolumeRestore's UID, because its claim appears only when complete."""
    display_name = validation.strip(name) or f"restore_backup_{backup.backup_id}"
    metadata = object_annotations.saved_metadata(backup.metadata)
    annotations = object_annotations.to_annotations(display_name, _DESCRIPTION, metadata)
    target = {"name": await free_name(request, display_name), "annotations": annotations}
    created = await create_restore(request, backup, target, display_name)
    return _response(backup, created.uid, display_name)


async def free_name(request: ApiRequest, display_name: str) -> str:
    """Return a name like ``display_name`` that no claim has and no VolumeRestore will create."""
    claims, restores = await asyncio.gather(
        request.kube.list(PVC, request.project), request.kube.list(VOLUME_RESTORE, request.project)
    )
    taken = {claim["metadata"]["name"] for claim in claims} | {item["spec"].get("name") for item in restores}
    name = slug = object_names.slug(display_name, "volume", 63)
    number = 2
    while name in taken:
        name, number = f"{slug}-{number}", number + 1
    return name


async def create_restore(
    request: ApiRequest, backup: VolumeBackup, target: dict[str, Any], display_name: str
) -> VolumeRestore:
    """Create a VolumeRestore of ``backup`` with ``target`` in its spec."""
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(request.kube)}
    body = {
        "metadata": object_names.metadata(request.project, f"restore-{display_name}", "restore", annotations),
        "spec": {"backupId": backup.backup_id} | target,
    }
    return VolumeRestore.model_validate(await request.kube.create(VOLUME_RESTORE, body))


def _response(backup: VolumeBackup, volume: str, display_name: str) -> ApiResponse:
    restored = {"backup_id": backup.backup_id, "volume_id": volume, "volume_name": display_name}
    return ApiResponse(202, {"restore": restored})


RESTORE: Final = Operation(
    "POST",
    "/backups/{backup_id}/restore",
    restore,
    "Restore a backup",
    "backup:restore",
    {202: backups_schemas.RESTORE},
    body=SCHEMA,
)
