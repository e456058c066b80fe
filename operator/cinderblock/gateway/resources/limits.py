"""``/limits``: quotas, which this API does not have."""

from __future__ import annotations

import asyncio
from typing import Final

from cinderblock.gateway.resources.backups.find import select
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.backups.view import own_status
from cinderblock.gateway.resources.snapshots.gather import gather as look_at_snapshots
from cinderblock.gateway.resources.volumes.gather import gather as look_at_volumes
from cinderblock.gateway.rest.openapi_schemas import closed_object
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse

_UNLIMITED: Final = -1
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

_ABSOLUTE: Final = closed_object({key: {"type": "integer"} for key in (*_MOST, *_USED)})
_LIMITS: Final = closed_object({"limits": closed_object({"rate": {"type": "array"}, "absolute": _ABSOLUTE})})


async def limits(call: ApiRequest) -> ApiResponse:
    """Tell what there is, and that it may be more."""
    observed, visible, backups = await asyncio.gather(
        look_at_volumes(call), if_permitted(look_at_snapshots(call)), select(call.kube, call.project, {})
    )
    volumes, snapshots = observed.volumes(), visible or []
    used = {
        "totalVolumesUsed": len(volumes),
        "totalGigabytesUsed": sum(volume.size for volume in volumes) + sum(found.size for found in snapshots),
        "totalSnapshotsUsed": len(snapshots),
        "totalBackupsUsed": len(backups),
        "totalBackupGigabytesUsed": sum(own_status(backup).size or 0 for backup in backups),
    }
    return ApiResponse(200, {"limits": {"rate": [], "absolute": dict.fromkeys(_MOST, _UNLIMITED) | used}})


OPERATION: Final = Operation("GET", "/limits", limits, "Show limits", "limits_extension:used_limits", {200: _LIMITS})
