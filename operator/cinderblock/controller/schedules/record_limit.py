"""Records of objects within a limit of memory. The namespaces with the most records give way.

Anybody who may create VolumeBackups or BackupVerifications in a namespace can give them the marks of a
ClusterBackupSchedule. That must not keep the schedule from protecting other namespaces. Nor must honest backups,
however many, end the backups of their own namespace: the newest ones of each volume are enough for the next run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule.observed import VolumeKey, is_unfinished, volume_key

RECORDS: Final = 40_000
"""Records that one reconciliation keeps. Each takes about 1 KiB."""
NEWEST: Final = 3
"""Complete backups, and also others, that are kept of each volume of a namespace with too many. Runs need the attempts
of a run and the newest complete backup."""

LEAST_GAIN: Final = 0.25
"""Part of the records of a namespace that its reduction must free. Less shows that its volumes are forged, or that it
keeps little already."""
PROTECTED_SHARE: Final = 0.25
"""Part of the limit up to which no namespace is left out while others can still be reduced."""
RELIEF: Final = 0.01
"""Part of the limit that is free afterwards, so that this is not repeated for each record."""


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


class RecordLimit(Generic[RecordT]):
    """Collects records.

    Attributes:
        overfull: the namespaces that have too many records, which are not kept.
        reduced: those of which only the newest records of each volume are kept.
        unreadable: why others could not be read, by namespace.
        counts: how many records each namespace has. After a list has expired, some are counted twice.

    Args:
        limit: records that are kept at most.
        reductions: what is kept of a namespace with too many: the first that frees enough of its records.
    """

    def __init__(self, limit: int = RECORDS, *, reductions: Sequence[Reduction[RecordT]] = ()) -> None:
        self.overfull: set[str] = set()
        self.reduced: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._limit = limit
        self._reductions = reductions
        self._kept: dict[str, dict[str, RecordT]] = defaultdict(dict)
        self._count = 0
        self._irreducible: dict[str, int] = {}
        """How many records namespaces had when no reduction freed enough. With hardly more, none does."""

    def add(self, record: RecordT) -> None:
        """Keep a record. One with a known UID replaces the earlier one."""
        self.counts[record.namespace] += 1
        if record.namespace in self.overfull:
            return
        kept = self._kept[record.namespace]
        self._count += record.uid not in kept
        kept[record.uid] = record
        if self._count > self._limit:
            self._relieve()

    def _relieve(self) -> None:
        """Reduce namespaces, largest first. Leave out what nothing can reduce, if it is large or if all is reduced."""
        wanted = self._limit - int(self._limit * RELIEF)
        for namespace in self._largest_first():
            if self._count <= wanted:
                return
            if not self._reduce(namespace) and len(self._kept[namespace]) > self._limit * PROTECTED_SHARE:
                self._leave_out(namespace)
        if self._count <= self._limit:
            return
        for namespace in self._largest_first():
            if self._count <= wanted:
                return
            self._leave_out(namespace)

    def _largest_first(self) -> list[str]:
        return sorted(self._kept, key=lambda namespace: len(self._kept[namespace]), reverse=True)

    def _reduce(self, namespace: str) -> bool:
        """Keep the records that matter of a namespace. Return whether that frees enough of them."""
        records = self._kept[namespace]
        if len(records) * (1 - LEAST_GAIN) < self._irreducible.get(namespace, 0):
            return False
        for reduction in self._reductions:
            kept = {record.uid: record for record in reduction(records.values())}
            if len(kept) <= len(records) * (1 - LEAST_GAIN):
                self._kept[namespace] = kept
                self._count -= len(records) - len(kept)
                self.reduced.add(namespace)
                return True
        self._irreducible[namespace] = len(records)
        return False

    def _leave_out(self, namespace: str) -> None:
        self._count -= len(self._kept.pop(namespace))
        self.overfull.add(namespace)
        self.reduced.discard(namespace)

    def records(self) -> list[RecordT]:
        """Return what was kept."""
        return [record for kept in self._kept.values() for record in kept.values()]

    def of_whole_namespaces(self) -> list[RecordT]:
        """Return what was kept of the namespaces with all their records, which retention can judge."""
        whole = self._kept.keys() - self.reduced
        return [record for namespace in whole for record in self._kept[namespace].values()]


def newest_backups(records: Iterable[BackupRecord]) -> list[BackupRecord]:
    """Return the unfinished records, and the newest others of each volume: complete ones, and the rest."""
    return _newest(records, NEWEST)


def fewest_backups(records: Iterable[BackupRecord]) -> list[BackupRecord]:
    """Return the unfinished records, and of each volume the newest complete one and the newest attempts."""
    return _newest(records, 1)


def _newest(records: Iterable[BackupRecord], complete: int) -> list[BackupRecord]:
    groups: dict[tuple[VolumeKey, bool], list[BackupRecord]] = defaultdict(list)
    unfinished: list[BackupRecord] = []
    for record in records:
        if is_unfinished(record):
            unfinished.append(record)
        else:
            is_whole = record.is_complete and not record.is_being_deleted
            groups[volume_key(record), is_whole].append(record)
    for group in groups.values():
        group.sort(key=lambda record: (record.created, record.uid), reverse=True)
    limits = {True: complete, False: NEWEST}
    kept = (record for (_, is_whole), group in groups.items() for record in group[: limits[is_whole]])
    return [*unfinished, *kept]
