"""Which available backups of a store lack their copy in another one, and which of them are copied next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.mover import COPIES_OF_A_RUN
from cinderblock.api.v1alpha1.backup import BackupCopy, VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, CopyRule, CopyStatus, LockSettings
from cinderblock.lifecycle.store import place
from cinderblock.reasons import Reason

RETRY_FAILED: Final = timedelta(hours=1)
"""Time until the copy of a backup is tried again that failed for a reason of its own, such as a damaged pack."""
SHORTEST_CHECK_INTERVAL: Final = timedelta(hours=1)
"""The least time between two comparisons of a copy with its original."""
_KEPT: Final = 16 * COPIES_OF_A_RUN
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


class Survey:
    """The known copies in one store. Add all VolumeBackups of the namespace, in any order.

    Args:
        store: the store of the backups.
        rule: the rule about the store that gets the copies.
        target_place: digest of its place.
        now: the instant of the survey.
        locks: spec.objectLock of the store that gets the copies; None: it asks for no locks.
    """

    def __init__(
        self, store: BackupStore, rule: CopyRule, target_place: str, now: datetime, locks: LockSettings | None = None
    ) -> None:
        self._store = store
        self._name = rule.store_name
        self._check_every = max(parse_long_duration(rule.check_every), SHORTEST_CHECK_INTERVAL)
        self._place = target_place
        self._now = now
        self._lock_period = locks.period_time if locks is not None else None
        self._due: list[tuple[tuple[datetime, datetime, str], VolumeBackup]] = []
        self._copied = self._pending = self._failed = self._unlocked = 0
        self._oldest: datetime | None = None
        self._newest_copy: datetime | None = None

    def add(self, backup: VolumeBackup) -> None:
        """Count a VolumeBackup, if it is an available backup of the store."""
        if not _is_in(backup, self._store):
            return
        known = self._known(backup)
        made, failed_at = (known.time, known.failed_at) if known is not None else (None, None)
        ready = backup.status.completed_at or backup.metadata.creation_timestamp or self._now
        if made is not None:
            self._newest_copy = max(made, self._newest_copy or made)
            ready = self._next_comparison(made, known.locked_until if known is not None else None)
        if made is not None and failed_at is None:
            if ready <= self._now:
                self._add_due(backup, made, ready)
            if self._is_locked(known):
                self._copied += 1
            else:
                self._pending += 1
                self._unlocked += 1
                self._note_oldest((known.locked_until if known is not None else None) or self._now)
            return
        self._pending += 1
        self._note_oldest(ready)
        self._unlocked += made is not None and not self._is_locked(known)
        self._failed += failed_at is not None and not _waits_for_lock(known)
        if failed_at is None or self._now - failed_at >= RETRY_FAILED:
            self._add_due(backup, failed_at or _FIRST, ready)

    def _next_comparison(self, made: datetime, locked_until: datetime | None) -> datetime:
        """Return when a copy is compared again: early enough that its lock always lasts for another period."""
        regular = made + self._check_every
        if self._lock_period is None:
            return regular
        renewal = locked_until - self._lock_period if locked_until is not None else made
        return min(regular, max(renewal, made + SHORTEST_CHECK_INTERVAL))

    def _is_locked(self, known: BackupCopy | None) -> bool:
        """Return whether a copy has the lock that its store asks for."""
        if self._lock_period is None or known is None:
            return True
        return known.locked_until is not None and known.locked_until > self._now

    def _note_oldest(self, ready: datetime) -> None:
        self._oldest = min(ready, self._oldest or ready)

    def _add_due(self, backup: VolumeBackup, tried_at: datetime, ready: datetime) -> None:
        self._due.append(((tried_at, backup.status.data_timestamp or ready, backup.backup_id), backup))
        if len(self._due) >= _KEPT:
            self._trim()

    def next_batch(self) -> list[VolumeBackup]:
        """Return the backups to copy or to compare next, all in one bucket. Untried ones come first, oldest data first.

        The others follow in order of their last attempt. So a damaged backup holds up no other one, and an incremental
        backup finds most of its packs in the target.
        """
        self._trim()
        if not self._due:
            return []
        container = self._container(self._due[0][1])
        return [backup for _, backup in self._due if self._container(backup) == container]

    def status(self, before: CopyStatus) -> CopyStatus:
        """Return the numbers, with what ``before`` says about movers."""
        return before.model_copy(
            update={
                "copied": self._copied,
                "pending": self._pending,
                "failed": self._failed,
                "unlocked": self._unlocked,
                "oldest_pending": self._oldest,
                "last_copied_at": self._newest_copy or before.last_copied_at,
            }
        )

    def _known(self, backup: VolumeBackup) -> BackupCopy | None:
        known = (copy for copy in backup.own_copies if copy.store_name == self._name and copy.place == self._place)
        return next(known, None)

    def _trim(self) -> None:
        self._due.sort(key=lambda item: item[0])
        del self._due[COPIES_OF_A_RUN:]

    def _container(self, backup: VolumeBackup) -> str:
        return place.container_of(self._store, backup.status.container)


def _waits_for_lock(known: BackupCopy | None) -> bool:
    """Return whether a copy waits until the store permits to replace one of its objects."""
    return known is not None and (known.fail_reason or "").startswith(f"{Reason.LOCKED}:")


def _is_in(backup: VolumeBackup, store: BackupStore) -> bool:
    """Return whether a VolumeBackup is available in a store, and will stay there."""
    is_available = backup.is_complete and not backup.metadata.is_being_deleted
    is_here = backup.status.store_name == store.name and backup.status.manifest_key is not None
    return is_available and is_here and place.misplaced(backup, store) is None
