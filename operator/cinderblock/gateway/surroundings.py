"""What clients ask about beside backups, volumes and snapshots: types, zones, limits, extensions.

A volume type is a StorageClass. There are no limits of Cinder's kind: a ResourceQuota on VolumeBackups limits them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cinderblock.api.kubernetes import DEFAULT_STORAGE_CLASS_ANNOTATION
from cinderblock.errors import NotFound
from cinderblock.gateway.answers import answer
from cinderblock.gateway.backup_lookups import select
from cinderblock.gateway.backup_views import own_status
from cinderblock.gateway.backup_worlds import seen
from cinderblock.gateway.calls import Call, Reply
from cinderblock.gateway.operations import Operation
from cinderblock.gateway.schemas import Schema
from cinderblock.gateway.snapshot_worlds import look as look_at_snapshots
from cinderblock.gateway.volume_views import ZONE
from cinderblock.gateway.volume_worlds import look as look_at_volumes
from cinderblock.kube.kinds import STORAGE_CLASS

_UNLIMITED: Final = -1
_DESCRIPTION: Final = "kubernetes.io/description"
"""An annotation that says what an object is for (Kubernetes: Well-Known Labels, Annotations and Taints)."""

JsonObject = dict[str, Any]


async def types(call: Call) -> Reply:
    """List volume types; whoever may not see StorageClasses sees none."""
    return Reply(200, {"volume_types": [_type(item) | _IS_PUBLIC for item in await _classes(call)]})


async def volume_type(call: Call) -> Reply:
    """Show a volume type; ``default`` is the one that is used if none is asked for."""
    asked = call.path["type_id"]
    classes = await _classes(call)
    if asked == "default":
        found = next((item for item in classes if _is_default(item)), None)
    else:
        found = next((i for i in classes if asked in (i["metadata"]["uid"], i["metadata"]["name"])), None)
    if found is None:
        raise NotFound(f"Volume type {asked} could not be found.")
    return Reply(200, {"volume_type": _type(found)})


async def zones(_: Call) -> Reply:
    """List availability zones: there is one."""
    return Reply(200, {"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": True}}]})


async def limits(call: Call) -> Reply:
    """Tell what there is, and that it may be more."""
    world, visible, backups = await asyncio.gather(
        look_at_volumes(call), seen(look_at_snapshots(call)), select(call.kube, call.project, {})
    )
    volumes, snapshots = world.volumes(), visible or []
    used = {
        "totalVolumesUsed": len(volumes),
        "totalGigabytesUsed": sum(volume.size for volume in volumes) + sum(found.size for found in snapshots),
        "totalSnapshotsUsed": len(snapshots),
        "totalBackupsUsed": len(backups),
        "totalBackupGigabytesUsed": sum(own_status(backup).size or 0 for backup in backups),
    }
    return Reply(200, {"limits": {"rate": [], "absolute": dict.fromkeys(_MOST, _UNLIMITED) | used}})


async def extensions(_: Call) -> Reply:
    """List extensions: what the word means to old clients is either here or not."""
    backups = {
        "name": "Backups",
        "alias": "backups",
        "description": "Backups support.",
        "updated": "2012-12-12T00:00:00+00:00",
        "links": [],
    }
    return Reply(200, {"extensions": [backups]})


async def _classes(call: Call) -> list[JsonObject]:
    return await seen(call.kube.list(STORAGE_CLASS)) or []


def _type(storage_class: JsonObject) -> JsonObject:
    meta = storage_class["metadata"]
    return {
        "id": meta["uid"],
        "name": meta["name"],
        "is_public": True,
        "description": (meta.get("annotations") or {}).get(_DESCRIPTION),
        "extra_specs": {},
    }


def _is_default(storage_class: JsonObject) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return bool(annotations.get(DEFAULT_STORAGE_CLASS_ANNOTATION) == "true")


_IS_PUBLIC: Final = {"os-volume-type-access:is_public": True}
_MOST: Final = (
    "maxTotalVolumes",
    "maxTotalSnapshots",
    "maxTotalVolumeGigabytes",
    "maxTotalBackups",
    "maxTotalBackupGigabytes",
)
_USED: Final = (
    "totalVolumesUsed",
    "totalGigabytesUsed",
    "totalSnapshotsUsed",
    "totalBackupsUsed",
    "totalBackupGigabytesUsed",
)

_BOOLEAN: Final[Schema] = {"type": "boolean"}
_NUMBER: Final[Schema] = {"type": "integer"}
_TYPE: Final[dict[str, Schema]] = {
    "id": {"type": "string"},
    "name": {"type": "string"},
    "is_public": _BOOLEAN,
    "description": {"type": ["string", "null"]},
    "extra_specs": {"type": "object"},
}
_TYPES: Final = answer(
    {"volume_types": {"type": "array", "items": answer(_TYPE | dict.fromkeys(_IS_PUBLIC, _BOOLEAN))}}
)
_ABSOLUTE: Final = answer(dict.fromkeys((*_MOST, *_USED), _NUMBER))
_LIMITS: Final = answer({"limits": answer({"rate": {"type": "array"}, "absolute": _ABSOLUTE})})

OPERATIONS: Final = (
    Operation("GET", "/types", types, "List volume types", "volume_extension:type_get_all", {200: _TYPES}),
    Operation(
        "GET",
        "/types/{type_id}",
        volume_type,
        "Show a volume type",
        "volume_extension:type_get",
        {200: answer({"volume_type": answer(_TYPE)})},
    ),
    Operation(
        "GET",
        "/os-availability-zone",
        zones,
        "List availability zones",
        "volume:availability_zone_list",
        {200: answer({"availabilityZoneInfo": {"type": "array"}})},
    ),
    Operation("GET", "/limits", limits, "Show limits", "limits_extension:used_limits", {200: _LIMITS}),
    Operation(
        "GET",
        "/extensions",
        extensions,
        "List extensions",
        "volume:extensions",
        {200: answer({"extensions": {"type": "array"}})},
    ),
)
