"""Restoring a backup: a VolumeRestore, and the id of the volume that it will make or overwrite."""

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
"""What Cinder says of a volume that it makes for a restore (cinder/backup/api.py ``API.restore``)."""

SCHEMA: Final[Schema] = validation.strict_object(
    {
        "restore": validation.strict_object(
            {"name": validation.NAME, "volume_id": validation.UUID_OR_NULL}, types=("object", "null")
        )
    },
    "restore",
)
"""cinder/api/schemas/backups.py ``restore``"""


async def restore(call: ApiRequest) -> ApiResponse:
    """Write the backup into an existing volume, or a new one. ``volume_id`` wins over ``name``."""
    asked = call.checked(SCHEMA)["restore"]
    if asked is None:
        raise InvalidInput("Invalid input for field/attribute restore. Value: None. None is not of type 'object'")
    backup = await find(call.kube, call.project, call.path["backup_id"])
    if view.phase_of(backup) not in _RESTORABLE:
        raise InvalidInput("Invalid backup: Backup status must be available")
    if asked.get("volume_id") is not None:
        return await _into_existing(call, backup, asked["volume_id"])
    return await _into_new(call, backup, asked.get("name"))


async def _into_existing(call: ApiRequest, backup: VolumeBackup, identifier: str) -> ApiResponse:
    claim = await find_claim(call.kube, call.project, identifier)
    if claim is None:
        raise NotFound(f"Volume {identifier} could not be found.")
    await _refuse_target(call, backup, claim)
    await create_restore(call, backup, {"volumeId": claim.uid}, claim.name)
    return _reply(backup, volume_id(claim), object_annotations.name_of(claim.metadata) or claim.name)


async def _refuse_target(call: ApiRequest, backup: VolumeBackup, claim: PersistentVolumeClaim) -> None:
    """Raises InvalidInput if the volume is not available, or too small, in Cinder's order."""
    users, restores = await asyncio.gather(
        if_permitted(pods_using(call.kube, claim)), restores_into(call.kube, call.project, claim)
    )
    running = any(_is_running(restore) for restore in restores)
    if users or running or claim.metadata.is_being_deleted or not claim.is_bound:
        raise InvalidInput("Invalid volume: Volume to be restored to must be available")
    have, need = to_gib(claim.capacity_bytes), view.own_status(backup).size or 0
    if have < need:
        raise InvalidInput(f"Invalid volume: volume size {have} is too small to restore backup of size {need}.")


def _is_running(restore: VolumeRestore) -> bool:
    return restore.status.phase in (None, RestorePhase.RESTORING)


async def _into_new(call: ApiRequest, backup: VolumeBackup, name: str | None) -> ApiResponse:
    """The claim is there only when it is whole: until then the VolumeRestore's UID is the volume's id, and after."""
    called = validation.stripped(name) or f"restore_backup_{backup.backup_id}"
    notes = object_annotations.to_annotations(called, _DESCRIPTION, object_annotations.kept_metadata(backup.metadata))
    made = await create_restore(call, backup, {"name": await free_name(call, called), "annotations": notes}, called)
    return _reply(backup, made.uid, called)


async def free_name(call: ApiRequest, called: str) -> str:
    """A name for a new claim: like ``called``, and taken neither by a claim nor by a restore that makes one."""
    claims, restores = await asyncio.gather(
        call.kube.list(PVC, call.project), call.kube.list(VOLUME_RESTORE, call.project)
    )
    taken = {claim["metadata"]["name"] for claim in claims} | {item["spec"].get("name") for item in restores}
    wanted = object_names.slug(called, "volume", 63)
    number = 2
    free = wanted
    while free in taken:
        free, number = f"{wanted}-{number}", number + 1
    return free


async def create_restore(call: ApiRequest, backup: VolumeBackup, target: dict[str, Any], called: str) -> VolumeRestore:
    """Make a VolumeRestore of ``backup`` with this ``target`` in its spec."""
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(call.kube)}
    body = {
        "metadata": object_names.metadata(call.project, f"restore-{called}", "restore", annotations),
        "spec": {"backupId": backup.backup_id} | target,
    }
    return VolumeRestore.model_validate(await call.kube.create(VOLUME_RESTORE, body))


def _reply(backup: VolumeBackup, volume: str, called: str) -> ApiResponse:
    return ApiResponse(202, {"restore": {"backup_id": backup.backup_id, "volume_id": volume, "volume_name": called}})


RESTORE: Final = Operation(
    "POST",
    "/backups/{backup_id}/restore",
    restore,
    "Restore a backup",
    "backup:restore",
    {202: backups_schemas.RESTORE},
    body=SCHEMA,
)
