"""``/volumes``: PersistentVolumeClaims as Cinder's volumes, as far as clients for backups need them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.errors import InvalidInput
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.snapshots.gather import gather as gather_snapshots
from cinderblock.gateway.resources.volumes import view as volumes_view
from cinderblock.gateway.resources.volumes.create import create, schema
from cinderblock.gateway.resources.volumes.gather import Volume, find, gather
from cinderblock.gateway.resources.volumes.schemas import (
    LIST_QUERY,
    VOLUME,
    VOLUME_DETAIL,
    VOLUME_DETAILS,
    VOLUME_SUMMARY,
    VOLUMES,
)
from cinderblock.gateway.rest.list_query import ListSpec, parse_query
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.pagination import make_page
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema, metadata, strict_object
from cinderblock.kube.kinds import PVC, VOLUME_RESTORE, VOLUME_SNAPSHOT

LIST_SPEC: Final[ListSpec[Volume]] = ListSpec(
    noun="Volume",
    collection="volumes",
    columns={
        "id": lambda volume: volume.id,
        "created_at": lambda volume: volume.created_at,
        "updated_at": lambda _: None,
        "name": lambda volume: volume.name,
        "display_name": lambda volume: volume.name,
        "status": lambda volume: volume.status,
        "size": lambda volume: volume.size,
        "availability_zone": lambda _: volumes_view.ZONE,
        "bootable": lambda _: "false",
    },
    filters=frozenset({"name", "status", "size", "bootable", "availability_zone"}),
    newer_sort_keys={},
)

_SUMMARY, _SUMMARY_METADATA = 12, 36
"""Microversions: the summary of volumes exists; it contains metadata."""
_DELETABLE: Final = frozenset({"available", "error", "error_restoring", "creating", "restoring-backup"})
"""Cinder rejects the last two statuses. Here, deletion cancels the operation."""
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_UPDATE: Final = strict_object(
    {
        "volume": strict_object(
            {
                "name": _TEXT,
                "description": _TEXT,
                "display_name": _TEXT,
                "display_description": _TEXT,
                "metadata": metadata("object"),
            }
        )
    },
    "volume",
)
_NOT_DELETABLE: Final = (
    "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing"
    " and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated"
    " from snapshots after volume transfer."
)


async def index(request: ApiRequest) -> ApiResponse:
    """List volumes with id, name and links."""
    return await _list(request, "/volumes", volumes_view.summary)


async def details(request: ApiRequest) -> ApiResponse:
    """List volumes with all their fields."""
    return await _list(request, "/volumes/detail", volumes_view.detail)


async def _list(request: ApiRequest, path: str, view: Callable[[Volume, ApiRequest], dict[str, Any]]) -> ApiResponse:
    query = parse_query(request, LIST_SPEC)
    page = make_page((await gather(request)).volumes(), query, LIST_SPEC, request, path)
    return ApiResponse(200, {"volumes": [view(volume, request) for volume in page.items], **page.extra})


async def summarize(request: ApiRequest) -> ApiResponse:
    """Show the number of volumes, their total size, and their metadata (cinder/api/v3/volumes.py)."""
    volumes = (await gather(request)).volumes()
    summary: dict[str, Any] = {"total_count": len(volumes), "total_size": sum(volume.size for volume in volumes)}
    if request.at_least(_SUMMARY_METADATA):
        values: defaultdict[str, list[str]] = defaultdict(list)
        for key, value in sorted({pair for volume in volumes for pair in volume.metadata.items()}):
            values[key].append(value)
        summary["metadata"] = values
    return ApiResponse(200, {"volume-summary": summary})


async def show(request: ApiRequest) -> ApiResponse:
    """Show one volume."""
    volume, _ = await find(request, request.path["volume_id"])
    return ApiResponse(200, {"volume": volumes_view.detail(volume, request)})


async def update(request: ApiRequest) -> ApiResponse:
    """Change a volume's name, description or metadata."""
    body = object_annotations.normalize(request.validated(_UPDATE)["volume"])
    volume, _ = await find(request, request.path["volume_id"])
    changes = object_annotations.changes(body)
    if isinstance(volume.source, VolumeRestore) and changes:
        raise InvalidInput("Invalid volume: The volume cannot be updated until its restore has completed.")
    if changes:
        patch = {"metadata": {"annotations": changes, "uid": volume.source.uid}}
        await request.kube.merge_patch(PVC, volume.source.name, request.project, patch)
        volume, _ = await find(request, volume.id)
    return ApiResponse(200, {"volume": volumes_view.without_tenant(volume, request)})


async def delete(request: ApiRequest) -> ApiResponse:
    """Delete a volume, and with ``cascade`` its snapshots. Deletion of a volume cancels its restore."""
    volume, _ = await find(request, request.path["volume_id"])
    all_snapshots = await if_permitted(gather_snapshots(request)) or ()
    snapshots = [snapshot for snapshot in all_snapshots if snapshot.volume_id == volume.id]
    is_cascade = request.query.get("cascade", "").lower() in ("true", "1")
    if volume.status not in _DELETABLE or (snapshots and not is_cascade):
        raise InvalidInput(_NOT_DELETABLE)
    for snapshot in snapshots:
        await request.kube.delete(VOLUME_SNAPSHOT, snapshot.source.name, request.project, uid=snapshot.source.uid)
    kind = PVC if isinstance(volume.source, PersistentVolumeClaim) else VOLUME_RESTORE
    await request.kube.delete(kind, volume.source.name, request.project, uid=volume.source.uid)
    return ApiResponse(202)


def _operation(method: str, path: str, handler: Any, summary: str, policy: str, **options: Any) -> Operation:
    return Operation(method, path, handler, summary, f"volume:{policy}", **options)


OPERATIONS: Final = (
    _operation("GET", "/volumes", index, "List volumes", "get_all", answers={200: VOLUMES}, query=LIST_QUERY),
    _operation(
        "GET",
        "/volumes/detail",
        details,
        "List volumes with details",
        "get_all",
        answers={200: VOLUME_DETAILS},
        query=LIST_QUERY,
    ),
    _operation("POST", "/volumes", create, "Create a volume", "create", answers={202: VOLUME}, body=schema(71)),
    _operation(
        "GET",
        "/volumes/summary",
        summarize,
        "Summarize volumes",
        "get_all",
        answers={200: VOLUME_SUMMARY},
        since=_SUMMARY,
    ),
    _operation("GET", "/volumes/{volume_id}", show, "Show a volume", "get", answers={200: VOLUME_DETAIL}),
    _operation("PUT", "/volumes/{volume_id}", update, "Update a volume", "update", answers={200: VOLUME}, body=_UPDATE),
    _operation(
        "DELETE",
        "/volumes/{volume_id}",
        delete,
        "Delete a volume",
        "delete",
        answers={202: None},
        query={"cascade": {"type": "string"}},
    ),
)
