"""The backups of a namespace that do not fit into the memory of one reconciliation: some volumes at a time.

Retention judges each volume for itself. So it reads such a namespace several times, and each time keeps the backups of
some of its volumes: memory is bounded, and every volume is judged with all of its backups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cinderblock.api.utc import utc
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.gather import records_of_namespace
from cinderblock.controller.schedules.record_limit import RECORDS
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE
from cinderblock.lifecycle.schedule.names import place

PART_RECORDS: Final = 20_000
"""Backups that a part has on average. Volumes are distributed by a hash, so some parts have more."""
MAX_PARTS: Final = 10
"""Most times that one pass reads a namespace. At 10,000 backups a second, 200,000 backups take 200 s of processor
time."""


@dataclass(slots=True)
class VolumePart:
    """The backups of some volumes of a namespace.

    Attributes:
        records: the backups, by UID of the volume and UID.
        overfull: names or UIDs of volumes that have too many backups, none of which are kept.
        count: number of the backups.
    """

    records: dict[str, dict[str, BackupRecord]] = field(default_factory=lambda: defaultdict(dict))
    overfull: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def add(self, record: BackupRecord, limit: int) -> None:
        """Keep a backup. If there are too many, leave out the volume with the most."""
        if record.volume_id in self.overfull:
            return
        kept = self.records[record.volume_id]
        self.count += record.uid not in kept
        kept[record.uid] = record
        if self.count > limit:
            largest = max(self.records, key=lambda volume: len(self.records[volume]))
            left_out = self.records.pop(largest)
            self.count -= len(left_out)
            self.overfull[largest] = next((r.volume_name for r in left_out.values() if r.volume_name), largest)

    def backups(self) -> list[BackupRecord]:
        """Return the backups."""
        return [record for of_volume in self.records.values() for record in of_volume.values()]


def parts_for(count: int) -> int | None:
    """Return into how many parts a namespace with so many backups is divided; None: it has too many."""
    parts = max(1, -(-count // PART_RECORDS))
    return parts if parts <= MAX_PARTS else None


async def volume_parts(
    context: Context, schedule: ObjectKey, namespace: str, parts: int, *, limit: int = RECORDS
) -> AsyncIterator[VolumePart]:
    """Yield the backups of a schedule in a namespace, one part of its volumes after the other.

    Args:
        context: what to read with.
        schedule: the key of the schedule.
        namespace: the namespace.
        parts: number of parts.
        limit: backups of one part that are kept at most.

    Raises what the API server raises.
    """
    for part in range(parts):
        records = records_of_namespace(context, schedule, namespace)
        yield await _read(records, part, parts, limit, context.clock())


async def _read(records: AsyncIterable[BackupRecord], part: int, parts: int, limit: int, now: datetime) -> VolumePart:
    found = VolumePart()
    has_common = False
    async for record in records:
        if place(record.volume_id) % parts == part:
            found.add(record, limit)
        elif not has_common and _concerns_all_volumes(record, now):
            # One of them has the same effect as many.
            has_common = True
            found.add(record, limit)
    return found


def _concerns_all_volumes(record: BackupRecord, now: datetime) -> bool:
    """Return whether a backup matters to all volumes: it is from the future, or may be the last one of any volume."""
    is_later = utc(record.created) > now + CLOCK_TOLERANCE
    return is_later or (record.is_forgotten and not record.volume_id)
