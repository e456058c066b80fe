"""Deleting a backup, and the two actions of administrators: deleting it by force, and resetting its status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from pydantic.alias_generators import to_camel

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import Conflict, InvalidInput
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view
from cinderblock.gateway.resources.backups.find import find, select
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.backup.checks import identity
from cinderblock.reasons import Reason

_DELETABLE: Final = frozenset({BackupPhase.AVAILABLE, BackupPhase.ERROR, BackupPhase.ERROR_RESTORING})
_RESET: Final = "The status was reset"
_RESETS: Final = ("available", "error")

RESET_SCHEMA: Final[Schema] = validation.strict_object(
    {"os-reset_status": validation.strict_object({"status": {"type": "string"}}, "status")},
    "os-reset_status",
)
"""cinder/api/schemas/admin_actions.py ``reset_status_backup``"""


async def delete(call: ApiRequest) -> ApiResponse:
    """Delete a backup that is at rest and that no other one needs."""
    backup = await find(call.kube, call.project, call.path["backup_id"])
    if view.phase_of(backup) not in _DELETABLE:
        raise InvalidInput("Invalid backup: Backup status must be available or error")
    await _delete(call, backup)
    return ApiResponse(202)


async def act(call: ApiRequest) -> ApiResponse:
    """Do what the only key of the body says."""
    name, body = _action(call)
    backup_id = call.path["backup_id"]
    if name == "os-force_delete":
        await _delete(call, await find(call.kube, call.project, backup_id))
        return ApiResponse(202)
    if name != "os-reset_status":
        raise InvalidInput(
            f"There is no such action: {name}. Verify the request body and Content-Type header and try again."
        )
    validation.check(body, RESET_SCHEMA)
    status = body["os-reset_status"]["status"].lower()
    if status not in _RESETS:
        given = body["os-reset_status"]["status"]
        raise InvalidInput(f"Backup status: {given} is invalid, valid statuses are: {list(_RESETS)}.")
    await _reset(call, await find(call.kube, call.project, backup_id), BackupPhase(status))
    return ApiResponse(202)


def _action(call: ApiRequest) -> tuple[str | None, dict[str, dict[str, str]]]:
    """The name of the action, and the body (cinder/api/openstack/wsgi.py ``Resource.get_method``)."""
    if not call.body:
        return None, {}
    body = call.json()
    if not isinstance(body, dict) or not body:
        raise InvalidInput("Malformed request body")
    return next(iter(body)), body


async def _delete(call: ApiRequest, backup: VolumeBackup) -> None:
    """Delete, unless others were made against it; the operator looks again before it removes anything."""
    if await select(call.kube, call.project, {"status.parentId": backup.backup_id}):
        raise InvalidInput("Invalid backup: Incremental backups exist for this backup.")
    await call.kube.delete(VOLUME_BACKUP, backup.name, call.project, uid=backup.uid)


async def _reset(call: ApiRequest, backup: VolumeBackup, phase: BackupPhase) -> None:
    """Set the phase, for which one needs the right to patch ``volumebackups/status``.

    ``available`` means that the operator has read the manifest, so only a backup that has been whole gets back to it.
    """
    status = view.own_status(backup)
    if phase is BackupPhase.AVAILABLE and status.stored_bytes is None:
        raise InvalidInput("Invalid backup: It was never completed, so it cannot become available.")
    patch = reset_patch(backup, phase, datetime.now(UTC))
    try:
        await call.kube.merge_patch(VOLUME_BACKUP, backup.name, call.project, patch, subresource="status")
    except Conflict:
        raise Conflict(f"Backup {backup.backup_id} has changed meanwhile: try again") from None


def reset_patch(backup: VolumeBackup, phase: BackupPhase, now: datetime) -> dict[str, Any]:
    """What resetting writes (RFC 7386); the operator takes a phase of error for final, and derives every other one."""
    status = view.own_status(backup)
    told: dict[str, Any] = {"phase": phase.value, "failReason": _RESET if phase is BackupPhase.ERROR else None}
    if phase is BackupPhase.ERROR:
        generation = backup.metadata.generation
        stalled = conditions.stalled(status.conditions, now, generation, Reason.STATUS_RESET, _RESET)
        told["conditions"] = [condition.model_dump(mode="json", by_alias=True) for condition in stalled]
    return {
        "metadata": {"resourceVersion": backup.metadata.resource_version},
        "status": {to_camel(key): value for key, value in identity(backup).items()} | told,
    }


DELETE: Final = Operation(
    "DELETE", "/backups/{backup_id}", delete, "Delete a backup", "backup:delete", {202: None}, v2_code=204
)
ACTION: Final = Operation(
    "POST",
    "/backups/{backup_id}/action",
    act,
    "Delete a backup by force (os-force_delete), or reset its status (os-reset_status)",
    "volume_extension:backup_admin_actions",
    {202: None},
    body=backups_schemas.BACKUP_ACTION,
)
