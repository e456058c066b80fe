"""The numbers of a backup, and of the earlier backups with which it is compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from cinderblock.api.quantity import MIB
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus

HISTORY: Final = 10
"""Earlier backups with which a backup is compared."""
MIN_RATIO_BYTES: Final = MIB
"""Bytes of new data from which their compression ratio says something about them."""


@dataclass(frozen=True, slots=True)
class BackupStats:
    """The numbers of a complete backup.

    Attributes:
        data_time: time of the data.
        is_full: whether the backup has no parent, so that all data counts as transferred.
        logical_bytes: data in the volume, without holes and zeros.
        transferred_bytes: data that the parent does not contain, before compression.
        pack_bytes: size of these data in the store; None: not recorded.
        entries: files and directories; None: a device, or not recorded.
        missed_changes: files whose changes their timestamps did not show.
        is_suspicious: whether the backup raised an alarm that nobody has accepted.
    """

    data_time: datetime
    is_full: bool
    logical_bytes: int
    transferred_bytes: int
    pack_bytes: int | None = None
    entries: int | None = None
    missed_changes: int = 0
    is_suspicious: bool = False

    @property
    def ratio(self) -> float | None:
        """Size of the new data in the store as a share of the data; None: unknown, or there are hardly any."""
        if self.pack_bytes is None or self.transferred_bytes < MIN_RATIO_BYTES:
            return None
        return self.pack_bytes / self.transferred_bytes

    def growth(self, previous: BackupStats) -> int:
        """Return the bytes by which the volume has grown since ``previous``; 0 if it has shrunk."""
        return max(0, self.logical_bytes - previous.logical_bytes)

    def new_share(self, previous: BackupStats) -> float:
        """Return the share of the volume that is new since ``previous``, from 0 to 1."""
        return min(1.0, self.transferred_bytes / self._largest(previous))

    def replaced_bytes(self, previous: BackupStats) -> int:
        """Return the new bytes since ``previous`` beyond those by which the volume has grown."""
        return max(0, self.transferred_bytes - self.growth(previous))

    def replaced_share(self, previous: BackupStats) -> float:
        """Return them as a share of the volume, from 0 to 1."""
        return min(1.0, self.replaced_bytes(previous) / self._largest(previous))

    def _largest(self, previous: BackupStats) -> int:
        return max(1, self.logical_bytes, previous.logical_bytes)


@dataclass(frozen=True, slots=True)
class History:
    """Earlier backups of the volume in the same container.

    Attributes:
        recent: the newest ones, at most HISTORY, oldest first.
        last_full: the newest full one, even if it is older.
    """

    recent: tuple[BackupStats, ...] = ()
    last_full: BackupStats | None = None

    @property
    def previous(self) -> BackupStats | None:
        """The newest of them."""
        return self.recent[-1] if self.recent else None

    def new_shares(self) -> list[float]:
        """Return the new share of each incremental backup that raised no open alarm."""
        pairs = itertools.pairwise(self.recent)
        return [after.new_share(before) for before, after in pairs if not (after.is_full or after.is_suspicious)]

    @property
    def has_ratios(self) -> bool:
        """Whether all of them recorded the size of their new data. Backups of earlier releases did not."""
        return all(each.pack_bytes is not None for each in self.recent)

    def ratios(self) -> list[float]:
        """Return the compression ratios of those with new data that raised no open alarm."""
        return [each.ratio for each in self.recent if each.ratio is not None and not each.is_suspicious]

    def delay(self, instant: datetime) -> float:
        """Return the time since the newest one as a multiple of the usual time between two of them; at least 1."""
        times = [each.data_time.timestamp() for each in self.recent]
        intervals = [after - before for before, after in itertools.pairwise(times)]
        usual = median(intervals) if intervals else 0.0
        return max(1.0, (instant.timestamp() - times[-1]) / usual) if usual else 1.0


def stats_of(status: VolumeBackupStatus, *, is_suspicious: bool = False) -> BackupStats | None:
    """Return the numbers in the status of a backup; None if they are not known, as for one that was not made yet."""
    if status.data_timestamp is None or status.logical_bytes is None or status.transferred_bytes is None:
        return None
    is_split = status.stored_bytes is not None and status.manifest_bytes is not None
    return BackupStats(
        data_time=status.data_timestamp,
        is_full=not status.is_incremental,
        logical_bytes=status.logical_bytes,
        transferred_bytes=status.transferred_bytes,
        pack_bytes=max(0, (status.stored_bytes or 0) - (status.manifest_bytes or 0)) if is_split else None,
        entries=status.entries,
        missed_changes=status.missed_changes or 0,
        is_suspicious=is_suspicious,
    )


def belongs_to_history(other: VolumeBackup, status: VolumeBackupStatus, before: datetime | None) -> bool:
    """Return whether a backup is an earlier one of the same volume in the same container.

    Imported backups do not belong to it: anyone who imports one chooses its content.

    Args:
        other: the backup.
        status: the status of the backup that is compared. A lost one names no store and no container.
        before: time of the data of the backup that is compared; None: not known.
    """
    found, instant = other.status, other.status.data_timestamp
    is_earlier = instant is not None and (before is None or instant < before)
    places = ((found.store_name, status.store_name), (found.container, status.container))
    is_same = found.volume_id == status.volume_id and all(mine in (theirs, None) for theirs, mine in places)
    return is_earlier and is_same and other.is_complete and other.spec.import_ is None


def history_of(backups: Iterable[VolumeBackup], status: VolumeBackupStatus) -> History:
    """Return the history of a backup.

    Args:
        backups: other backups, at least those that belong to the history.
        status: the status of the backup, with its manifest.
    """
    earlier = [other for other in backups if belongs_to_history(other, status, status.data_timestamp)]
    known = [stats_of(other.status, is_suspicious=other.is_suspicious) for other in earlier]
    found = sorted((each for each in known if each is not None), key=lambda each: each.data_time)
    full = next((each for each in reversed(found) if each.is_full and not each.is_suspicious), None)
    return History(tuple(found[-HISTORY:]), full)
