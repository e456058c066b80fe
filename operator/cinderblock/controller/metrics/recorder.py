"""Counts operations that have ended."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.verification import BackupVerification, BackupVerificationStatus, VerificationPhase
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.observability.cluster_state import OperationKind
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.reasons import Reason


def backup_written(metrics: OperatorMetrics, backup: VolumeBackup, status: VolumeBackupStatus, now: datetime) -> None:
    """Count a backup whose status was written, if it ended now. Imported and recovered ones ended earlier."""
    before, after = backup.own_phase, status.phase
    if backup.metadata.is_being_deleted:
        if after is BackupPhase.ERROR_DELETING and before is not after:
            seconds = _since(backup.metadata.deletion_timestamp, now)
            metrics.observe_operation(OperationKind.DELETE, is_success=False, seconds=seconds)
        return
    completes = after is not None and after.is_final and not backup.has_ended
    if not completes or backup.spec.import_ or backup_checks.is_forgotten(backup):
        return
    is_success = after is not BackupPhase.ERROR
    seconds = _since(backup.metadata.creation_timestamp, now)
    metrics.observe_operation(OperationKind.BACKUP, is_success=is_success, seconds=seconds)
    if is_success:
        metrics.add_bytes(
            OperationKind.BACKUP,
            logical=status.logical_bytes,
            transferred=status.transferred_bytes,
            stored=status.stored_bytes,
        )
        for condition in status.conditions:
            if condition.type == ConditionType.SUSPICIOUS and condition.status == "True":
                metrics.count_alarm(condition.reason)


def restore_written(
    metrics: OperatorMetrics, restore: VolumeRestore, status: VolumeRestoreStatus, now: datetime
) -> None:
    """Count a restore whose status was written, if it ended now. One whose status was lost ended earlier."""
    after = status.phase
    completes = after is not None and after.is_final and not restore.has_ended
    if not completes or any(c.reason == Reason.STATUS_LOST for c in status.conditions):
        return
    is_success = after is RestorePhase.AVAILABLE
    seconds = _since(restore.metadata.creation_timestamp, now)
    metrics.observe_operation(OperationKind.RESTORE, is_success=is_success, seconds=seconds)
    if is_success:
        metrics.add_bytes(OperationKind.RESTORE, restored=status.restored_bytes)


def verification_written(
    metrics: OperatorMetrics, verification: BackupVerification, status: BackupVerificationStatus, now: datetime
) -> None:
    """Count a verification whose status was written, if it ended now. Damage is a result, and no error."""
    after = status.phase
    if after is None or not after.is_final or verification.has_ended or verification.metadata.is_being_deleted:
        return
    is_success = after is not VerificationPhase.ERROR
    seconds = _since(verification.metadata.creation_timestamp, now)
    metrics.observe_operation(OperationKind.VERIFICATION, is_success=is_success, seconds=seconds)
    if is_success:
        metrics.add_bytes(OperationKind.VERIFICATION, read=status.bytes_read)


def deletion_finished(metrics: OperatorMetrics, operation: VolumeBackup | VolumeRestore, now: datetime) -> None:
    """Count the deletion of an object from which the operator's finalizer was removed."""
    metrics.observe_operation(
        OperationKind.DELETE, is_success=True, seconds=_since(operation.metadata.deletion_timestamp, now)
    )


def _since(began: datetime | None, now: datetime) -> float:
    """Return the seconds since ``began``; never negative, since the API server's clock may be ahead."""
    return max(0.0, (now - began).total_seconds()) if began else 0.0
