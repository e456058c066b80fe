"""Creating a backup: what Cinder refuses at once is refused at once, and leaves nothing behind.

The rules are the operator's own (`lifecycle.checks`), asked of what the caller may see. What the caller may not see is
not held against the backup here: the operator asks again, and sees everything.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import Container
from cinderblock.errors import AccessDenied, InvalidInput, NotFound
from cinderblock.gateway.auth import user_name
from cinderblock.gateway.resources import object_annotations, object_names
from cinderblock.gateway.resources.backups import schemas as backups_schemas
from cinderblock.gateway.resources.backups import view
from cinderblock.gateway.resources.backups.gather import gather
from cinderblock.gateway.rest import validation
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import snapshot_checks
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

_CONTAINER: Final = TypeAdapter[str | None](Container | None)
_NOT_FOUND: Final = frozenset({Reason.VOLUME_NOT_FOUND, Reason.SNAPSHOT_NOT_FOUND})


def schema(minor: int) -> Schema:
    """cinder/api/schemas/backups.py ``create``, ``create_backup_v343`` and ``create_backup_v351``."""
    properties: dict[str, Schema] = {
        "volume_id": validation.UUID,
        "container": validation.NAME,
        "description": validation.DESCRIPTION,
        "incremental": validation.BOOLEAN,
        "force": validation.BOOLEAN,
        "name": validation.NAME,
        "snapshot_id": validation.UUID_OR_NULL,
    }
    if minor >= 43:
        properties["metadata"] = validation.metadata("object", "null")
    if minor >= 51:
        properties["availability_zone"] = validation.NAME
    return validation.strict_object({"backup": validation.strict_object(properties, "volume_id")}, "backup")


async def create(call: ApiRequest) -> ApiResponse:
    """Make a VolumeBackup, if nothing that can be seen now speaks against it."""
    asked = call.checked(schema(call.version.minor))["backup"]
    _check_container(asked.get("container"))
    observed = await gather(call.kube, call.project, asked)
    _refuse(observed, asked)
    assert observed.claim is not None
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(call.kube)} | object_annotations.metadata_to_keep(
        observed.claim.metadata
    )
    body = {
        "metadata": object_names.metadata(call.project, asked.get("name"), "backup", annotations),
        "spec": _spec(asked, observed.claim.uid),
    }
    try:
        created = VolumeBackup.model_validate(await call.kube.create(VOLUME_BACKUP, body))
    except AccessDenied as error:
        raise limit_exceeded(error) if error.reason == Reason.QUOTA_EXCEEDED else error from None
    return ApiResponse(202, {"backup": view.summary(created, call.links)})


def _check_container(name: str | None) -> None:
    """Cinder leaves it to its driver what a container may be called, and so fails later."""
    try:
        _CONTAINER.validate_python(name or None)
    except ValidationError:
        raise InvalidInput(
            f"Invalid input for field/attribute container. Value: {name}. {name!r} is not the name of an S3 bucket"
        ) from None


def _spec(asked: dict[str, Any], volume_id: str) -> dict[str, Any]:
    """The request as a spec; what is not given is left out."""
    spec = {
        "volumeId": volume_id,
        "name": validation.stripped(asked.get("name")),
        "description": validation.stripped(asked.get("description")),
        "container": asked.get("container") or None,
        "snapshotId": asked.get("snapshot_id"),
        "availabilityZone": asked.get("availability_zone"),
        "metadata": asked.get("metadata") or None,
    }
    flags = {key: validation.is_true(asked[key]) for key in ("incremental", "force") if key in asked}
    return {key: value for key, value in spec.items() if value is not None} | flags


def _refuse(observed: ObservedBackup, asked: dict[str, Any]) -> None:
    """Raises what Cinder would, in its order: the volume, the snapshot or the volume's status, the parent.

    What a VolumeBackup would wait for is refused here: a caller of Cinder's API asks again.
    """
    order: tuple[backup_checks.Check, ...] = (
        backup_checks.volume_exists,
        backup_checks.volume_is_bound,
        _no_operation_runs,
        snapshot_checks.given_snapshot_fits,
        backup_checks.volume_is_free_or_forced,
        backup_checks.parent_is_there,
    )
    verdict = backup_checks.first_verdict(observed, order)
    if verdict is None:
        return
    if verdict.reason == Reason.SNAPSHOT_MISMATCH and observed.given_snapshot is not None:
        source = observed.given_snapshot.spec.source.persistent_volume_claim_name
        raise InvalidInput(
            f"Invalid volume: Volume {asked['volume_id']} does not match with snapshot.volume_id {source}."
        )
    if verdict.reason in _NOT_FOUND:
        raise NotFound(verdict.message)
    raise InvalidInput(verdict.message, reason=verdict.reason)


def _no_operation_runs(observed: ObservedBackup) -> Fail | None:
    """Cinder: a volume that is being backed up or restored to is neither available nor in use."""
    if observed.claim is None or observed.backup.spec.snapshot_id is not None:
        return None
    for status, backups, restores in (
        ("backing-up", observed.siblings, ()),
        ("restoring-backup", (), observed.restores),
    ):
        if volume_lock.wait_for_volume(observed.backup, observed.claim, backups, restores) is not None:
            return Fail(Reason.VOLUME_BUSY, backup_checks.not_available(status))
    return None


def limit_exceeded(error: AccessDenied) -> AccessDenied:
    """A ResourceQuota on VolumeBackups in Cinder's words; its numbers are those that the API server tells."""
    found = re.search(r"limited: \S*=(\d+)", error.message)
    number = f" ({found[1]})" if found else ""
    return AccessDenied(
        f"BackupLimitExceeded: Maximum number of backups allowed{number} exceeded", reason=Reason.QUOTA_EXCEEDED
    )


CREATE: Final = Operation(
    "POST", "/backups", create, "Create a backup", "backup:create", {202: backups_schemas.BACKUP}, body=schema(51)
)
