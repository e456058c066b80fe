"""``/snapshots``: VolumeSnapshots as Cinder's snapshots, as far as backups and their clients need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.labels import CREATED_BY_ANNOTATION
from cinderblock.errors import InvalidInput, NotFound
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.snapshots.gather import Snapshot, find, gather, to_snapshot
from cinderblock.gateway.resources.snapshots.schemas import SNAPSHOT, SNAPSHOT_DETAIL, SNAPSHOT_DETAILS, SNAPSHOTS
from cinderblock.gateway.resources.volumes.gather import find as find_volume
from cinderblock.gateway.resources.volumes.schemas import LIST_QUERY
from cinderblock.gateway.rest import pagination
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.pagination import ListSpec
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.timestamps import format_timestamp
from cinderblock.gateway.rest.validation import (
    BOOLEAN,
    DESCRIPTION,
    NAME,
    UUID_OR_NULL,
    is_true,
    metadata,
    strict_object,
)
from cinderblock.kube.kinds import VOLUME_SNAPSHOT

_GROUP, _USER, _QUOTA, _IN_USE = 14, 41, 65, 66
"""Microversions that have added something: the last takes snapshots of volumes in use without being forced."""

RULES: Final[ListSpec[Snapshot]] = ListSpec(
    noun="Snapshot",
    collection="snapshots",
    columns={
        "id": lambda snapshot: snapshot.id,
        "created_at": lambda snapshot: snapshot.source.metadata.creation_timestamp,
        "updated_at": lambda _: None,
        "name": lambda snapshot: snapshot.name,
        "display_name": lambda snapshot: snapshot.name,
        "status": lambda snapshot: snapshot.status,
        "volume_id": lambda snapshot: snapshot.volume_id,
        "volume_size": lambda snapshot: snapshot.size,
    },
    filters=frozenset({"name", "status", "volume_id"}),
    newer_sort_keys={"name": 37},
)

_CREATE: Final = strict_object(
    {
        "snapshot": strict_object(
            {
                "name": NAME,
                "display_name": NAME,
                "description": DESCRIPTION,
                "volume_id": UUID_OR_NULL,
                "force": BOOLEAN,
                "metadata": metadata("object", "null"),
            },
            "volume_id",
        )
    },
    "snapshot",
)
_UPDATE: Final = strict_object(
    {
        "snapshot": {
            **strict_object(
                {
                    "name": NAME,
                    "description": DESCRIPTION,
                    "display_name": NAME,
                    "display_description": DESCRIPTION,
                }
            ),
            "anyOf": [{"required": [name]} for name in ("name", "description", "display_name", "display_description")],
        }
    },
    "snapshot",
)


def summary(snapshot: Snapshot, call: ApiRequest) -> dict[str, Any]:
    """A snapshot in every answer (cinder/api/views/snapshots.py)."""
    meta = snapshot.source.metadata
    found: dict[str, Any] = {
        "id": snapshot.id,
        "name": snapshot.name,
        "description": object_annotations.description_of(meta),
        "created_at": format_timestamp(meta.creation_timestamp),
        "updated_at": None,
        "status": snapshot.status,
        "size": snapshot.size,
        "volume_id": snapshot.volume_id,
        "metadata": object_annotations.metadata_of(meta),
    }
    if call.at_least(_GROUP):
        found["group_snapshot_id"] = None
    if call.at_least(_USER):
        found["user_id"] = meta.annotations.get(CREATED_BY_ANNOTATION, "")
    if call.at_least(_QUOTA):
        found["consumes_quota"] = True
    return found


def detail(snapshot: Snapshot, call: ApiRequest) -> dict[str, Any]:
    """A snapshot where it is shown alone or in a list with details."""
    extended = "os-extended-snapshot-attributes"
    progress = "100%" if snapshot.source.status.ready_to_use else "0%"
    return summary(snapshot, call) | {f"{extended}:progress": progress, f"{extended}:project_id": call.project}


async def index(call: ApiRequest) -> ApiResponse:
    """List snapshots."""
    return await _list(call, "/snapshots", summary)


async def details(call: ApiRequest) -> ApiResponse:
    """List snapshots with everything about them."""
    return await _list(call, "/snapshots/detail", detail)


async def _list(call: ApiRequest, path: str, view: Callable[[Snapshot, ApiRequest], dict[str, Any]]) -> ApiResponse:
    asked = pagination.parse_query(call, RULES)
    page = pagination.page(await gather(call), asked, RULES, call, path)
    return ApiResponse(200, {"snapshots": [view(snapshot, call) for snapshot in page.items], **page.more})


async def show(call: ApiRequest) -> ApiResponse:
    """Show one snapshot."""
    return ApiResponse(200, {"snapshot": detail(await find(call, call.path["snapshot_id"]), call)})


async def create(call: ApiRequest) -> ApiResponse:
    """Take a snapshot of a volume."""
    wanted = object_annotations.normalized(call.checked(_CREATE)["snapshot"])
    identifier = wanted["volume_id"]
    if identifier is None:
        raise NotFound("Volume None could not be found.")
    volume, _ = await find_volume(call, identifier)
    _check_status(volume.status, volume.id, wanted, call)
    body = {
        "metadata": {
            "annotations": object_annotations.to_annotations(
                wanted.get("name"), wanted.get("description"), wanted.get("metadata")
            )
        },
        "spec": {"source": {"persistentVolumeClaimName": volume.source.name}},
    }
    made = await object_annotations.create(call.kube, VOLUME_SNAPSHOT, call.project, wanted.get("name"), body)
    claims = {volume.source.name: volume.source} if isinstance(volume.source, PersistentVolumeClaim) else {}
    return ApiResponse(202, {"snapshot": summary(to_snapshot(VolumeSnapshot.model_validate(made), claims, []), call)})


def _check_status(status: str, identifier: str, wanted: dict[str, Any], call: ApiRequest) -> None:
    """Cinder: a volume in use must be forced; from 3.66 on it need not, and must not be told not to be."""
    force = wanted.get("force")
    if call.at_least(_IN_USE):
        if force is not None and not is_true(force):
            raise InvalidInput(
                "Since microversion 3.66 the 'force' flag is invalid for this request.  For backward compatability,"
                " however, when the 'force' flag is passed with a value evaluating to True, it is silently ignored."
            )
        force = True
    allowed = ("available", "in-use") if is_true(force) else ("available",)
    if status not in allowed:
        raise InvalidInput(
            f"Invalid volume: Volume {identifier} status must be {', '.join(allowed)}, but current status is: {status}."
        )


async def update(call: ApiRequest) -> ApiResponse:
    """Change a snapshot's name or description."""
    wanted = object_annotations.normalized(call.checked(_UPDATE)["snapshot"])
    snapshot = await find(call, call.path["snapshot_id"])
    patch = {"metadata": {"annotations": object_annotations.changes(wanted), "uid": snapshot.source.uid}}
    await call.kube.merge_patch(VOLUME_SNAPSHOT, snapshot.source.name, call.project, patch)
    return ApiResponse(200, {"snapshot": summary(await find(call, snapshot.id), call)})


async def delete(call: ApiRequest) -> ApiResponse:
    """Delete a snapshot."""
    snapshot = await find(call, call.path["snapshot_id"])
    if snapshot.status not in ("available", "error"):
        raise InvalidInput(
            "Invalid snapshot: Snapshot status must be available or error and must not be part of a group."
        )
    await call.kube.delete(VOLUME_SNAPSHOT, snapshot.source.name, call.project, uid=snapshot.source.uid)
    return ApiResponse(202)


OPERATIONS: Final = (
    Operation(
        "GET", "/snapshots", index, "List snapshots", "volume:get_all_snapshots", {200: SNAPSHOTS}, query=LIST_QUERY
    ),
    Operation(
        "GET",
        "/snapshots/detail",
        details,
        "List snapshots with details",
        "volume:get_all_snapshots",
        {200: SNAPSHOT_DETAILS},
        query=LIST_QUERY,
    ),
    Operation(
        "POST",
        "/snapshots",
        create,
        "Take a snapshot",
        "volume:create_snapshot",
        {202: SNAPSHOT},
        body=_CREATE,
    ),
    Operation(
        "GET", "/snapshots/{snapshot_id}", show, "Show a snapshot", "volume:get_snapshot", {200: SNAPSHOT_DETAIL}
    ),
    Operation(
        "PUT",
        "/snapshots/{snapshot_id}",
        update,
        "Update a snapshot",
        "volume:update_snapshot",
        {200: SNAPSHOT},
        body=_UPDATE,
    ),
    Operation("DELETE", "/snapshots/{snapshot_id}", delete, "Delete a snapshot", "volume:delete_snapshot", {202: None}),
)
