"""Rules of expired backups: retention deleted them, so others that need their data do not hold them up.

Data that others need stays in the store, as the manifests there show: see `repository.expiry`. A backup that a person
deletes before it expires keeps Cinder's rule, and waits for its dependents.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.observed import ExpiredSibling, ObservedBackup
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason

CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""How much the clock of the API server, which writes the deletionTimestamp in whole seconds, may be behind ours.
Otherwise an expired backup might wait for its dependents forever. Data never depends on this."""
MAX_BATCH: Final = 10_000
"""Most backups that are removed together: more than the hourly ones of a year. Each takes 300 bytes of memory. The
manifests of further ones are read, because they stay for now."""


def is_expired(backup: VolumeBackup) -> bool:
    """Return whether a backup was deleted because it had expired."""
    deleted, expires = backup.metadata.deletion_timestamp, backup.status.expires_at
    if backup.own_phase is None or deleted is None or expires is None:
        return False
    return deleted + CLOCK_TOLERANCE >= expires


def removes_data(backup: VolumeBackup) -> bool:
    """Return whether an expired backup takes its data along, and the status says where that is."""
    return is_expired(backup) and not backup.keeps_data and not checks.is_forgotten(backup)


class Obstacles:
    """The reasons why expired backups of a volume must wait although their time is over.

    Args:
        observed: the state of one of them, with everything that matters of its volume.
    """

    def __init__(self, observed: ObservedBackup) -> None:
        backups = (observed.backup, *observed.siblings)
        known = observed.present_parents.union(backup.backup_id for backup in backups)
        self._aliases: defaultdict[str | None, list[str]] = defaultdict(list)
        self._children: defaultdict[str | None, list[str]] = defaultdict(list)
        self._readers: defaultdict[str | None, list[str]] = defaultdict(list)
        for backup in backups:
            if backup.is_alias and backup.own_phase is not None:
                self._aliases[backup.status.manifest_key].append(backup.name)
            if is_unfinished(backup) and backup.status.parent_id is not None:
                # Without its parent, it may list packs of any backup.
                parent = backup.status.parent_id if backup.status.parent_id in known else None
                self._children[parent].append(backup.name)
        for restore in observed.restores:
            if restore.own_phase is RestorePhase.RESTORING:
                self._readers[restore.own_backup_id].append(restore.name)

    def of(self, backup: ExpiredSibling) -> Wait | None:
        """Return why an expired backup must wait; None if nothing is in the way."""
        aliases = self._aliases.get(backup.manifest_key)
        if aliases:
            message = f"Backups were imported from the manifest of this one. Delete them, or wait: {_names(aliases)}"
            return Wait(Reason.HAS_DEPENDENT_BACKUPS, message, requeue_after=30.0)
        children = self._children.get(backup.backup_id) or self._children.get(None)
        if children:
            message = f"VolumeBackup {_names(children)} is being made, and builds on this backup"
            return Wait(Reason.BACKUP_IN_USE, message, requeue_after=10.0)
        readers = self._readers.get(backup.backup_id)
        if readers:
            return Wait(Reason.BACKUP_IN_USE, f"VolumeRestore {_names(readers)} reads this backup", requeue_after=10.0)
        return None


def batch(observed: ObservedBackup) -> tuple[str, ...]:
    """Return the ids of the expired backups that are removed together with this one, this one first."""
    obstacles = Obstacles(observed)
    others = sorted(other.backup_id for other in observed.expired_siblings if not obstacles.of(other))
    return (observed.backup.backup_id, *others)


def obstacle(observed: ObservedBackup, now: datetime) -> Wait | None:
    """Return why the expired backup itself must wait; None if nothing is in the way."""
    backup = observed.backup
    mine = ExpiredSibling(backup.backup_id, backup.status.manifest_key)
    return Obstacles(observed).of(mine) or readers.in_use(observed, now)


def is_unfinished(backup: VolumeBackup) -> bool:
    """Return whether a mover of a backup may be at work, now or later."""
    if backup.own_phase is BackupPhase.CREATING:
        return True
    return backup.own_phase is not None and backup.metadata.is_being_deleted and backup.status.mover is not None


def is_ready(other: VolumeBackup, mine: VolumeBackup) -> bool:
    """Return whether another backup has expired and may be removed in the same pass as this one."""
    status = other.status
    return (
        removes_data(other)
        and labels.BACKUP_FINALIZER in other.metadata.finalizers
        and labels.RELEASED_ANNOTATION not in other.metadata.annotations
        and not is_unfinished(other)
        and not other.own_granted_restores
        and (status.store_name, status.container, status.volume_id)
        == (mine.status.store_name, mine.status.container, mine.status.volume_id)
    )


def _names(names: list[str]) -> str:
    return ", ".join(sorted(names)[:10])
