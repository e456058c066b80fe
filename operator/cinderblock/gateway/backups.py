"""``/backups``: VolumeBackups as Cinder's backups."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway.calls import Call, Reply
from cinderblock.gateway.operations import Operation
from cinderblock.kube.kinds import VOLUME_BACKUP


async def index(call: Call) -> Reply:
    """List backups: id, name and links."""
    items = await call.kube.list(VOLUME_BACKUP, call.project)
    backups = [
        {
            "id": i["metadata"]["uid"],
            "name": i["spec"].get("name"),
            "links": call.links.of("backups", i["metadata"]["uid"]),
        }
        for i in items
    ]
    return Reply(200, {"backups": backups})


OPERATIONS: Final = (Operation("GET", "/backups", index, "List backups", "backup:get_all", {200: {"type": "object"}}),)
