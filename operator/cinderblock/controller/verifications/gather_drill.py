"""Read what a decision about a BackupVerification needs, at any level. Level Restore has other objects than a mover."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api import labels
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, Pod
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import choose_store, list_mover_pods
from cinderblock.controller.reconcile.running_movers import load_movers
from cinderblock.controller.verifications import gather as gather_reading
from cinderblock.controller.verifications.gather import recorded_backup, with_choice, with_store
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds, queries
from cinderblock.lifecycle.observed import ObservedMover, ObservedVerification
from cinderblock.lifecycle.verification.decide import is_accepted
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill


async def gather(context: Context, verification: BackupVerification) -> ObservedVerification:
    """Return the observed state of a BackupVerification, as far as it matters in its phase."""
    if verification.spec.level is VerificationLevel.RESTORE:
        return await _gather_drill(context, verification)
    return await gather_reading.gather(context, verification)


async def _gather_drill(context: Context, verification: BackupVerification) -> ObservedVerification:
    """Return the observed state of a drill.

    It has no mover Job of its own: the recorded child holds the slot, so the mover counts as not recorded.
    """
    mover, drill = ObservedMover(is_recorded=False), await _children(context, verification)
    observed = ObservedVerification(verification, context.policy, mover=mover, drill=drill)
    if verification.metadata.is_being_deleted or verification.has_ended:
        return observed
    if not is_accepted(observed):
        return await with_choice(context, await _with_check(context, observed, drill))
    await load_movers(context)
    observed = replace(observed, backup=await recorded_backup(context, verification))
    if drill.restore is None:
        return await with_store(context, await _with_check(context, observed, drill))
    if drill.job is None and drill.restore.has_ended:
        observed = await _with_check(context, observed, drill)
    return await _with_recorded_store(context, observed)


async def _children(context: Context, verification: BackupVerification) -> ObservedDrill:
    name, namespace = labels.child_name(verification.uid), verification.namespace
    drill = ObservedDrill(
        restore=await context.get(VolumeRestore, kinds.VOLUME_RESTORE, name, namespace),
        claim=await context.get(PersistentVolumeClaim, kinds.PVC, name, namespace),
        job=await context.get(Job, kinds.JOB, name, namespace),
        pods=await list_mover_pods(context, verification),
    )
    subject = _not_started(drill)
    if subject is None:
        return drill
    return replace(drill, warning=await queries.newest_warning(context.kube, namespace, subject.uid))


def _not_started(drill: ObservedDrill) -> Job | Pod | None:
    """Return the check that has not started: its newest pod, or its Job; None if it has, or if there is none."""
    if drill.job is None or drill.job.is_complete or drill.job.failure is not None:
        return None
    if not drill.own_pods:
        return drill.job
    newest = drill.own_pods[-1]
    return newest if newest.status.phase == "Pending" else None


async def _with_check(context: Context, observed: ObservedVerification, drill: ObservedDrill) -> ObservedVerification:
    """Add the CronJob of the check. The operator may read it only where an administrator allows checks."""
    check = observed.verification.spec.restore.check
    if check is None:
        return observed
    try:
        body = await context.kube.get(kinds.CRON_JOB, check.cron_job_name, observed.verification.namespace)
    except AccessDenied as error:
        return replace(observed, drill=replace(drill, cron_job_error=error))
    return replace(observed, drill=replace(drill, cron_job=body))


async def _with_recorded_store(context: Context, observed: ObservedVerification) -> ObservedVerification:
    """Add the store of the backup, whose slot the drill uses. It is not asked: the restore does that."""
    backup = observed.backup
    if backup is None:
        return observed
    return replace(observed, store=await choose_store(context, backup.namespace, backup.status.store_name))
