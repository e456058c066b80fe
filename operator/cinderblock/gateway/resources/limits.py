"""``/limits``: quotas, which this API does not have."""

from __future__ import annotations

import asyncio

from cinderblock.gateway.resources.backups.find import select
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.backups.view import own_status
from cinderblock.gateway.resources.discovery import _MOST, _UNLIMITED
from cinderblock.gateway.resources.snapshots.gather import gather as look_at_snapshots
from cinderblock.gateway.resources.volumes.gather import gather as look_at_volumes
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse


async def limits(call: ApiRequest) -> ApiResponse:
    """Tell what there is, and that it may be more."""
    world, visible, backups = await asyncio.gather(
        look_at_volumes(call), if_permitted(look_at_snapshots(call)), select(call.kube, call.project, {})
    )
    volumes, snapshots = world.volumes(), visible or []
    used = {
        "totalVolumesUsed": len(volumes),
        "totalGigabytesUsed": sum(volume.size for volume in volumes) + sum(found.size for found in snapshots),
        "totalSnapshotsUsed": len(snapshots),
        "totalBackupsUsed": len(backups),
        "totalBackupGigabytesUsed": sum(own_status(backup).size or 0 for backup in backups),
    }
    return ApiResponse(200, {"limits": {"rate": [], "absolute": dict.fromkeys(_MOST, _UNLIMITED) | used}})
