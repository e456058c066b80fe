"""Read what a decision about a BackupVerification needs."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import list_mover_pods, observe_mover, probe_store, store_of
from cinderblock.controller.verifications.choose import choose_backup, list_reads
from cinderblock.controller.verifications.findings import read_findings
from cinderblock.kube import kinds
from cinderblock.lifecycle.observed import ObservedMover, ObservedVerification
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.verification import outcome
from cinderblock.lifecycle.verification.decide import is_accepted


async def gather(context: Context, verification: BackupVerification) -> ObservedVerification:
    """Return the observed state of a BackupVerification, as far as it matters in its phase."""
    observed = ObservedVerification(verification, context.policy, mover=await _mover(context, verification))
    if verification.metadata.is_being_deleted or verification.has_ended:
        return observed
    if not is_accepted(observed):
        return await with_choice(context, observed)
    if observed.mover.job is None:
        backup = await recorded_backup(context, verification)
        return await with_store(context, replace(observed, backup=backup))
    if outcome.has_ended(observed.mover):
        backup = await recorded_backup(context, verification)
        recorded = verification.status.mover
        if backup is not None and recorded is not None:
            lookup = await store_of(context, backup, recorded.store_name)
            if lookup.error is not None:
                return replace(observed, backup=backup, store=lookup)
        recording = await read_findings(context, verification, observed.mover, backup)
        return replace(observed, backup=backup, recording=recording)
    return observed


async def _mover(context: Context, verification: BackupVerification) -> ObservedMover:
    """Return the mover Job, with the pods that it owns. Other pods with the same labels report nothing."""
    mover = await observe_mover(context, verification, None)
    job = mover.job
    if job is None:
        return replace(mover, pods=await list_mover_pods(context, verification))
    return replace(mover, pods=tuple(pod for pod in mover.pods if pod.metadata.is_owned_by(job.uid)))


async def recorded_backup(context: Context, verification: BackupVerification) -> VolumeBackup | None:
    """Return the VolumeBackup that was chosen; None if it no longer exists."""
    status = verification.status
    found = await context.get(VolumeBackup, kinds.VOLUME_BACKUP, status.backup_name or "", verification.namespace)
    return found if found is not None and found.backup_id == status.backup_id else None


async def with_choice(context: Context, observed: ObservedVerification) -> ObservedVerification:
    """Add the backup to choose, its store, and what earlier verifications have read."""
    verification = observed.verification
    first, more = await context.kube.list_first(kinds.BACKUP_VERIFICATION, verification.namespace, 1)
    observed = replace(observed, object_count=len(first) + more)
    if observed.object_count > context.policy.object_limit:
        return observed
    backup = await choose_backup(context, verification)
    reads = await list_reads(context, verification, backup) if backup is not None else ()
    return await with_store(context, replace(observed, backup=backup, reads=reads))


async def with_store(context: Context, observed: ObservedVerification) -> ObservedVerification:
    backup = observed.backup
    if backup is None:
        return observed
    lookup = await store_of(context, backup, backup.status.store_name or backup.spec.store_name)
    if lookup.store is None or lookup.error is not None or not backup.is_complete:
        return replace(observed, store=lookup)
    container = place.container_of(lookup.store, backup.status.container)
    return replace(observed, store=await probe_store(context, lookup, container))
