"""Bring one object forward by one step: read it live, decide, perform, write the status if it changed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from cinderblock.api import labels
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.metrics import recorder as metrics_recorder
from cinderblock.controller.reconcile import gather_backup, gather_restore, gather_store
from cinderblock.controller.reconcile.execute import Target, execute, release_job
from cinderblock.controller.reconcile.orphans import release_volume
from cinderblock.controller.request import OWN_KINDS, ObjectKey
from cinderblock.controller.requeue import RequeuePolicy
from cinderblock.controller.stores.secrets import begin_to_look
from cinderblock.errors import CinderblockError, Conflict, NotFound, PermanentError
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import events
from cinderblock.lifecycle.actions import (
    Action,
    AddFinalizer,
    AnyStatus,
    CreateChild,
    CreateClaim,
    Decision,
    DeleteStoredData,
    RemoveFinalizer,
)
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.store import decide as store_decide
from cinderblock.observability import log as observability_log

log = logging.getLogger(__name__)

CONFLICT_RETRY_SECONDS = 0.5
"""Seconds until we look again at an object that changed under us."""

KINDS: dict[str, Kind] = OWN_KINDS | {kind.kind: kind for kind in (kinds.JOB, kinds.PV)}

KindReconciler = Callable[[Context, dict[str, Any]], Awaitable[float | None]]


class Reconciler:
    """The one reconcile function, for every kind of ours."""

    def __init__(self, context: Context, requeue_policy: RequeuePolicy | None = None) -> None:
        self._eyes = context
        self._pace = requeue_policy or RequeuePolicy()
        self._steps: dict[str, KindReconciler] = {
            "BackupStore": _reconcile_store,
            "VolumeBackup": _reconcile_backup,
            "VolumeRestore": _reconcile_restore,
            "Job": _release_orphan,
            "PersistentVolume": release_volume,
        }

    async def __call__(self, key: ObjectKey) -> float | None:
        """Bring the object forward. Returns the seconds until it wants to be looked at again, or None.

        Raises what the API server or a store raise.
        """
        begin_to_look()
        body = await self._eyes.kube.get(KINDS[key.kind], key.name, key.namespace)
        if body is None:
            self._pace.forget(key)
            return None
        observability_log.add_uid(body["metadata"]["uid"])
        return self._pace.next(key, body["metadata"]["resourceVersion"], await self._look(key, body))

    async def _look(self, key: ObjectKey, body: dict[str, Any]) -> float | None:
        try:
            return await self._steps[key.kind](self._eyes, body)
        except Conflict as error:
            log.info("Looking again: %s", error.message)
            return CONFLICT_RETRY_SECONDS
        except ValidationError as error:
            # The CRD lets nothing through that does not parse; an object from before an upgrade might not.
            problems = error.errors(include_input=False, include_url=False)
            log.error("The object does not parse and is left alone: %s", problems)
            return None


async def _reconcile_backup(context: Context, body: dict[str, Any]) -> float | None:
    backup = VolumeBackup.model_validate(body)
    observed = await gather_backup.gather(context, backup)
    observed = replace(observed, mover=context.admission.observe(backup, observed.mover, observed.store.store))
    now = context.clock()
    subject = Target(OWN_KINDS["VolumeBackup"], backup, body, observed.store.store)
    decision = backup_decide.decide(observed, now)
    context.admission.record(backup, observed.mover, observed.store.store, decision, context.policy.mover.limit)
    done = await _execute(context, subject, decision, partial(backup_decide.on_action_error, observed, now))
    return await _record(context, subject, done, backup.status)


async def _reconcile_restore(context: Context, body: dict[str, Any]) -> float | None:
    restore = VolumeRestore.model_validate(body)
    observed = await gather_restore.gather(context, restore)
    observed = replace(observed, mover=context.admission.observe(restore, observed.mover, observed.store.store))
    now = context.clock()
    subject = Target(OWN_KINDS["VolumeRestore"], restore, body, observed.store.store)
    decision = restore_decide.decide(observed, now)
    context.admission.record(restore, observed.mover, observed.store.store, decision, context.policy.mover.limit)
    done = await _execute(context, subject, decision, partial(restore_decide.on_action_error, observed, now))
    return await _record(context, subject, done, restore.status)


async def _execute(
    context: Context, subject: Target, decision: Decision, refused: Callable[[CinderblockError], Decision]
) -> Decision:
    """Perform the actions of a decision.

    Args:
        eyes: what to perform with.
        subject: the object.
        decision: what to do.
        refused: returns what to do instead, if an action is refused and a status must say so.

    Returns the decision to record: the given one, or the one that a refused action led to. Raises errors of actions
    that no status reports. Errors after this function say nothing about the actions, which are done by then.
    """
    for action in decision.actions:
        try:
            await execute(context, subject, (action,))
        except CinderblockError as error:
            if not _is_reportable(subject, action, error):
                raise
            instead = refused(error)
            await execute(context, subject, instead.actions)
            return instead
    return decision


def _is_reportable(subject: Target, action: Action, error: CinderblockError) -> bool:
    """Whether a status is to tell of a refusal: of a child of an operation that goes on, or of the data's removal."""
    if isinstance(action, DeleteStoredData):
        return True
    final = isinstance(error, PermanentError) and not isinstance(error, Conflict)
    return isinstance(action, CreateChild | CreateClaim) and final and not _is_going(subject)


async def _reconcile_store(context: Context, body: dict[str, Any]) -> float | None:
    store = BackupStore.model_validate(body)
    observed = await gather_store.gather(context, store)
    decision = store_decide.decide(observed, context.clock())
    subject = Target(OWN_KINDS["BackupStore"], store, body, store)
    await execute(context, subject, decision.actions)
    return await _record(context, subject, decision, store.status)


async def _release_orphan(context: Context, body: dict[str, Any]) -> None:
    """Let a mover Job go whose owner is no more: somebody has taken our finalizer off that one by force.

    The garbage collector has asked for its deletion, and nobody else would ever take our finalizer off.
    """
    job = Object.model_validate(body)
    kind = OWN_KINDS.get(job.metadata.labels.get(labels.OWNER_KIND_LABEL, ""))
    owner_name = job.metadata.annotations.get(labels.OWNER_NAME_ANNOTATION)
    owner = await context.kube.get(kind, owner_name, job.namespace) if kind and owner_name else None
    if job.metadata.is_being_deleted and not (owner and job.metadata.is_owned_by(owner["metadata"]["uid"])):
        await release_job(context, job)


async def _record(
    context: Context,
    subject: Target,
    decision: Decision,
    before: AnyStatus,
) -> float | None:
    """Write the status of a decision whose actions are done, and announce it. Returns when to look again."""
    gone = any(isinstance(action, RemoveFinalizer) for action in decision.actions) and _is_going(subject)
    if decision.status is not None and decision.status != before and not gone:
        await _write_status(context, subject, decision)
        # Afterwards, so that what is told once is not told again because the status could not be written.
        await execute(context, subject, events.on_transition(before, decision.status))
    _record_metrics(context, subject, decision.status, gone=gone)
    return decision.requeue_after


def _record_metrics(context: Context, subject: Target, status: AnyStatus | None, *, gone: bool) -> None:
    """Tell the instruments if an operation has ended."""
    now = context.clock()
    match subject.seen, status:
        case VolumeBackup() | VolumeRestore() as seen, _ if gone:
            metrics_recorder.deletion_finished(context.metrics, seen, now)
        case VolumeBackup() as backup, VolumeBackupStatus() as written:
            metrics_recorder.backup_written(context.metrics, backup, written, now)
        case VolumeRestore() as restore, VolumeRestoreStatus() as written:
            metrics_recorder.restore_written(context.metrics, restore, written, now)
        case _:
            pass


def _is_going(subject: Target) -> bool:
    return subject.seen.metadata.is_being_deleted


async def _write_status(context: Context, subject: Target, decision: Decision) -> None:
    """Write it over what was seen; if that has changed since, over what is there now, if it is the same object."""
    seen, status = subject.seen, decision.status
    if status is None:
        return
    write = partial(context.kube.apply_status, subject.kind, seen.name, seen.namespace, status.to_wire(), uid=seen.uid)
    is_changed = any(isinstance(action, AddFinalizer | RemoveFinalizer) for action in decision.actions)
    try:
        if not is_changed:
            with contextlib.suppress(Conflict):
                await write(resource_version=seen.metadata.resource_version)
                return
        await write()
    except NotFound:
        log.info("The object is gone already")
