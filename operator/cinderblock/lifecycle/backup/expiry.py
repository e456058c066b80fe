"""Rules of expired backups: retention deleted them, so others that need their data do not hold them up.

Data that others need stays in the store, as the manifests there show: see `repository.expiry`. A backup that a person
deletes before it expires keeps Cinder's rule, and waits for its dependents.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason

CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""How much the clock of the API server, which writes the deletionTimestamp in whole seconds, may be behind ours.
Otherwise an expired backup might wait for its dependents forever. Data never depends on this."""
MAX_BATCH: Final = 1000
"""Most backups that are removed together. Their manifests go in one request."""


def is_expired(backup: VolumeBackup) -> bool:
    """Return whether a backup was deleted because it had expired."""
    deleted, expires = backup.metadata.deletion_timestamp, backup.status.expires_at
    if backup.own_phase is None or deleted is None or expires is None:
        return False
    return deleted + CLOCK_TOLERANCE >= expires


def removes_data(backup: VolumeBackup) -> bool:
    """Return whether an expired backup takes its data along, and the status says where that is."""
    return is_expired(backup) and not backup.keeps_data and not checks.is_forgotten(backup)


def obstacle(observed: ObservedBackup, backup: VolumeBackup) -> Wait | None:
    """Return why an expired backup must wait although its time is over; None if nothing is in the way.

    Args:
        observed: what was read for one expired backup: all that matter of its volume.
        backup: this backup, or another expired one among its siblings.
    """
    others = [other for other in (observed.backup, *observed.siblings) if other.uid != backup.uid]
    aliases = [other.name for other in others if is_alias_of(other, backup)]
    if aliases:
        return Wait(
            Reason.HAS_DEPENDENT_BACKUPS,
            f"Other backups were imported from the manifest of this one: {_names(aliases)}",
            requeue_after=30.0,
        )
    children = [other.name for other in others if _builds_on(other, backup, observed)]
    if children:
        message = f"VolumeBackup {_names(children)} is being made, and builds on this backup"
        return Wait(Reason.BACKUP_IN_USE, message, requeue_after=10.0)
    readers = [
        restore.name
        for restore in observed.restores
        if restore.own_phase is RestorePhase.RESTORING and restore.status.backup_id == backup.backup_id
    ]
    if readers:
        return Wait(Reason.BACKUP_IN_USE, f"VolumeRestore {_names(readers)} reads this backup", requeue_after=10.0)
    return None


def batch(observed: ObservedBackup) -> tuple[str, ...]:
    """Return the ids of the expired backups that are removed together with this one, this one first."""
    mine = observed.backup
    others = sorted(
        other.backup_id for other in observed.siblings if _is_ready(other, mine) and not obstacle(observed, other)
    )
    return (mine.backup_id, *others[: MAX_BATCH - 1])


def is_alias_of(other: VolumeBackup, backup: VolumeBackup) -> bool:
    """Return whether another backup was imported from the manifest of this one under another id."""
    is_accepted = other.is_alias and other.own_phase is not None
    return is_accepted and other.status.manifest_key == backup.status.manifest_key


def is_unfinished(backup: VolumeBackup) -> bool:
    """Return whether a mover of a backup may be at work, now or later."""
    if backup.own_phase is BackupPhase.CREATING:
        return True
    return backup.own_phase is not None and backup.metadata.is_being_deleted and backup.status.mover is not None


def _builds_on(other: VolumeBackup, backup: VolumeBackup, observed: ObservedBackup) -> bool:
    """Return whether an unfinished backup may list packs of this one. Without its parent, it may list any."""
    if not is_unfinished(other) or other.status.volume_id != backup.status.volume_id:
        return False
    parent = other.status.parent_id
    is_known = parent in observed.present_parents or any(
        parent == known.backup_id for known in (observed.backup, *observed.siblings)
    )
    return parent is not None and (parent == backup.backup_id or not is_known)


def _is_ready(other: VolumeBackup, mine: VolumeBackup) -> bool:
    """Return whether an expired backup may be removed in the same pass as this one."""
    status = other.status
    return (
        removes_data(other)
        and labels.BACKUP_FINALIZER in other.metadata.finalizers
        and labels.RELEASED_ANNOTATION not in other.metadata.annotations
        and not is_unfinished(other)
        and (status.store_name, status.container, status.volume_id)
        == (mine.status.store_name, mine.status.container, mine.status.volume_id)
    )


def _names(names: list[str]) -> str:
    return ", ".join(sorted(names)[:10])
