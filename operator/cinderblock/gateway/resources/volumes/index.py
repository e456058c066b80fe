"""``/volumes``: PersistentVolumeClaims as Cinder's volumes, as far as backups and their clients need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.errors import InvalidInput
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.snapshots.gather import gather as look_at_snapshots
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
from cinderblock.gateway.rest import pagination
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.pagination import ListSpec
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema, metadata, strict_object
from cinderblock.kube.kinds import PVC, VOLUME_RESTORE, VOLUME_SNAPSHOT

RULES: Final[ListSpec[Volume]] = ListSpec(
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

_TOTALS, _TOTALS_WITH_METADATA = 12, 36
"""Microversions that have the summary of volumes, and metadata in it."""
_DELETABLE: Final = frozenset({"available", "error", "error_restoring", "creating", "restoring-backup"})
"""Cinder deletes no volume in the last two; here that ends what is going on."""
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


async def index(call: ApiRequest) -> ApiResponse:
    """List volumes: id, name and links."""
    return await _list(call, "/volumes", volumes_view.summary)


async def details(call: ApiRequest) -> ApiResponse:
    """List volumes with everything about them."""
    return await _list(call, "/volumes/detail", volumes_view.detail)


async def _list(call: ApiRequest, path: str, view: Callable[[Volume, ApiRequest], dict[str, Any]]) -> ApiResponse:
    asked = pagination.parse_query(call, RULES)
    page = pagination.page((await gather(call)).volumes(), asked, RULES, call, path)
    return ApiResponse(200, {"volumes": [view(volume, call) for volume in page.items], **page.more})


async def totals(call: ApiRequest) -> ApiResponse:
    """How many volumes there are, how large they are together, and their metadata (cinder/api/v3/volumes.py)."""
    volumes = (await gather(call)).volumes()
    found: dict[str, Any] = {"total_count": len(volumes), "total_size": sum(volume.size for volume in volumes)}
    if call.at_least(_TOTALS_WITH_METADATA):
        pairs = sorted({pair for volume in volumes for pair in volume.metadata.items()})
        found["metadata"] = {key: [value for other, value in pairs if other == key] for key, _ in pairs}
    return ApiResponse(200, {"volume-summary": found})


async def show(call: ApiRequest) -> ApiResponse:
    """Show one volume."""
    volume, _ = await find(call, call.path["volume_id"])
    return ApiResponse(200, {"volume": volumes_view.detail(volume, call)})


async def update(call: ApiRequest) -> ApiResponse:
    """Change a volume's name, description or metadata."""
    wanted = object_annotations.normalized(call.checked(_UPDATE)["volume"])
    volume, _ = await find(call, call.path["volume_id"])
    changes = object_annotations.changes(wanted)
    if isinstance(volume.source, VolumeRestore) and changes:
        raise InvalidInput("Invalid volume: a volume that is being restored cannot be changed before it is there")
    if changes:
        patch = {"metadata": {"annotations": changes, "uid": volume.source.uid}}
        await call.kube.merge_patch(PVC, volume.source.name, call.project, patch)
        volume, _ = await find(call, volume.id)
    return ApiResponse(200, {"volume": volumes_view.created(volume, call)})


async def delete(call: ApiRequest) -> ApiResponse:
    """Delete a volume; with ``cascade`` its snapshots as well. One that is being restored: the restore ends."""
    volume, _ = await find(call, call.path["volume_id"])
    snapshots = [found for found in await if_permitted(look_at_snapshots(call)) or () if found.volume_id == volume.id]
    cascades = call.query.get("cascade", "").lower() in ("true", "1")
    if volume.status not in _DELETABLE or (snapshots and not cascades):
        raise InvalidInput(_NOT_DELETABLE)
    for snapshot in snapshots:
        await call.kube.delete(VOLUME_SNAPSHOT, snapshot.source.name, call.project, uid=snapshot.source.uid)
    kind = PVC if isinstance(volume.source, PersistentVolumeClaim) else VOLUME_RESTORE
    await call.kube.delete(kind, volume.source.name, call.project, uid=volume.source.uid)
    return ApiResponse(202)


def _operation(method: str, path: str, handler: Any, summary: str, policy: str, **more: Any) -> Operation:
    return Operation(method, path, handler, summary, f"volume:{policy}", **more)


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
        "GET", "/volumes/summary", totals, "Summarize volumes", "get_all", answers={200: VOLUME_SUMMARY}, since=_TOTALS
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
