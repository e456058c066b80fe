"""Every operation of the API, resource by resource."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway import backups, snapshots, surroundings, volumes
from cinderblock.gateway.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *backups.OPERATIONS,
    *volumes.OPERATIONS,
    *snapshots.OPERATIONS,
    *surroundings.OPERATIONS,
)
