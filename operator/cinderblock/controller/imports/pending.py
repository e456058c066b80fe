"""Released backups whose marks the BackupStores do not have yet.

The deletion of a VolumeBackup asks for a mark and waits. A BackupStore writes all that were asked for at once: deleting
ten thousand VolumeBackups must not rewrite its status ten thousand times. If this memory is lost, they ask again.
"""

from __future__ import annotations

from collections.abc import Collection

from cinderblock.controller.request import ObjectKey


class PendingReleases:
    """The marks that VolumeBackups wait for, by BackupStore."""

    def __init__(self) -> None:
        self._waiting: dict[ObjectKey, dict[str, ObjectKey]] = {}

    def add(self, store: ObjectKey, backup_id: str, waiter: ObjectKey) -> None:
        """Ask for a mark, for which a VolumeBackup waits."""
        self._waiting.setdefault(store, {})[backup_id] = waiter

    def of(self, store: ObjectKey) -> list[str]:
        """Return the ids that a BackupStore has to take note of."""
        return list(self._waiting.get(store, ()))

    def take(self, store: ObjectKey, done: Collection[str] | None = None) -> list[ObjectKey]:
        """Forget marks that exist, or all of them, and return the VolumeBackups that waited for them."""
        waiting = self._waiting.get(store, {})
        found = [waiting.pop(backup_id) for backup_id in list(waiting) if done is None or backup_id in done]
        if not waiting:
            self._waiting.pop(store, None)
        return found
