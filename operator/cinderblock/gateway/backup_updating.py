"""Updating a backup: name, description and metadata, which are all that may change."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.errors import InvalidInput
from cinderblock.gateway import answers, backup_views, schemas
from cinderblock.gateway.backup_lookups import find
from cinderblock.gateway.calls import Call, Reply
from cinderblock.gateway.operations import Operation
from cinderblock.gateway.schemas import Schema
from cinderblock.kube.kinds import VOLUME_BACKUP


def schema(minor: int) -> Schema:
    """cinder/api/schemas/backups.py ``update`` and ``update_backup_v343``."""
    properties: dict[str, Schema] = {"name": schemas.NAME, "description": schemas.DESCRIPTION}
    if minor >= 43:
        properties["metadata"] = schemas.metadata("object")
    return schemas.closed({"backup": schemas.closed(properties, types=("object", "null"))}, "backup")


async def update(call: Call) -> Reply:
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
    return Reply(200, {"backup": backup_views.summary(backup, call.links)})


def _patch(asked: dict[str, Any], backup: VolumeBackup) -> dict[str, Any]:
    """What changes in the spec (RFC 7386)."""
    patch: dict[str, Any] = {key: schemas.stripped(asked[key]) for key in ("name", "description") if key in asked}
    if "metadata" in asked:
        patch["metadata"] = dict.fromkeys(backup.spec.metadata) | asked["metadata"]
    return patch


UPDATE: Final = Operation(
    "PUT",
    "/backups/{backup_id}",
    update,
    "Update a backup",
    "backup:update",
    {200: answers.BACKUP},
    body=schema(43),
    since=9,
    in_v2=False,
)
