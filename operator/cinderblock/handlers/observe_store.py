"""Read everything that a decision about a BackupStore needs."""

from __future__ import annotations

from cinderblock.handlers.observe import Eyes, probe_store
from cinderblock.kube import kinds
from cinderblock.lifecycle.checks import own_phase
from cinderblock.lifecycle.worlds import StoreView, StoreWorld
from cinderblock.model import names
from cinderblock.model.backup import VolumeBackup
from cinderblock.model.store import BackupStore


async def observe(eyes: Eyes, store: BackupStore) -> StoreWorld:
    """The world of a BackupStore: whether it answers, and who needs it."""
    view = await probe_store(eyes, StoreView(store), store.spec.container)
    backups = await eyes.list(VolumeBackup, kinds.VOLUME_BACKUP, store.namespace)
    used_by = tuple(backup.name for backup in backups if _needs(backup, store))
    return StoreWorld(store, view, used_by)


def _needs(backup: VolumeBackup, store: BackupStore) -> bool:
    """Whether something of the backup may be in the store: our finalizer says that it has not been dealt with."""
    recorded = own_phase(backup) is not None and backup.status.store_name == store.name
    return recorded and names.BACKUP_FINALIZER in backup.metadata.finalizers
