"""Update of a backup's name, description and metadata. Nothing else can change."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.errors import InvalidInput
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view
from cinderblock.gateway.resources.backups.find import find
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import VOLUME_BACKUP


def schema(minor: int) -> Schema:
    """cinder/api/schemas/backups.py ``update`` and ``update_backup_v343``."""
    properties: dict[str, Schema] = {"name": validation.NAME, "description": validation.DESCRIPTION}
    if minor >= 43:
        properties["metadata"] = validation.metadata("object")
    return validation.strict_object(
        {"backup": validation.strict_object(properties, types=("object", "null"))}, "backup"
    )


async def update(request: ApiRequest) -> ApiResponse:
    """Change the given fields. Metadata is replaced as a whole."""
    body = request.validated(schema(request.version.minor))["backup"]
    if body is None:
        raise InvalidInput("Invalid input for field/attribute backup. Value: None. None is not of type 'object'")
    backup = await find(request.kube, request.project, request.path["backup_id"])
    patch = _patch(body, backup)
    if patch:
        patch = {"metadata": {"uid": backup.uid}, "spec": patch}
        changed = await request.kube.merge_patch(VOLUME_BACKUP, backup.name, request.project, patch)
        backup = VolumeBackup.model_validate(changed)
    return ApiResponse(200, {"backup": view.summary(backup, request.links)})


def _patch(body: dict[str, Any], backup: VolumeBackup) -> dict[str, Any]:
    """Return the merge patch of the spec (RFC 7386)."""
    patch: dict[str, Any] = {key: validation.strip(body[key]) for key in ("name", "description") if key in body}
    if "metadata" in body:
        patch["metadata"] = dict.fromkeys(backup.spec.metadata) | body["metadata"]
    return patch


UPDATE: Final = Operation(
    "PUT",
    "/backups/{backup_id}",
    update,
    "Update a backup",
    "backup:update",
    {200: backups_schemas.BACKUP},
    body=schema(43),
    since=9,
    in_v2=False,
)
