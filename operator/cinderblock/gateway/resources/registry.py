"""All operations of the API, by resource."""

from __future__ import annotations

from typing import Final

from cinderblock.gateway.resources import discovery
from cinderblock.gateway.resources.backups import index as backups_index
from cinderblock.gateway.resources.snapshots import index as snapshots_index
from cinderblock.gateway.resources.volumes import index as volumes_index
from cinderblock.gateway.rest.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *backups_index.OPERATIONS,
    *volumes_index.OPERATIONS,
    *snapshots_index.OPERATIONS,
    *discovery.OPERATIONS,
)
