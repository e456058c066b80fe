"""Copy the backups of stores, one mover for each store at a time, each with a few backups.

Everything that must survive a restart is in statuses: which backups have copies, which Job is the mover, and when to
try again after a failure. The memory only saves work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, CopyMover, CopyStatus
from cinderblock.controller.context import Context
from cinderblock.controller.copies import gather
from cinderblock.controller.copies.record import record_results
from cinderblock.controller.copies.slots import CopySlots
from cinderblock.controller.reconcile.execute import Target, execute
from cinderblock.controller.reconcile.running_movers import load_movers
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, CreateChild, RecordEvent
from cinderblock.lifecycle.conditions import UntimedCondition
from cinderblock.lifecycle.copies import decide, outcome
from cinderblock.lifecycle.copies.outcome import CopyOutcome
from cinderblock.lifecycle.copies.place import place_of, refusal
from cinderblock.lifecycle.copies.survey import Survey
from cinderblock.lifecycle.copies.task import mover_task
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedMover, ObservedStore, StoreLookup
from cinderblock.lifecycle.store import movers
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

SURVEY_SECONDS: Final = 60.0
"""Seconds between two lists of the VolumeBackups of a store."""
SURVEY_RATIO: Final = 50
"""That time is at least so many times the duration of the list, so that lists cost little more than 2 % of a core."""
QUEUED_SECONDS: Final = 30.0
"""Seconds until a store that waits for a slot asks again."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Inputs of one step.

    Attributes:
        context: the dependencies of the operator.
        observed: the store.
        target: the same store, for actions.
    """

    context: Context
    observed: ObservedStore
    target: Target

    @property
    def store(self) -> BackupStore:
        """The store whose backups are copied."""
        return self.observed.store

    @property
    def key(self) -> ObjectKey:
        """The key of the store."""
        return ObjectKey(kinds.BACKUP_STORE.kind, self.store.namespace, self.store.name)


@dataclass(frozen=True, slots=True)
class _Surveyed:
    """The result of a survey.

    Attributes:
        targets: the stores of spec.copies by name.
        refusals: why some of them cannot get copies.
        known: numbers of the others.
        batches: the backups that they get next.
    """

    targets: dict[str, StoreLookup]
    refusals: dict[str, Fail]
    known: dict[str, CopyStatus]
    batches: dict[str, list[VolumeBackup]]


@dataclass(slots=True)
class CopyReconciler:
    """Moves the copies of stores one step forward. For one event loop."""

    slots: CopySlots = field(default_factory=CopySlots)
    _due: dict[ObjectKey, datetime] = field(default_factory=dict)
    """When the next survey of a store is due."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a BackupStore that no longer exists."""
        self.slots.release(key)
        self._due.pop(key, None)

    async def step(self, context: Context, observed: ObservedStore, target: Target) -> CopyOutcome:
        """Move the copies of a store one step forward, and return what its status shows then.

        Args:
            context: the dependencies of the operator.
            observed: the store.
            target: the same store, for actions.

        Raises what the API server raises.
        """
        step, store = _Step(context, observed, target), observed.store
        if not store.spec.copies and store.status.copy_mover is None:
            return CopyOutcome(is_off=True)
        mover = await gather.observe_mover(context, store)
        if decide.must_discard(store, mover):
            return await _discard(step, mover)
        if mover.job is not None:
            return await self._follow(step, mover)
        if not store.spec.copies or store.metadata.is_being_deleted:
            self.forget(step.key)
            return CopyOutcome(is_off=True)
        return await self._begin(step)

    async def _follow(self, step: _Step, mover: ObservedMover) -> CopyOutcome:
        """Follow the mover. When it has ended, record its results, and then remove its Job."""
        context, store, recorded = step.context, step.store, step.store.status.copy_mover
        if recorded is None:
            raise ValueError("a Job that the status does not record is discarded")
        if mover_state.is_running(mover):
            self.slots.observe_running(step.key)
        else:
            # A queue may hold a Job back without limit, and must not hold a slot of all namespaces so long.
            self.slots.release(step.key)
        now = context.clock()
        verdict = decide.follow(store, mover, context.policy, now)
        if isinstance(verdict, decide.Continues):
            await execute(context, step.target, verdict.actions)
            return CopyOutcome(store.status.copy_targets or (), verdict.mover, requeue_after=MIN_REQUEUE_SECONDS)
        await record_results(context, store, recorded, verdict.results, verdict.at)
        await execute(context, step.target, decide.removal(store, mover))
        self.forget(step.key)
        known, failure = outcome.status_of(store, recorded.store_name), verdict.failure
        if failure is None:
            known = decide.after_success(known)
        else:
            note = f"Cannot copy backups to BackupStore {recorded.store_name}: {failure.message}"
            await execute(context, step.target, (RecordEvent("Warning", failure.reason, note),))
            known = decide.after_failure(known, failure.reason, failure.message, now)
        return CopyOutcome(outcome.replaced(store.status.copy_targets or (), known), requeue_after=0.0)

    async def _begin(self, step: _Step) -> CopyOutcome:
        """Find out which backups lack a copy, and start a mover if one may start."""
        loop, store, now = asyncio.get_running_loop(), step.store, step.context.clock()
        wait = (self._due.get(step.key, now) - now).total_seconds()
        if wait > 0:
            return CopyOutcome(store.status.copy_targets or (), requeue_after=max(MIN_REQUEUE_SECONDS, wait))
        began = loop.time()
        found = await _survey(step)
        pause = max(SURVEY_SECONDS, SURVEY_RATIO * (loop.time() - began))
        rules = store.spec.copies
        copies = [found.known.get(rule.store_name) or outcome.status_of(store, rule.store_name) for rule in rules]
        condition = outcome.condition_of(rules, copies, found.refusals, now)
        result = CopyOutcome(copies, condition=condition)
        chosen = decide.choose(found.known, found.batches, now)
        if chosen is None:
            self.slots.release(step.key)
            seconds = decide.next_step_seconds(copies, now, pause)
            self._due[step.key] = now + timedelta(seconds=seconds)
            return replace(result, requeue_after=seconds)
        await load_movers(step.context)
        settings = step.context.policy.mover
        load = step.context.admission.measure(store.namespace, settings)
        if not self.slots.take(step.key, load, settings, now.timestamp()):
            self._due[step.key] = now + timedelta(seconds=QUEUED_SECONDS)
            return replace(result, requeue_after=QUEUED_SECONDS)
        mover = await _start(step, found.targets[chosen], found.batches[chosen])
        if isinstance(mover, CopyMover):
            return replace(result, mover=mover, requeue_after=MIN_REQUEUE_SECONDS)
        self.forget(step.key)
        failed = decide.after_failure(found.known[chosen], mover.reason, mover.message, now)
        copies = outcome.replaced(copies, failed)
        condition = outcome.condition_of(rules, copies, found.refusals, now)
        return CopyOutcome(
            copies, condition=condition, requeue_after=decide.next_step_seconds(copies, now, SURVEY_SECONDS)
        )


async def _discard(step: _Step, mover: ObservedMover) -> CopyOutcome:
    """Remove a Job that the status does not record. One of somebody else stays, and keeps copies from being made."""
    store, job = step.store, mover.job
    await execute(step.context, step.target, decide.removal(store, mover))
    if job is None or job.metadata.is_owned_by(store.uid):
        return CopyOutcome(store.status.copy_targets or (), requeue_after=MIN_REQUEUE_SECONDS)
    message = f"Cannot create Job {job.name}: an object of this name exists. Delete it."
    taken = UntimedCondition("False", Reason.NAME_TAKEN, message)
    return CopyOutcome(store.status.copy_targets or (), condition=taken, requeue_after=SURVEY_SECONDS)


async def _survey(step: _Step) -> _Surveyed:
    """Read the stores of spec.copies, and count the backups that lack a copy in each of them."""
    context, store, now = step.context, step.store, step.context.clock()
    targets = await gather.targets_of(context, store)
    found = {name: refusal(store, name, lookup) for name, lookup in targets.items()}
    refusals = {name: refused for name, refused in found.items() if refused is not None}
    surveys = {
        rule.store_name: Survey(store, rule, place_of(copy_to), now, copy_to.spec.object_lock)
        for rule in store.spec.copies
        if rule.store_name not in refusals and (copy_to := targets[rule.store_name].store) is not None
    }
    if surveys:
        await gather.survey_backups(context, store, surveys.values())
    known = {name: survey.status(outcome.status_of(store, name)) for name, survey in surveys.items()}
    batches = {name: survey.next_batch() for name, survey in surveys.items()}
    return _Surveyed(targets, refusals, known, batches)


async def _start(step: _Step, lookup: StoreLookup, batch: Sequence[VolumeBackup]) -> CopyMover | Fail:
    """Create the mover for some backups, or return what is in the way. The status records it before it starts."""
    context, store, settings = step.context, step.store, step.context.policy.mover
    probed = await gather.probe_target(context, lookup)
    copy_to, error = probed.store, step.observed.lookup.error or probed.error
    if error is not None or copy_to is None:
        return Fail(error.reason, error.message) if error is not None else Fail(lookup.missing_reason, lookup.missing)
    refused = movers.refusal(step.observed.lookup, settings)
    if refused is not None:
        return refused
    task = mover_task(store, copy_to, batch, settings, context.clock())
    job = mover_job.mover_job(store, task, store, None, settings, target=copy_to)
    try:
        uid = await execute(context, step.target, (CreateChild("Job", job),))
    except PermanentError as refused_by_api:
        return Fail(refused_by_api.reason, refused_by_api.message)
    if uid is None:
        return Fail(Reason.MOVER_DELETED, "The mover Job was deleted by somebody else.")
    note = f"Mover Job {job['metadata']['name']} copies {len(batch)} backups to BackupStore {copy_to.name}"
    log.info("%s", note)
    return CopyMover(uid=uid, store_name=copy_to.name, place=place_of(copy_to))
