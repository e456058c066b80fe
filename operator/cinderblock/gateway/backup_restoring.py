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
from cinderblock.gateway import answers, backup_views, described, object_names, schemas
from cinderblock.gateway.backup_lookups import find
from cinderblock.gateway.backup_worlds import pods_using, restores_into, seen
from cinderblock.gateway.calls import Call, Reply
from cinderblock.gateway.operations import Operation
from cinderblock.gateway.schemas import Schema
from cinderblock.gateway.users import user_name
from cinderblock.gateway.volume_ids import find_claim, volume_id
from cinderblock.kube.kinds import PVC, VOLUME_RESTORE

_RESTORABLE: Final = frozenset({BackupPhase.AVAILABLE, BackupPhase.ERROR_RESTORING})

_DESCRIPTION: Final = "auto-created_from_restore_from_backup"
"""What Cinder says of a volume that it makes for a restore (cinder/backup/api.py ``API.restore``)."""

SCHEMA: Final[Schema] = schemas.closed(
    {"restore": schemas.closed({"name": schemas.NAME, "volume_id": schemas.UUID_OR_NULL}, types=("object", "null"))},
    "restore",
)
"""cinder/api/schemas/backups.py ``restore``"""


async def restore(call: Call) -> Reply:
    """Write the backup into an existing volume, or a new one. ``volume_id`` wins over ``name``."""
    asked = call.checked(SCHEMA)["restore"]
    if asked is None:
        raise InvalidInput("Invalid input for field/attribute restore. Value: None. None is not of type 'object'")
    backup = await find(call.kube, call.project, call.path["backup_id"])
    if backup_views.phase_of(backup) not in _RESTORABLE:
        raise InvalidInput("Invalid backup: Backup status must be available")
    if asked.get("volume_id") is not None:
        return await _into_existing(call, backup, asked["volume_id"])
    return await _into_new(call, backup, asked.get("name"))


async def _into_existing(call: Call, backup: VolumeBackup, identifier: str) -> Reply:
    claim = await find_claim(call.kube, call.project, identifier)
    if claim is None:
        raise NotFound(f"Volume {identifier} could not be found.")
    await _refuse_target(call, backup, claim)
    await create_restore(call, backup, {"volumeId": claim.uid}, claim.name)
    return _reply(backup, volume_id(claim), described.name_of(claim.metadata) or claim.name)


async def _refuse_target(call: Call, backup: VolumeBackup, claim: PersistentVolumeClaim) -> None:
    """Raises InvalidInput if the volume is not available, or too small, in Cinder's order."""
    users, restores = await asyncio.gather(
        seen(pods_using(call.kube, claim)), restores_into(call.kube, call.project, claim)
    )
    running = any(_is_running(restore) for restore in restores)
    if users or running or claim.metadata.is_being_deleted or not claim.is_bound:
        raise InvalidInput("Invalid volume: Volume to be restored to must be available")
    have, need = to_gib(claim.capacity_bytes), backup_views.own_status(backup).size or 0
    if have < need:
        raise InvalidInput(f"Invalid volume: volume size {have} is too small to restore backup of size {need}.")


def _is_running(restore: VolumeRestore) -> bool:
    return restore.status.phase in (None, RestorePhase.RESTORING)


async def _into_new(call: Call, backup: VolumeBackup, name: str | None) -> Reply:
    """The claim is there only when it is whole: until then the VolumeRestore's UID is the volume's id, and after."""
    called = schemas.stripped(name) or f"restore_backup_{backup.backup_id}"
    notes = described.notes(called, _DESCRIPTION, described.kept_metadata(backup.metadata))
    made = await create_restore(call, backup, {"name": await free_name(call, called), "annotations": notes}, called)
    return _reply(backup, made.uid, called)


async def free_name(call: Call, called: str) -> str:
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


async def create_restore(call: Call, backup: VolumeBackup, target: dict[str, Any], called: str) -> VolumeRestore:
    """Make a VolumeRestore of ``backup`` with this ``target`` in its spec."""
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(call.kube)}
    body = {
        "metadata": object_names.metadata(call.project, f"restore-{called}", "restore", annotations),
        "spec": {"backupId": backup.backup_id} | target,
    }
    return VolumeRestore.model_validate(await call.kube.create(VOLUME_RESTORE, body))


def _reply(backup: VolumeBackup, volume: str, called: str) -> Reply:
    return Reply(202, {"restore": {"backup_id": backup.backup_id, "volume_id": volume, "volume_name": called}})


RESTORE: Final = Operation(
    "POST",
    "/backups/{backup_id}/restore",
    restore,
    "Restore a backup",
    "backup:restore",
    {202: answers.RESTORE},
    body=SCHEMA,
)
