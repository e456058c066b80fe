"""Which movers run when this process begins to lead, as the statuses of their operations record."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationPhase
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.children import Owner
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import RunningMover

BACKUP_PHASES = (BackupPhase.CREATING, BackupPhase.DELETING, BackupPhase.ERROR_DELETING)
"""Phases of a backup that may have a mover."""
MOVERS_PER_NAMESPACE: Final = 256
"""Movers of one namespace that are counted at the beginning, or as many as the namespace may have, if that is more.

They take 0.1 MB. The others are counted when their operations are reconciled, as every operation in progress is."""


async def load_movers(context: Context) -> None:
    """Count the movers that statuses record, once. Raises what the API server raises."""
    if not _is_loaded(context):
        await context.singleflight.do(load_movers, lambda: _load(context))


async def _load(context: Context) -> None:
    if _is_loaded(context):
        return
    lists = await asyncio.gather(
        *(_read(context, VolumeBackup, kinds.VOLUME_BACKUP, phase) for phase in BACKUP_PHASES),
        _read(context, VolumeRestore, kinds.VOLUME_RESTORE, RestorePhase.RESTORING),
    )
    verifying = await _read_verifications(context)
    shared = await _shared_stores(context)
    context.admission.load(_with_cluster_store(mover, shared) for movers in lists for mover in movers)
    context.verification_admission.load(_with_cluster_store(mover, shared) for mover in verifying)


async def _shared_stores(context: Context) -> dict[tuple[str, str], str]:
    """Return the ClusterBackupStores of all BackupStores that name one, by namespace and name of the BackupStore."""
    found: dict[tuple[str, str], str] = {}
    async for page in context.kube.pages(kinds.BACKUP_STORE):
        for store in parse_all(BackupStore, page or []):
            if store.spec.cluster_store_ref is not None:
                found[store.namespace, store.name] = store.spec.cluster_store_ref.name
    return found


def _with_cluster_store(
    found: tuple[ObjectKey, RunningMover], shared: Mapping[tuple[str, str], str]
) -> tuple[ObjectKey, RunningMover]:
    key, mover = found
    return key, replace(mover, cluster_store=shared.get((mover.namespace, mover.store), ""))


def _is_loaded(context: Context) -> bool:
    return context.admission.is_loaded and context.verification_admission.is_loaded


async def _read_verifications(context: Context) -> list[tuple[ObjectKey, RunningMover]]:
    """Return the movers of verifications. After an upgrade, the cluster may lack their definition."""
    if not await context.kube.serves(kinds.BACKUP_VERIFICATION):
        return []
    return await _read(context, BackupVerification, kinds.BACKUP_VERIFICATION, VerificationPhase.VERIFYING)


async def _read(
    context: Context, model: type[Owner], kind: Kind, phase: BackupPhase | RestorePhase | VerificationPhase
) -> list[tuple[ObjectKey, RunningMover]]:
    """Return the movers of the operations in a phase, at most MOVERS_PER_NAMESPACE of each namespace.

    Anybody can create operations without number, so no more than a page of them is in memory.
    """
    at_most = max(MOVERS_PER_NAMESPACE, context.policy.mover.namespace_limit)
    movers: list[tuple[ObjectKey, RunningMover]] = []
    counts: Counter[str] = Counter()
    async for page in context.kube.pages(kind, fields=f"status.phase={phase}"):
        if page is None:
            movers, counts = [], Counter()
            continue
        for operation in parse_all(model, page):
            found = _running(operation)
            if found is not None and counts[operation.namespace] < at_most:
                counts[operation.namespace] += 1
                movers.append(found)
    return movers


def _running(operation: Owner) -> tuple[ObjectKey, RunningMover] | None:
    """Return the mover of an operation, if its own status records one or release 0.1.0 had started it."""
    status = operation.status
    if not mover_state.has_mover(operation):
        return None
    store = status.mover.store_name if status.mover else getattr(status, "store_name", None)
    key = ObjectKey(operation.kind, operation.namespace, operation.name)
    return key, RunningMover(operation.uid, operation.namespace, store or "")
