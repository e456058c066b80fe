"""Move one object one step forward: read it, gather, decide, execute, and write its status if it changed."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import FOREIGN_FIELDS, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrant
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification, BackupVerificationStatus
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.cluster_stores.reconcile import ClusterStoreReconciler
from cinderblock.controller.context import Context
from cinderblock.controller.copies.reconcile import CopyReconciler
from cinderblock.controller.grants.reconcile import decide_grant
from cinderblock.controller.imports.reconcile import ImportReconciler
from cinderblock.controller.metrics import recorder as metrics_recorder
from cinderblock.controller.populate.reconcile import ClaimReconciler
from cinderblock.controller.populate.source import decide_source
from cinderblock.controller.reconcile import gather_backup, gather_restore, gather_store
from cinderblock.controller.reconcile.admission import creates_mover
from cinderblock.controller.reconcile.execute import Target, execute
from cinderblock.controller.reconcile.orphans import release_orphaned_job, release_volume
from cinderblock.controller.request import OWN_KINDS, SCHEDULE_KINDS, ObjectKey, key_of
from cinderblock.controller.requeue import RequeuePolicy, Result
from cinderblock.controller.schedules.reconcile import ScheduleReconciler
from cinderblock.controller.schedules.retention import unmark_backups
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.controller.stores.shared import SharedStoreReader
from cinderblock.controller.verifications import gather_drill as gather_verification
from cinderblock.errors import (
    CinderblockError,
    Conflict,
    KubeUnavailable,
    NotFound,
    PermanentError,
    TransientError,
)
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import events
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    AddFinalizer,
    AnyStatus,
    CheckClaim,
    CreateChild,
    CreateClaim,
    Decision,
    DeleteStoredData,
    RemoveExpiredData,
    RemoveFinalizer,
    StartMover,
)
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.copies.outcome import with_copies
from cinderblock.lifecycle.imports.conclude import with_import
from cinderblock.lifecycle.mover.refusals import is_refused_by_webhook
from cinderblock.lifecycle.observed import ObservedBackup, ObservedRestore, ObservedVerification
from cinderblock.lifecycle.operation import with_mover
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.store import decide as store_decide
from cinderblock.lifecycle.verification import decide as verification_decide
from cinderblock.observability import log as observability_log

log = logging.getLogger(__name__)

CONFLICT_RETRY_SECONDS = 0.5
"""Seconds until an object is reconciled again that changed during its reconciliation."""

RETRY: Final = Decision(None, requeue_after=MIN_REQUEUE_SECONDS)
"""Decision after a failure that no status reports: the queue repeats the first ones within 4 s."""

RECONCILED_KINDS: dict[str, Kind] = OWN_KINDS | {kind.kind: kind for kind in (kinds.JOB, kinds.PV, kinds.PVC)}

KindReconciler = Callable[[Context, dict[str, Any]], Awaitable[float | None]]
"""Moves an object of one kind one step forward. Returns the seconds after which it wants the next step, or None."""

OperationT = TypeVar("OperationT", VolumeBackup, VolumeRestore, BackupVerification)
ObservedT = TypeVar("ObservedT", ObservedBackup, ObservedRestore, ObservedVerification)


class Reconciler:
    """The one reconcile function of all kinds.

    Args:
        context: what to reconcile with.
        requeue_policy: when to reconcile again.
        broker: the broker; None: there is none.
    """

    def __init__(
        self, context: Context, requeue_policy: RequeuePolicy | None = None, broker: Broker | None = None
    ) -> None:
        self._context = context
        self._requeue_policy = requeue_policy or RequeuePolicy()
        self._broker = broker or Broker()
        self._schedules = ScheduleReconciler()
        self._imports = ImportReconciler()
        self._copies = CopyReconciler()
        self._cluster_stores = ClusterStoreReconciler(self._broker)
        self._claims = ClaimReconciler()
        self._kinds: dict[str, KindReconciler] = {
            "BackupStore": partial(_reconcile_store, self._broker, self._imports, self._copies),
            "ClusterBackupStore": partial(_reconcile_cluster_store, self._cluster_stores),
            "VolumeBackup": partial(_reconcile_operation, BACKUP_STEPS),
            "VolumeRestore": partial(_reconcile_operation, RESTORE_STEPS),
            "BackupVerification": partial(_reconcile_operation, VERIFICATION_STEPS),
            **dict.fromkeys(SCHEDULE_KINDS, self._schedules.reconcile),
            "BackupGrant": _reconcile_grant,
            "RestoreSource": _reconcile_source,
            "PersistentVolumeClaim": self._claims.reconcile,
            "Job": release_orphaned_job,
            "PersistentVolume": release_volume,
        }

    async def reconcile(self, key: ObjectKey) -> Result:
        """Move the object one step forward, and measure how long that takes.

        Raises what the API server or a store raise.
        """
        began, is_success = time.monotonic(), False
        try:
            result = await self._reconcile(key)
            is_success = True
        finally:
            seconds = time.monotonic() - began
            self._context.metrics.observe_reconcile(key.kind, is_success=is_success, seconds=seconds)
        return result

    async def _reconcile(self, key: ObjectKey) -> Result:
        context = await self._broker.add_to(self._context)
        context = replace(context, secrets=SecretReader(), shared=SharedStoreReader())
        body = await context.kube.get(RECONCILED_KINDS[key.kind], key.name, key.namespace or None)
        if body is None:
            self._forget(key)
            if key.kind in SCHEDULE_KINDS:
                await unmark_backups(context, key)
            return Result()
        observability_log.add_uid(body["metadata"]["uid"])
        requeue_after = await self._step(context, key, body)
        version, is_shared = body["metadata"]["resourceVersion"], "clusterStoreRef" in body.get("spec", {})
        return self._requeue_policy.next(key, version, requeue_after, is_shared_store=is_shared)

    async def _step(self, context: Context, key: ObjectKey, body: dict[str, Any]) -> float | None:
        try:
            return await self._kinds[key.kind](context, body)
        except Conflict as error:
            log.info("The object changed and is reconciled again: %s", error.message)
            return CONFLICT_RETRY_SECONDS
        except ValidationError as error:
            # The CRD rejects what does not parse. An object from before an upgrade may still not parse.
            problems = error.errors(include_input=False, include_url=False)
            log.error("The object does not parse and is left alone: %s", problems)
            return None

    def _forget(self, key: ObjectKey) -> None:
        self._requeue_policy.forget(key)
        self._context.admission_of(key.kind).forget(key)
        self._context.failed_actions.forget(key)
        if key.kind in SCHEDULE_KINDS:
            self._schedules.forget(key)
            self._context.metrics.forget_schedule(key.namespace, key.name)
        if key.kind == kinds.PVC.kind:
            self._claims.forget(key)
        if key.kind == kinds.CLUSTER_BACKUP_STORE.kind:
            self._cluster_stores.forget(key)
        if key.kind == kinds.BACKUP_STORE.kind:
            self._imports.forget(key)
            self._copies.forget(key)
            self._context.pending_releases.take(key)
        if key.kind in (kinds.BACKUP_STORE.kind, kinds.CLUSTER_BACKUP_STORE.kind):
            self._context.stores.forget(key.namespace, key.name)


@dataclass(frozen=True, slots=True)
class OperationSteps(Generic[OperationT, ObservedT]):
    """The steps in which reconciling VolumeBackups, VolumeRestores and BackupVerifications differ.

    Attributes:
        model: the operation.
        gather: reads what the decision needs.
        decide: decides what to do.
        on_action_error: decides what to do after an action failed in a way that a status must report.
    """

    model: type[OperationT]
    gather: Callable[[Context, OperationT], Awaitable[ObservedT]]
    decide: Callable[[ObservedT, datetime], Decision]
    on_action_error: Callable[[ObservedT, datetime, CinderblockError], Decision]


BACKUP_STEPS: Final = OperationSteps(
    VolumeBackup, gather_backup.gather, backup_decide.decide, backup_decide.on_action_error
)
RESTORE_STEPS: Final = OperationSteps(
    VolumeRestore, gather_restore.gather, restore_decide.decide, restore_decide.on_action_error
)

VERIFICATION_STEPS: Final = OperationSteps(
    BackupVerification, gather_verification.gather, verification_decide.decide, verification_decide.on_action_error
)


async def _reconcile_operation(
    steps: OperationSteps[OperationT, ObservedT], context: Context, body: dict[str, Any]
) -> float | None:
    operation = steps.model.model_validate(body)
    observed = await steps.gather(context, operation)
    store = observed.store.store
    settings = context.policy.mover
    admission = context.admission_of(operation.kind)
    observed = replace(observed, mover=admission.observe(operation, observed.mover, store, settings))
    if isinstance(observed, ObservedVerification):
        observed = replace(observed, load=context.admission.measure(operation.namespace, settings))
    now = context.clock()
    target = Target(RECONCILED_KINDS[operation.kind], operation, body, store)
    decision = steps.decide(observed, now)
    record_mover = partial(admission.record, operation, observed.mover, store, settings=settings)
    record_mover(decision)
    decision = await _execute(context, target, decision, partial(steps.on_action_error, observed, now), record_mover)
    return await _record(context, target, decision, operation.status)


async def _reconcile_store(
    broker: Broker, imports: ImportReconciler, copies: CopyReconciler, context: Context, body: dict[str, Any]
) -> float | None:
    store = BackupStore.model_validate(body)
    observed = await gather_store.gather(context, store, broker)
    decision = store_decide.decide(observed, context.clock())
    outcome = await imports.step(context, observed)
    decision = with_import(decision, outcome, store.metadata.generation, context.clock())
    target = Target(kinds.BACKUP_STORE, store, body, store)
    copied = await copies.step(context, observed, target)
    decision = with_copies(decision, copied, store.metadata.generation, context.clock())
    await execute(context, target, decision.actions)
    return await _record(context, target, decision, store.status)


async def _reconcile_cluster_store(
    stores: ClusterStoreReconciler, context: Context, body: dict[str, Any]
) -> float | None:
    cluster = ClusterBackupStore.model_validate(body)
    decision = await stores.step(context, cluster)
    target = Target(kinds.CLUSTER_BACKUP_STORE, cluster, body)
    await execute(context, target, decision.actions)
    return await _record(context, target, decision, cluster.status)


async def _reconcile_grant(context: Context, body: dict[str, Any]) -> float | None:
    grant = BackupGrant.model_validate(body)
    decision = await decide_grant(context, grant)
    return await _record(context, Target(kinds.BACKUP_GRANT, grant, body), decision, grant.status)


async def _reconcile_source(context: Context, body: dict[str, Any]) -> float | None:
    source = RestoreSource.model_validate(body)
    decision = await decide_source(context, source)
    return await _record(context, Target(kinds.RESTORE_SOURCE, source, body), decision, source.status)


async def _execute(
    context: Context,
    target: Target,
    decision: Decision,
    on_action_error: Callable[[CinderblockError], Decision],
    record_mover: Callable[..., None],
) -> Decision:
    """Execute the actions of a decision.

    Args:
        context: what to execute with.
        target: the object.
        decision: what to do.
        on_action_error: decides what to do instead, if an action fails and a status must say so.
        record_mover: takes note of a decision that replaces the given one: see `MoverAdmission.record`.

    Returns the decision to record: the given one, or the one that a failed action led to. Raises errors of actions
    that no status reports. The status is written later, outside of this function: a failed write says nothing about
    the actions, which are done by then.
    """
    for number, action in enumerate(decision.actions):
        try:
            job_uid = await execute(context, target, (action,))
        except CinderblockError as error:
            is_reported = _observe_failure(context, target, action, error)
            instead = on_action_error(error) if is_reported else RETRY
            if _lacks_its_mover(decision.actions[number:], error):
                record_mover(instead, stays_queued=isinstance(error, TransientError))
            if not is_reported:
                raise
            await execute(context, target, instead.actions)
            return instead
        if job_uid is not None and target.store is not None:
            context.admission_of(target.kind.kind).confirm(key_of(target.body))
            decision = with_mover(decision, job_uid, target.store)
    context.failed_actions.forget(key_of(target.body))
    return decision


def _lacks_its_mover(remaining: tuple[Action, ...], error: CinderblockError) -> bool:
    """Return whether a decided mover does not exist, because the first of the remaining actions failed.

    A creation that the API server has not answered may still succeed.
    """
    may_exist = isinstance(error, KubeUnavailable) and not is_refused_by_webhook(error.message)
    return any(map(creates_mover, remaining)) and not (may_exist and creates_mover(remaining[0]))


def _is_being_deleted(target: Target) -> bool:
    return target.object.metadata.is_being_deleted


def _observe_failure(context: Context, target: Target, action: Action, error: CinderblockError) -> bool:
    """Take note of a failed action, and return whether a status reports the error.

    It does for a child while the operation continues, and for deleting the data.

    A failure that may pass, such as that of a webhook, is reported only when it repeats.
    """
    if isinstance(action, DeleteStoredData | RemoveExpiredData):
        return True
    if not isinstance(action, CheckClaim | CreateChild | CreateClaim | StartMover) or _is_being_deleted(target):
        return False
    if isinstance(error, KubeUnavailable):
        return context.failed_actions.add(key_of(target.body))
    context.failed_actions.forget(key_of(target.body))
    return isinstance(error, PermanentError) and not isinstance(error, Conflict)


async def _record(context: Context, target: Target, decision: Decision, previous: AnyStatus) -> float | None:
    """Write the status of a decision whose actions are done. Return the seconds to requeue after.

    Events have two orders on purpose. Events among the actions report what a status does not keep, such as changes that
    an earlier backup missed. They come before the status, so a crash in between repeats them instead of losing them. A
    wait stands in the status, so its Event comes after the status and is never repeated.
    """
    is_released = _is_being_deleted(target) and any(isinstance(action, RemoveFinalizer) for action in decision.actions)
    if decision.status is not None and decision.status != previous and not is_released:
        await _write_status(context, target, decision)
        await execute(context, target, events.on_transition(previous, decision.status))
    _record_metrics(context, target, decision.status, is_released=is_released)
    return decision.requeue_after


def _record_metrics(context: Context, target: Target, status: AnyStatus | None, *, is_released: bool) -> None:
    """Count the operation if it has ended."""
    now = context.clock()
    match target.object, status:
        case VolumeBackup() | VolumeRestore() as operation, _ if is_released:
            metrics_recorder.deletion_finished(context.metrics, operation, now)
        case VolumeBackup() as backup, VolumeBackupStatus() as written:
            metrics_recorder.backup_written(context.metrics, backup, written, now)
        case VolumeRestore() as restore, VolumeRestoreStatus() as written:
            metrics_recorder.restore_written(context.metrics, restore, written, now)
        case BackupVerification() as verification, BackupVerificationStatus() as written:
            metrics_recorder.verification_written(context.metrics, verification, written, now)
        case _:
            pass


async def _write_status(context: Context, target: Target, decision: Decision) -> None:
    """Write the status over the version that was read; if the object has changed since, over its current version.

    The UID makes sure that it is the same object. Marks of retention and results of verifications that were written
    meanwhile stay.
    """
    read, status = target.object, decision.status
    if status is None:
        return
    written = {key: value for key, value in status.to_wire().items() if key not in FOREIGN_FIELDS}
    write = partial(
        context.kube.apply_status,
        target.kind,
        read.name,
        read.namespace,
        written,
        uid=read.uid,
        preserved=FOREIGN_FIELDS,
    )
    has_new_version = any(isinstance(action, AddFinalizer | RemoveFinalizer) for action in decision.actions)
    try:
        if not has_new_version:
            with contextlib.suppress(Conflict):
                await write(resource_version=read.metadata.resource_version)
                return
        await write()
    except NotFound:
        log.info("The object no longer exists")
