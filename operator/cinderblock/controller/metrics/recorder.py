"""What is told to the instruments: how long a look at an object took, and that an operation has ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore, VolumeRestoreStatus
from cinderblock.controller.request import ObjectKey
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.observability.cluster_state import OperationKind
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.reasons import Reason


def instrumented(
    reconcile: Callable[[ObjectKey], Awaitable[float | None]], metrics: OperatorMetrics
) -> Callable[[ObjectKey], Awaitable[float | None]]:
    """``reconcile``, with every call measured."""

    async def measured(key: ObjectKey) -> float | None:
        began, is_success = time.monotonic(), False
        try:
            requeue_after = await reconcile(key)
            is_success = True
        finally:
            metrics.observe_reconcile(key.kind, is_success=is_success, seconds=time.monotonic() - began)
        return requeue_after

    return measured


def backup_written(metrics: OperatorMetrics, seen: VolumeBackup, status: VolumeBackupStatus, now: datetime) -> None:
    """The status of a VolumeBackup was written. What was adopted, or put together again, was not made now."""
    before, after = seen.own_phase, status.phase
    if seen.metadata.is_being_deleted:
        if after is BackupPhase.ERROR_DELETING and before is not after:
            seconds = _since(seen.metadata.deletion_timestamp, now)
            metrics.observe_operation(OperationKind.DELETE, is_success=False, seconds=seconds)
        return
    has_ended = after is not None and after.is_final and not seen.has_ended
    if not has_ended or seen.spec.import_ or backup_checks.is_forgotten(seen):
        return
    is_success = after is not BackupPhase.ERROR
    seconds = _since(seen.metadata.creation_timestamp, now)
    metrics.observe_operation(OperationKind.BACKUP, is_success=is_success, seconds=seconds)
    if is_success:
        metrics.add_bytes(
            OperationKind.BACKUP,
            logical=status.logical_bytes,
            transferred=status.transferred_bytes,
            stored=status.stored_bytes,
        )


def restore_written(metrics: OperatorMetrics, seen: VolumeRestore, status: VolumeRestoreStatus, now: datetime) -> None:
    """The status of a VolumeRestore was written. One whose status was lost had ended before."""
    after = status.phase
    has_ended = after is not None and after.is_final and not seen.has_ended
    if not has_ended or any(c.reason == Reason.STATUS_LOST for c in status.conditions):
        return
    is_success = after is RestorePhase.AVAILABLE
    seconds = _since(seen.metadata.creation_timestamp, now)
    metrics.observe_operation(OperationKind.RESTORE, is_success=is_success, seconds=seconds)
    if is_success:
        metrics.add_bytes(OperationKind.RESTORE, restored=status.restored_bytes)


def deletion_finished(metrics: OperatorMetrics, seen: VolumeBackup | VolumeRestore, now: datetime) -> None:
    """Our finalizer was taken off an object that is being deleted."""
    metrics.observe_operation(
        OperationKind.DELETE, is_success=True, seconds=_since(seen.metadata.deletion_timestamp, now)
    )


def _since(asked: datetime | None, now: datetime) -> float:
    """Seconds; the API server's clock may be ahead of ours."""
    return max(0.0, (now - asked).total_seconds()) if asked else 0.0
