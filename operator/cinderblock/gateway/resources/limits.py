"""``/limits``: usage, without quotas of Cinder's kind. A ResourceQuota on VolumeBackups limits backups."""

from __future__ import annotations

import asyncio
from typing import Final

from cinderblock.gateway.resources.backups.find import select
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.backups.view import own_status
from cinderblock.gateway.resources.snapshots.gather import gather as gather_snapshots
from cinderblock.gateway.resources.volumes.gather import gather as gather_volumes
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


async def limits(request: ApiRequest) -> ApiResponse:
    """Show the usage of the project, with unlimited quotas."""
    observed, visible, backups = await asyncio.gather(
        gather_volumes(request), if_permitted(gather_snapshots(request)), select(request.kube, request.project, {})
    )
    volumes, snapshots = observed.volumes(), visible or []
    used = {
        "totalVolumesUsed": len(volumes),
        "totalGigabytesUsed": sum(volume.size for volume in volumes) + sum(snapshot.size for snapshot in snapshots),
        "totalSnapshotsUsed": len(snapshots),
        "totalBackupsUsed": len(backups),
        "totalBackupGigabytesUsed": sum(own_status(backup).size or 0 for backup in backups),
    }
    return ApiResponse(200, {"limits": {"rate": [], "absolute": dict.fromkeys(_MOST, _UNLIMITED) | used}})


OPERATION: Final = Operation("GET", "/limits", limits, "Show limits", "limits_extension:used_limits", {200: _LIMITS})
