"""The observed state of a schedule: its claims, its backups, and the stores of their namespaces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.lifecycle.schedule.volumes import ClaimRecord

VolumeKey = tuple[str, str]
"""Namespace and UID of a claim."""


def volume_key(record: BackupRecord) -> VolumeKey:
    """Return the volume of a backup: what its status says, or what it was requested for."""
    return record.namespace, record.volume_id or record.requested_volume


def is_unfinished(record: BackupRecord) -> bool:
    """Return whether a backup is being made, or waits for that."""
    return not record.has_ended and not record.is_being_deleted


class BackupIndex:
    """The backups of a schedule, by volume. Only those of the claim's own namespace count for a claim."""

    def __init__(self, records: Iterable[BackupRecord] = ()) -> None:
        self._volumes: dict[VolumeKey, list[BackupRecord]] = defaultdict(list)
        self.unfinished: Counter[str] = Counter()
        """Number of unfinished backups by namespace."""
        self.count = 0
        """Number of all backups."""
        for record in records:
            self._volumes[volume_key(record)].append(record)
            self.unfinished[record.namespace] += is_unfinished(record)
            self.count += 1

    def of(self, claim: ClaimRecord) -> list[BackupRecord]:
        """Return the backups of a claim."""
        return self._volumes.get((claim.namespace, claim.uid), [])

    def all(self) -> list[BackupRecord]:
        """Return all backups."""
        return [record for records in self._volumes.values() for record in records]


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """The BackupStore of a namespace for the backups of a schedule.

    Attributes:
        name: its name; empty: there is none.
        missing: why there is none, for a person.
        read_only: why it takes no new backups, for a person; empty: it does.
    """

    name: str = ""
    missing: str = ""
    read_only: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many VolumeBackups a schedule creates, so that ten thousand volumes do not become as many objects at once.

    Attributes:
        creations: VolumeBackups that one reconciliation creates. About six operations a second begin in a cluster.
        unfinished: unfinished VolumeBackups of the schedule, which its namespaces share equally.
        share: unfinished VolumeBackups that each namespace may have in any case.
    """

    creations: int = 50
    unfinished: int = 200
    share: int = 5

    def of_namespace(self, namespaces: int) -> int:
        """Return the unfinished backups that each of some namespaces may have."""
        return max(self.share, self.unfinished // max(1, namespaces))


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class ObservedSchedule:
    """The observed state of a schedule.

    Attributes:
        schedule: the schedule.
        settings: its parsed spec.
        claims: the claims with the labels that it asks for.
        backups: its VolumeBackups.
        stores: the store of each namespace with claims.
        overfull: namespaces with too many VolumeBackups of the schedule to be read.
        unreadable: why the API server lets nobody read others, by namespace.
        crowded: namespaces with too many claims to be kept.
        limits: how many VolumeBackups it may create.
    """

    schedule: AnySchedule
    settings: Settings
    claims: tuple[ClaimRecord, ...] = ()
    backups: BackupIndex = field(default_factory=BackupIndex)
    stores: Mapping[str, StoreChoice] = field(default_factory=dict)
    overfull: frozenset[str] = frozenset()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    crowded: frozenset[str] = frozenset()
    limits: Limits = DEFAULT_LIMITS
