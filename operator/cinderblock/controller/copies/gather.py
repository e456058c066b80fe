"""Read what a step of the copies of a store needs: its mover, the stores of spec.copies, and the VolumeBackups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cinderblock.api.kubernetes import Job
from cinderblock.api.labels import child_name
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import choose_store, list_mover_pods, mover_progress, probe_store
from cinderblock.controller.schedules.gather import parsed_pages
from cinderblock.kube import kinds, queries
from cinderblock.lifecycle.copies.survey import Survey
from cinderblock.lifecycle.observed import ObservedMover, StoreLookup


async def observe_mover(context: Context, store: BackupStore) -> ObservedMover:
    """Return the Job that copies backups of a store, with the pods that it owns. Other pods report nothing."""
    job = await context.get(Job, kinds.JOB, child_name(store.uid), store.namespace)
    if job is None:
        return ObservedMover()
    recorded = store.status.copy_mover
    is_recorded = recorded is not None and recorded.uid == job.uid
    pods = tuple(pod for pod in await list_mover_pods(context, store) if pod.metadata.is_owned_by(job.uid))
    mover = ObservedMover(job=job, is_recorded=is_recorded, pods=pods)
    subject = pods[-1] if pods else job
    if not pods or pods[-1].status.phase == "Pending":
        return replace(mover, warning=await queries.newest_warning(context.kube, store.namespace, subject.uid))
    return replace(mover, progress=await mover_progress(context, store, pods))


async def targets_of(context: Context, store: BackupStore) -> dict[str, StoreLookup]:
    """Return the stores of spec.copies by name. They are not asked whether they answer."""
    return {
        rule.store_name: await choose_store(context, store.namespace, rule.store_name) for rule in store.spec.copies
    }


async def probe_target(context: Context, target: StoreLookup) -> StoreLookup:
    """Add what is wrong with a store that is about to get copies."""
    if target.store is None:
        return target
    return await probe_store(context, target, target.store.spec.container)


async def survey_backups(context: Context, store: BackupStore, surveys: Iterable[Survey]) -> None:
    """Add the VolumeBackups of a store to surveys, page by page. Raises what the API server raises."""
    every = list(surveys)
    fields = f"status.storeName={store.name}"
    async for page in parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, store.namespace, fields=fields):
        for backup in page:
            for survey in every:
                survey.add(backup)
