"""Which backups need another one's data; computed from what exists, never counted.

An incremental backup needs its parent: that is Cinder's rule, and its status names the parent. Its manifest lists what
it needs beyond that. The operator asks the store before it removes data. Otherwise the statuses are enough while the
line of parents is complete: if a backup needs an ancestor, then a relative names that ancestor as its parent.
"""

from __future__ import annotations

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import PermanentError
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.observed import ObservedBackup


def dependents_of(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the namespace that need this one's data."""
    me, listed = observed.backup.backup_id, observed.needed_by or ()
    unfinished = {
        sibling.uid
        for sibling in orphaned_incrementals(observed)
        if volume_lock.own_phase(sibling) is BackupPhase.CREATING
    }
    return tuple(
        sibling
        for sibling in observed.siblings
        if needed_parent_id(sibling) == me or sibling.backup_id in listed or sibling.uid in unfinished
    )


def needed_parent_id(backup: VolumeBackup) -> str | None:
    """Return the id of the parent whose data a backup needs; None if it has no parent, or has failed."""
    return backup.status.parent_id if volume_lock.own_phase(backup) not in (None, BackupPhase.ERROR) else None


def orphaned_incrementals(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the same volume whose parent is no backup of the namespace.

    The statuses do not show which ancestors such a backup needs. While it is being made, nothing shows that: it may
    list packs of every earlier backup.
    """
    volume = observed.backup.status.volume_id if volume_lock.own_phase(observed.backup) is not None else None
    if volume is None:
        return ()
    present = {observed.backup.backup_id, *(sibling.backup_id for sibling in observed.siblings)}
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
    """Return whether others need this backup. While the store does not answer, its last answer counts."""
    if dependents_of(observed) or not orphaned_incrementals(observed):
        return bool(dependents_of(observed))
    if observed.needed_by is not None and observed.references_error is None:
        return False
    return volume_lock.own_phase(observed.backup) is not None and bool(observed.backup.status.has_dependent_backups)


def unknown(why: str) -> PermanentError:
    """Return the error of a deletion that cannot know whether others need the data. ``why`` says what to do."""
    cause = why.removesuffix(".")
    return PermanentError(f"Whether other backups need this one is unknown: {cause}.", reason="ReferencesUnknown")
