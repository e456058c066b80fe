"""Deletion of a backup, and the two actions of administrators: forced deletion, and resetting the status."""

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
_RESET_MESSAGE: Final = "The status was reset"
_RESET_STATUSES: Final = ("available", "error")

RESET_SCHEMA: Final[Schema] = validation.strict_object(
    {"os-reset_status": validation.strict_object({"status": {"type": "string"}}, "status")},
    "os-reset_status",
)
"""cinder/api/schemas/admin_actions.py ``reset_status_backup``"""


async def delete(request: ApiRequest) -> ApiResponse:
    """Delete a backup that has ended and that no other backup needs."""
    backup = await find(request.kube, request.project, request.path["backup_id"])
    if view.phase_of(backup) not in _DELETABLE:
        raise InvalidInput("Invalid backup: Backup status must be available or error")
    await _delete(request, backup)
    return ApiResponse(202)


async def run_action(request: ApiRequest) -> ApiResponse:
    """Run the action that the only key of the body names."""
    name, body = _action(request)
    backup_id = request.path["backup_id"]
    if name == "os-force_delete":
        await _delete(request, await find(request.kube, request.project, backup_id))
        return ApiResponse(202)
    if name != "os-reset_status":
        raise InvalidInput(
            f"There is no such action: {name}. Verify the request body and Content-Type header and try again."
        )
    validation.check(body, RESET_SCHEMA)
    status = body["os-reset_status"]["status"].lower()
    if status not in _RESET_STATUSES:
        requested = body["os-reset_status"]["status"]
        raise InvalidInput(f"Backup status: {requested} is invalid, valid statuses are: {list(_RESET_STATUSES)}.")
    await _reset(request, await find(request.kube, request.project, backup_id), BackupPhase(status))
    return ApiResponse(202)


def _action(request: ApiRequest) -> tuple[str | None, dict[str, dict[str, str]]]:
    """Return the name of the action, and the body (cinder/api/openstack/wsgi.py ``Resource.get_method``)."""
    if not request.body:
        return None, {}
    body = request.json()
    if not isinstance(body, dict) or not body:
        raise InvalidInput("Malformed request body")
    return next(iter(body)), body


async def _delete(request: ApiRequest, backup: VolumeBackup) -> None:
    """Delete a backup unless others depend on it. The operator checks this again before it removes data."""
    if await select(request.kube, request.project, {"status.parentId": backup.backup_id}):
        raise InvalidInput("Invalid backup: Incremental backups exist for this backup.")
    await request.kube.delete(VOLUME_BACKUP, backup.name, request.project, uid=backup.uid)


async def _reset(request: ApiRequest, backup: VolumeBackup, phase: BackupPhase) -> None:
    """Set the phase, which requires the right to patch ``volumebackups/status``.

    ``available`` means that the operator has read the manifest, so only a backup that was complete can return to it.
    """
    status = view.own_status(backup)
    if phase is BackupPhase.AVAILABLE and status.stored_bytes is None:
        raise InvalidInput("Invalid backup: It was never completed, so it cannot become available.")
    patch = reset_patch(backup, phase, datetime.now(UTC))
    try:
        await request.kube.merge_patch(VOLUME_BACKUP, backup.name, request.project, patch, subresource="status")
    except Conflict:
        raise Conflict(
            f"Cannot reset the status of backup {backup.backup_id}: it was changed at the same time. Try again."
        ) from None


def reset_patch(backup: VolumeBackup, phase: BackupPhase, now: datetime) -> dict[str, Any]:
    """Return the merge patch (RFC 7386). The operator keeps the phase ``error``, and derives every other phase."""
    status = view.own_status(backup)
    reset: dict[str, Any] = {"phase": phase.value, "failReason": _RESET_MESSAGE if phase is BackupPhase.ERROR else None}
    if phase is BackupPhase.ERROR:
        generation = backup.metadata.generation
        stalled = conditions.stalled(status.conditions, now, generation, Reason.STATUS_RESET, _RESET_MESSAGE)
        reset["conditions"] = [condition.model_dump(mode="json", by_alias=True) for condition in stalled]
    return {
        "metadata": {"resourceVersion": backup.metadata.resource_version},
        "status": {to_camel(key): value for key, value in identity(backup).items()} | reset,
    }


DELETE: Final = Operation(
    "DELETE", "/backups/{backup_id}", delete, "Delete a backup", "backup:delete", {202: None}, v2_code=204
)
ACTION: Final = Operation(
    "POST",
    "/backups/{backup_id}/action",
    run_action,
    "Delete a backup by force (os-force_delete), or reset its status (os-reset_status)",
    "volume_extension:backup_admin_actions",
    {202: None},
    body=backups_schemas.BACKUP_ACTION,
)
