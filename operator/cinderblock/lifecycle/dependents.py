"""Backups that need the data of another backup, derived from existing objects and never counted.

An incremental backup needs its parent: that is Cinder's rule, and its status contains the parent. Its manifest lists
everything else that it needs. The operator asks the store before it removes data. Otherwise the statuses suffice while
the chain of parents is complete: if a backup needs an ancestor, the status of a relative has that ancestor as parent.
"""

from __future__ import annotations

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import PermanentError
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.reasons import Reason


def dependents_of(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the namespace that need the data of this one."""
    me, listed = observed.backup.backup_id, observed.needed_by or ()
    unfinished = {
        sibling.uid for sibling in orphaned_incrementals(observed) if sibling.own_phase is BackupPhase.CREATING
    }
    return tuple(
        sibling
        for sibling in observed.siblings
        if needed_parent_id(sibling) == me or sibling.backup_id in listed or sibling.uid in unfinished
    )


def needed_parent_id(backup: VolumeBackup) -> str | None:
    """Return the id of the parent whose data a backup needs; None if it has no parent, or has failed."""
    return backup.status.parent_id if backup.own_phase not in (None, BackupPhase.ERROR) else None


def orphaned_incrementals(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the same volume whose parent is not a backup of the namespace.

    The statuses do not show which ancestors such a backup needs. Before it is complete, its manifest does not show that
    either: it may list packs of every earlier backup.
    """
    volume = observed.backup.status.volume_id if observed.backup.own_phase is not None else None
    if volume is None:
        return ()
    # A failed import may have the id of a parent that is gone.
    existing = {sibling.backup_id for sibling in observed.siblings if sibling.own_phase is not BackupPhase.ERROR}
    present = {observed.backup.backup_id, *existing} | observed.present_parents
    return tuple(
        sibling
        for sibling in observed.siblings
        if sibling.status.volume_id == volume
        and (parent := needed_parent_id(sibling)) is not None
        and parent not in present
    )


def must_be_read(observed: ObservedBackup) -> bool:
    """Return whether only the manifests in the store show if others need this backup."""
    return not dependents_of(observed) and bool(orphaned_incrementals(observed))


def exist(observed: ObservedBackup) -> bool:
    """Return whether others need this backup. While the store does not answer, its previous answer counts."""
    if dependents_of(observed) or not orphaned_incrementals(observed):
        return bool(dependents_of(observed))
    if observed.needed_by is not None and observed.references_error is None:
        return False
    return observed.backup.own_phase is not None and bool(observed.backup.status.has_dependent_backups)


def unknown(why: str) -> PermanentError:
    """Return the error of a deletion that cannot tell whether others need the data. ``why`` has cause and remedy."""
    message = f"Cannot tell whether other backups need the data of this one: {why}."
    return PermanentError(message, reason=Reason.REFERENCES_UNKNOWN)
