"""Updating a backup: name, description and metadata, which are all that may change."""

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


async def update(call: ApiRequest) -> ApiResponse:
    """Change what is given, and leave the rest; metadata is replaced as a whole."""
    asked = call.checked(schema(call.version.minor))["backup"]
    if asked is None:
        raise InvalidInput("Invalid input for field/attribute backup. Value: None. None is not of type 'object'")
    backup = await find(call.kube, call.project, call.path["backup_id"])
    patch = _patch(asked, backup)
    if patch:
        metadata = {"uid": backup.uid}
        body = {"metadata": metadata, "spec": patch}
        changed = await call.kube.merge_patch(VOLUME_BACKUP, backup.name, call.project, body)
        backup = VolumeBackup.model_validate(changed)
    return ApiResponse(200, {"backup": view.summary(backup, call.links)})


def _patch(asked: dict[str, Any], backup: VolumeBackup) -> dict[str, Any]:
    """What changes in the spec (RFC 7386)."""
    patch: dict[str, Any] = {key: validation.stripped(asked[key]) for key in ("name", "description") if key in asked}
    if "metadata" in asked:
        patch["metadata"] = dict.fromkeys(backup.spec.metadata) | asked["metadata"]
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
