"""Records of backups within a limit of memory. The namespaces with the most records give way.

Anybody who may create VolumeBackups in a namespace can give them the marks of a ClusterBackupSchedule. That must not
keep the schedule from protecting other namespaces.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from cinderblock.lifecycle.backup_record import BackupRecord

RECORDS: Final = 40_000
"""Records that one reconciliation keeps. Each takes about 1 KiB."""


class RecordLimit:
    """Collects records.

    Attributes:
        overfull: the namespaces that have too many records, which are not kept.
        unreadable: why others could not be read, by namespace.

    Args:
        limit: records that are kept at most.
    """

    def __init__(self, limit: int = RECORDS) -> None:
        self.overfull: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self._limit = limit
        self._kept: dict[str, dict[str, BackupRecord]] = defaultdict(dict)
        self._count = 0

    def add(self, record: BackupRecord) -> None:
        """Keep a record. One with a known UID replaces the earlier one."""
        if record.namespace in self.overfull:
            return
        kept = self._kept[record.namespace]
        self._count += record.uid not in kept
        kept[record.uid] = record
        if self._count > self._limit:
            largest = max(self._kept, key=lambda namespace: len(self._kept[namespace]))
            self._count -= len(self._kept.pop(largest))
            self.overfull.add(largest)

    def records(self) -> list[BackupRecord]:
        """Return what was kept."""
        return [record for kept in self._kept.values() for record in kept.values()]
