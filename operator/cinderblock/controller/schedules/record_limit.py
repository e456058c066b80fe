"""Records of objects within a limit of memory. The namespaces with the most records give way.

Anybody who may create VolumeBackups or BackupVerifications in a namespace can give them the marks of a
ClusterBackupSchedule. That must not keep the schedule from protecting other namespaces. Nor must honest backups,
however many, end the backups of their own namespace: the newest ones of each volume are enough for the next run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule.observed import is_unfinished, volume_key

RECORDS: Final = 40_000
"""Records that one reconciliation keeps. Each takes about 1 KiB."""
NEWEST: Final = 3
"""Complete backups, and also others, that are kept of each volume of a namespace with too many. Runs need the attempts
of a run and the newest complete backup."""

LEAST_GAIN: Final = 0.05
"""Part of the limit that the reduction of a namespace must free, so that there are few reductions."""


class Record(Protocol):
    """An object that was read."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def uid(self) -> str:
        """Its UID."""


RecordT = TypeVar("RecordT", bound=Record)
Reduction = Callable[[Iterable[RecordT]], list[RecordT]]
"""Returns those records of a namespace that are kept although there are too many."""


def none_of(records: Iterable[RecordT]) -> list[RecordT]:
    """Keep no record of a namespace with too many."""
    del records
    return []


class RecordLimit(Generic[RecordT]):
    """Collects records.

    Attributes:
        overfull: the namespaces that have too many records, which are not kept.
        reduced: those of which only the newest records of each volume are kept.
        unreadable: why others could not be read, by namespace.

    Args:
        limit: records that are kept at most.
        reduction: what is kept of a namespace with too many.
    """

    def __init__(self, limit: int = RECORDS, *, reduction: Reduction[RecordT] = none_of) -> None:
        self.overfull: set[str] = set()
        self.reduced: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self._limit = limit
        self._reduction = reduction
        self._kept: dict[str, dict[str, RecordT]] = defaultdict(dict)
        self._count = 0

    def add(self, record: RecordT) -> None:
        """Keep a record. One with a known UID replaces the earlier one."""
        if record.namespace in self.overfull:
            return
        kept = self._kept[record.namespace]
        self._count += record.uid not in kept
        kept[record.uid] = record
        if self._count > self._limit:
            self._reduce(max(self._kept, key=lambda namespace: len(self._kept[namespace])))

    def _reduce(self, namespace: str) -> None:
        """Keep the newest records of a namespace, or none if these are hardly fewer."""
        records = self._kept.pop(namespace)
        newest = {record.uid: record for record in self._reduction(records.values())}
        if newest and len(records) - len(newest) >= self._limit * LEAST_GAIN:
            self._kept[namespace] = newest
            self.reduced.add(namespace)
        else:
            newest = {}
            self.overfull.add(namespace)
            self.reduced.discard(namespace)
        self._count -= len(records) - len(newest)

    def records(self) -> list[RecordT]:
        """Return what was kept."""
        return [record for kept in self._kept.values() for record in kept.values()]

    def of_whole_namespaces(self) -> list[RecordT]:
        """Return what was kept of the namespaces with all their records, which retention can judge."""
        whole = self._kept.keys() - self.reduced
        return [record for namespace in whole for record in self._kept[namespace].values()]


def newest_backups(records: Iterable[BackupRecord]) -> list[BackupRecord]:
    """Return the unfinished records, and the newest others of each volume: complete ones, and the rest."""
    groups: dict[object, list[BackupRecord]] = defaultdict(list)
    unfinished: list[BackupRecord] = []
    for record in records:
        if is_unfinished(record):
            unfinished.append(record)
        else:
            groups[volume_key(record), record.is_complete].append(record)
    for group in groups.values():
        group.sort(key=lambda record: (record.created, record.uid), reverse=True)
    return [*unfinished, *(record for group in groups.values() for record in group[:NEWEST])]
