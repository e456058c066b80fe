"""Which backups are in use, so that retention leaves them alone."""

from __future__ import annotations

from collections.abc import Iterable

from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle.backup_record import BackupRecord


def used_ids(backups: Iterable[BackupRecord], restores: Iterable[VolumeRestore]) -> frozenset[str]:
    """Return the ids of the backups that a restore reads, or that an unfinished backup has as its parent.

    Args:
        backups: all VolumeBackups of the namespaces, also those that no schedule made.
        restores: all VolumeRestores of the namespaces. One without a status names its backup in its spec only.
    """
    wanted = {
        (restore.namespace, name)
        for restore in restores
        if not restore.has_ended
        for name in (restore.spec.backup_id, restore.status.backup_id)
        if name
    }
    used: set[str] = set()
    for record in backups:
        if not record.has_ended and not record.is_being_deleted and record.parent_id:
            used.add(record.parent_id)
        if not wanted.isdisjoint((record.namespace, name) for name in (record.name, record.uid, record.backup_id)):
            used.add(record.backup_id)
    return frozenset(used)
