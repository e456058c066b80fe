"""``/snapshots``: VolumeSnapshots as Cinder's snapshots, as far as clients for backups need them."""

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
from cinderblock.gateway.rest.list_query import ListSpec, parse_query
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.pagination import make_page
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
"""Microversions: three that added fields, and the first that ignores ``force`` for volumes in use."""

LIST_SPEC: Final[ListSpec[Snapshot]] = ListSpec(
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


def summary(snapshot: Snapshot, request: ApiRequest) -> dict[str, Any]:
    """Return the fields that all responses have (cinder/api/views/snapshots.py)."""
    meta = snapshot.source.metadata
    fields: dict[str, Any] = {
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
    if request.at_least(_GROUP):
        fields["group_snapshot_id"] = None
    if request.at_least(_USER):
        fields["user_id"] = meta.annotations.get(CREATED_BY_ANNOTATION, "")
    if request.at_least(_QUOTA):
        fields["consumes_quota"] = True
    return fields


def detail(snapshot: Snapshot, request: ApiRequest) -> dict[str, Any]:
    """Return the fields of a single snapshot and of lists with details."""
    extended = "os-extended-snapshot-attributes"
    progress = "100%" if snapshot.source.status.ready_to_use else "0%"
    return summary(snapshot, request) | {f"{extended}:progress": progress, f"{extended}:project_id": request.project}


async def index(request: ApiRequest) -> ApiResponse:
    """List snapshots."""
    return await _list(request, "/snapshots", summary)


async def details(request: ApiRequest) -> ApiResponse:
    """List snapshots with all their fields."""
    return await _list(request, "/snapshots/detail", detail)


async def _list(request: ApiRequest, path: str, view: Callable[[Snapshot, ApiRequest], dict[str, Any]]) -> ApiResponse:
    query = parse_query(request, LIST_SPEC)
    page = make_page(await gather(request), query, LIST_SPEC, request, path)
    return ApiResponse(200, {"snapshots": [view(snapshot, request) for snapshot in page.items], **page.extra})


async def show(request: ApiRequest) -> ApiResponse:
    """Show one snapshot."""
    return ApiResponse(200, {"snapshot": detail(await find(request, request.path["snapshot_id"]), request)})


async def create(request: ApiRequest) -> ApiResponse:
    """Take a snapshot of a volume."""
    body = object_annotations.normalize(request.validated(_CREATE)["snapshot"])
    identifier = body["volume_id"]
    if identifier is None:
        raise NotFound("Volume None could not be found.")
    volume, _ = await find_volume(request, identifier)
    _check_status(volume.status, volume.id, body, request)
    manifest = {
        "metadata": {
            "annotations": object_annotations.to_annotations(
                body.get("name"), body.get("description"), body.get("metadata")
            )
        },
        "spec": {"source": {"persistentVolumeClaimName": volume.source.name}},
    }
    created = await object_annotations.create(
        request.kube, VOLUME_SNAPSHOT, request.project, body.get("name"), manifest
    )
    claims = {volume.source.name: volume.source} if isinstance(volume.source, PersistentVolumeClaim) else {}
    return ApiResponse(
        202, {"snapshot": summary(to_snapshot(VolumeSnapshot.model_validate(created), claims, []), request)}
    )


def _check_status(status: str, identifier: str, body: dict[str, Any], request: ApiRequest) -> None:
    """Check the volume's status. A volume in use requires ``force``; from 3.66 on, ``force=false`` is invalid."""
    force = body.get("force")
    if request.at_least(_IN_USE):
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


async def update(request: ApiRequest) -> ApiResponse:
    """Change a snapshot's name or description."""
    body = object_annotations.normalize(request.validated(_UPDATE)["snapshot"])
    snapshot = await find(request, request.path["snapshot_id"])
    patch = {"metadata": {"annotations": object_annotations.changes(body), "uid": snapshot.source.uid}}
    await request.kube.merge_patch(VOLUME_SNAPSHOT, snapshot.source.name, request.project, patch)
    return ApiResponse(200, {"snapshot": summary(await find(request, snapshot.id), request)})


async def delete(request: ApiRequest) -> ApiResponse:
    """Delete a snapshot."""
    snapshot = await find(request, request.path["snapshot_id"])
    if snapshot.status not in ("available", "error"):
        raise InvalidInput(
            "Invalid snapshot: Snapshot status must be available or error and must not be part of a group."
        )
    await request.kube.delete(VOLUME_SNAPSHOT, snapshot.source.name, request.project, uid=snapshot.source.uid)
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
