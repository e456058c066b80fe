"""The backups of a bucket by volume, in memory that depends on the number of volumes and not of backups."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cinderblock.errors import PermanentError, TooLarge
from cinderblock.lifecycle.recovery.candidate import Candidate

KEPT: Final = 5
"""Newest readable backups of a volume that are kept, so that older ones can replace a damaged one."""
NAMED: Final = 3
"""Unreadable backups of a volume that are named."""
NAMED_LEFT_OUT: Final = 20
"""Backups without a claim that are named."""
MAX_VOLUMES: Final = 50_000
"""Most volumes of one bucket. One with KEPT backups takes about 7 kB."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A backup that cannot be read, or has no claim.

    Attributes:
        manifest, volume_id, backup_id: its key, and the ids in it.
        modified: when the manifest was written; None: unknown.
        reason: stable word.
        message: for people.
    """

    manifest: str
    volume_id: str
    backup_id: str
    modified: datetime | None
    reason: str
    message: str

    @property
    def age_key(self) -> tuple[float, str]:
        """Sort key: the one that was written last is the greatest."""
        return self.modified.timestamp() if self.modified else 0.0, self.backup_id


@dataclass(slots=True)
class VolumeBackups:
    """The backups of one volume.

    Attributes:
        newest: the newest readable ones, the newest first.
        asked: those of all readable ones that were asked for.
        count: number of all readable ones.
        unreadable: some of the others, the last written first.
        unreadable_count: number of all others.
    """

    newest: list[Candidate] = field(default_factory=list)
    asked: list[Candidate] = field(default_factory=list)
    count: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)
    unreadable_count: int = 0


@dataclass(slots=True)
class Survey:
    """The backups of a bucket.

    Attributes:
        asked: ids of backups that were asked for, which are kept although newer ones exist.
        volumes: its backups, by id of the volume.
        left_out: some backups from which no claim can be created.
        left_out_count: number of all of these.
        worst: one error of each class of the backups that cannot be read.
    """

    asked: frozenset[str] = frozenset()
    volumes: dict[str, VolumeBackups] = field(default_factory=dict)
    left_out: list[Unreadable] = field(default_factory=list)
    left_out_count: int = 0
    worst: dict[type[PermanentError], PermanentError] = field(default_factory=dict)

    def add(self, candidate: Candidate) -> None:
        """Add a backup that can be read. Raises TooLarge."""
        volume = self._volume(candidate.stored.volume_id)
        volume.count += 1
        if len(volume.asked) < KEPT and not self.asked.isdisjoint(candidate.ids):
            volume.asked.append(candidate)
        volume.newest = heapq.nlargest(KEPT, [*volume.newest, candidate], key=lambda each: each.age_key)

    def add_unreadable(self, unreadable: Unreadable, error: PermanentError) -> None:
        """Add a backup that cannot be read. Raises TooLarge."""
        volume = self._volume(unreadable.volume_id)
        volume.unreadable_count += 1
        volume.unreadable = heapq.nlargest(NAMED, [*volume.unreadable, unreadable], key=lambda each: each.age_key)
        self.worst.setdefault(type(error), error)

    def leave_out(self, backup: Unreadable) -> None:
        """Add a backup from which no claim can be created."""
        self.left_out_count += 1
        if len(self.left_out) < NAMED_LEFT_OUT:
            self.left_out.append(backup)

    def unreadable_volumes(self) -> Iterator[tuple[str, VolumeBackups]]:
        """Yield the volumes of which no backup can be read."""
        return ((volume_id, found) for volume_id, found in self.volumes.items() if not found.newest)

    def _volume(self, volume_id: str) -> VolumeBackups:
        if volume_id not in self.volumes and len(self.volumes) >= MAX_VOLUMES:
            raise TooLarge(
                f"Cannot plan a recovery: the store holds more than {MAX_VOLUMES} volumes. Choose a namespace, or find"
                " out who writes to the container."
            )
        return self.volumes.setdefault(volume_id, VolumeBackups())
