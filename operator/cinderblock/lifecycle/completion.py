"""The instant when an operation completed, and how long it took: ``completedAt`` and ``duration`` of a status.

The instant is recorded when the phase becomes final, and never changes after that. Nobody knows it for an operation
whose status was lost, unless its mover is still there. A deletion does not complete an operation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api import labels
from cinderblock.api.duration import from_timedelta
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.verification import BackupVerification, BackupVerificationStatus
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup, ObservedMover, ObservedRestore
from cinderblock.lifecycle.restore import checks as restore_checks


def complete_backup(observed: ObservedBackup, status: VolumeBackupStatus, now: datetime) -> VolumeBackupStatus:
    """Return ``status`` with the time of completion, if this decision completes the backup.

    An imported backup has none, because nothing was copied.
    """
    backup = observed.backup
    completes = status.phase is not None and status.phase.is_final and not backup.has_ended
    if not completes or backup.spec.import_ or backup.metadata.is_being_deleted:
        return status
    completed = _mover_end(observed.mover) if checks.is_forgotten(backup) else now
    return status.model_copy(update=_fields(backup, completed))


def complete_restore(observed: ObservedRestore, status: VolumeRestoreStatus, now: datetime) -> VolumeRestoreStatus:
    """Return ``status`` with the time of completion, if this decision completes the restore."""
    restore = observed.restore
    before = restore.own_phase
    completes = status.phase is not None and status.phase.is_final and not restore.has_ended
    if not completes or restore.metadata.is_being_deleted:
        return status
    completed = _mover_end(observed.mover) if before is None and _has_begun(restore) else now
    return status.model_copy(update=_fields(restore, completed))


def complete_verification(
    verification: BackupVerification, status: BackupVerificationStatus, now: datetime
) -> BackupVerificationStatus:
    """Return ``status`` with the time of completion, if this decision completes the verification."""
    completes = status.phase is not None and status.phase.is_final and not verification.has_ended
    if not completes or verification.metadata.is_being_deleted:
        return status
    return status.model_copy(update=_fields(verification, now))


def _has_begun(restore: VolumeRestore) -> bool:
    """Return whether the metadata shows that the operator has worked on a restore, even if its status is lost."""
    return labels.RESTORE_FINALIZER in restore.metadata.finalizers or restore_checks.ended_before(restore) is not None


def _mover_end(mover: ObservedMover) -> datetime | None:
    """Return when the last pod of a mover terminated, or None if a pod still runs or no pod tells."""
    if mover_state.is_at_work(mover):
        return None
    ends = [pod.terminated.finished_at for pod in mover.pods if pod.terminated and pod.terminated.finished_at]
    return max(ends, default=None)


def _fields(operation: Object, completed: datetime | None) -> dict[str, Any]:
    created = operation.metadata.creation_timestamp
    if completed is None or created is None:
        return {}
    completed = completed.replace(microsecond=0)
    return {"completed_at": completed, "duration": from_timedelta(completed - created)}
