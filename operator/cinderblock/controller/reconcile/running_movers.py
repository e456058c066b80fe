"""Which movers run when this process begins to lead, as the statuses of their operations record."""

from __future__ import annotations

import asyncio

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import RunningMover

BACKUP_PHASES = (BackupPhase.CREATING, BackupPhase.DELETING, BackupPhase.ERROR_DELETING)
"""Phases of a backup that may have a mover."""


async def load_movers(context: Context) -> None:
    """Count the movers that statuses record, once. Raises what the API server raises."""
    if not context.admission.is_loaded:
        await context.singleflight.do(load_movers, lambda: _load(context))


async def _load(context: Context) -> None:
    if context.admission.is_loaded:
        return
    selections = await asyncio.gather(
        *(context.kube.list(kinds.VOLUME_BACKUP, fields=f"status.phase={phase}") for phase in BACKUP_PHASES),
    )
    backups = parse_all(VolumeBackup, [body for found in selections for body in found])
    bodies = await context.kube.list(kinds.VOLUME_RESTORE, fields=f"status.phase={RestorePhase.RESTORING}")
    operations: list[VolumeBackup | VolumeRestore] = [*backups, *parse_all(VolumeRestore, bodies)]
    context.admission.load(found for operation in operations if (found := _running(operation)) is not None)


def _running(operation: VolumeBackup | VolumeRestore) -> tuple[ObjectKey, RunningMover] | None:
    """Return the mover of an operation, if its own status records one or release 0.1.0 had started it."""
    status = operation.status
    if not mover_state.has_mover(operation):
        return None
    store = status.mover.store_name if status.mover else getattr(status, "store_name", None)
    key = ObjectKey(operation.kind, operation.namespace, operation.name)
    return key, RunningMover(operation.uid, operation.namespace, store or "")
