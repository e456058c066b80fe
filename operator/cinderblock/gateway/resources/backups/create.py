"""Creation of a backup. Requests that Cinder rejects at once are rejected at once, and create no object.

The checks are the operator's own (`lifecycle.backup.checks`), applied to the objects that the caller may read. Others
do not matter here: the operator checks again, and can read all of them.
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


async def create(request: ApiRequest) -> ApiResponse:
    """Create a VolumeBackup if no check on the current objects fails."""
    body = request.validated(schema(request.version.minor))["backup"]
    _check_container(body.get("container"))
    observed = await gather(request.kube, request.project, body)
    _check(observed, body)
    assert observed.claim is not None
    annotations = {labels.CREATED_BY_ANNOTATION: await user_name(request.kube)} | object_annotations.metadata_to_save(
        observed.claim.metadata
    )
    backup = {
        "metadata": object_names.metadata(request.project, body.get("name"), "backup", annotations),
        "spec": _spec(body, observed.claim.uid),
    }
    try:
        created = VolumeBackup.model_validate(await request.kube.create(VOLUME_BACKUP, backup))
    except AccessDenied as error:
        raise limit_exceeded(error) if error.reason == "QuotaExceeded" else error from None
    return ApiResponse(202, {"backup": view.summary(created, request.links)})


def _check_container(name: str | None) -> None:
    """Check the name of the container. Cinder leaves this to its driver, and fails later."""
    try:
        _CONTAINER.validate_python(name or None)
    except ValidationError:
        raise InvalidInput(
            f"Invalid input for field/attribute container. Value: {name}. {name!r} is not the name of an S3 bucket"
        ) from None


def _spec(body: dict[str, Any], volume_id: str) -> dict[str, Any]:
    """Return the spec for a request, without fields that are not given."""
    spec = {
        "volumeId": volume_id,
        "name": validation.strip(body.get("name")),
        "description": validation.strip(body.get("description")),
        "container": body.get("container") or None,
        "snapshotId": body.get("snapshot_id"),
        "availabilityZone": body.get("availability_zone"),
        "metadata": body.get("metadata") or None,
    }
    flags = {key: validation.is_true(body[key]) for key in ("incremental", "force") if key in body}
    return {key: value for key, value in spec.items() if value is not None} | flags


def _check(observed: ObservedBackup, body: dict[str, Any]) -> None:
    """Run the checks in Cinder's order: the volume, the snapshot or the volume's status, the parent.

    Where a VolumeBackup would wait, this rejects the request: callers of Cinder's API try again.
    """
    order: tuple[backup_checks.Check, ...] = (
        backup_checks.volume_exists,
        backup_checks.volume_is_bound,
        _no_operation_runs,
        snapshot_checks.given_snapshot_fits,
        backup_checks.volume_is_free_or_forced,
        backup_checks.parent_is_there,
        backup_checks.store_is_writable,
    )
    verdict = backup_checks.first_verdict(observed, order)
    if verdict is None:
        return
    if verdict.reason == Reason.SNAPSHOT_MISMATCH and observed.given_snapshot is not None:
        source = observed.given_snapshot.spec.source.persistent_volume_claim_name
        raise InvalidInput(
            f"Invalid volume: Volume {body['volume_id']} does not match with snapshot.volume_id {source}."
        )
    if verdict.reason in _NOT_FOUND:
        raise NotFound(verdict.message)
    raise InvalidInput(verdict.message, reason=verdict.reason)


def _no_operation_runs(observed: ObservedBackup) -> Fail | None:
    """Fail if an operation runs on the volume: in Cinder, it is then neither available nor in use."""
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
    """Return Cinder's error for an exceeded ResourceQuota on VolumeBackups, with the API server's numbers."""
    found = re.search(r"limited: \S*=(\d+)", error.message)
    number = f" ({found[1]})" if found else ""
    return AccessDenied(
        f"BackupLimitExceeded: Maximum number of backups allowed{number} exceeded", reason=Reason.QUOTA_EXCEEDED
    )


CREATE: Final = Operation(
    "POST", "/backups", create, "Create a backup", "backup:create", {202: backups_schemas.BACKUP}, body=schema(51)
)
