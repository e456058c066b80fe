"""Execute decided actions. Every action may be executed again: the second time it changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from cinderblock.api import labels
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.grants.record import record_granted_restores
from cinderblock.controller.reconcile.alarms import record_alarms
from cinderblock.controller.reconcile.related import list_staying
from cinderblock.controller.request import ObjectKey, key_of
from cinderblock.controller.stores.circuit_breaker import LONG_CALL_SECONDS
from cinderblock.controller.stores.references import key_ring
from cinderblock.controller.stores.staying import ListStaying, explain
from cinderblock.controller.verifications.record import record_summary
from cinderblock.errors import (
    AlreadyExists,
    BackupNeeded,
    Conflict,
    InvalidInput,
    NotFound,
    ReferencesUnknown,
    TransientError,
)
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.kinds import Kind
from cinderblock.kube.responses import NO_DRY_RUN
from cinderblock.lifecycle.actions import (
    Action,
    AddFinalizer,
    CheckClaim,
    CreateChild,
    CreateClaim,
    DeleteChild,
    DeleteStoredData,
    KeepAlarms,
    PatchClaim,
    PatchVolume,
    RecordEvent,
    RecordGrantedRestores,
    RecordRelease,
    RecordVerification,
    RemoveExpiredData,
    RemoveFinalizer,
    StartMover,
)
from cinderblock.reasons import Reason
from cinderblock.repository.deletion import delete_backup

log = logging.getLogger(__name__)

CHILD_KINDS: dict[str, Kind] = {
    "Job": kinds.JOB,
    "PersistentVolumeClaim": kinds.PVC,
    "VolumeRestore": kinds.VOLUME_RESTORE,
    "VolumeSnapshot": kinds.VOLUME_SNAPSHOT,
}


MOVER_KINDS = frozenset({"Job", "VolumeRestore"})
"""Kinds of children that an operation records, and that hold its slot: a mover, and the restore of a verification."""


@dataclass(frozen=True, slots=True)
class Target:
    """The object that actions belong to, as it was read.

    Attributes:
        kind: its kind.
        object: the object as a model.
        body: the object as the API server gave it.
        store: the BackupStore of an operation, if it is known.
    """

    kind: Kind
    object: Object
    body: dict[str, Any]
    store: BackupStore | None = None


async def execute(context: Context, target: Target, actions: tuple[Action, ...]) -> str | None:
    """Execute actions in order, and return the UID of the mover, of a check or of a restore if one of them creates it.

    Raises what the API server or the store raise; later actions are then not executed.
    """
    job_uid = None
    for action in actions:
        uid = await _execute_one(context, target, action)
        job_uid = uid or job_uid
    return job_uid


async def _execute_one(context: Context, target: Target, action: Action) -> str | None:
    """Execute an action. Return the UID of the child if it creates one of MOVER_KINDS."""
    match action:
        case CreateChild(kind, body):
            uid = await _create_child(context, target, CHILD_KINDS[kind], body)
            return uid if kind in MOVER_KINDS else None
        case AddFinalizer(finalizer):
            await _set_finalizers(context, target, (*target.object.metadata.finalizers, finalizer))
        case RemoveFinalizer(finalizer, annotations):
            kept = tuple(f for f in target.object.metadata.finalizers if f != finalizer)
            await _set_finalizers(context, target, kept, annotations)
        case StartMover(name, uid):
            await _start_mover(context, target, name, uid)
        case DeleteChild(kind, name, uid):
            await _delete_child(context, target, CHILD_KINDS[kind], name, uid)
        case PatchVolume(name, patch) | PatchClaim(name, patch):
            patched = kinds.PV if isinstance(action, PatchVolume) else kinds.PVC
            await context.kube.merge_patch(patched, name, target.object.namespace, patch)
        case CheckClaim(body) | CreateClaim(body):
            await (_check_claim if isinstance(action, CheckClaim) else _create_claim)(context, body)
        case DeleteStoredData() | RemoveExpiredData():
            await _remove_data(context, target, action)
        case RecordVerification() | KeepAlarms() | RecordGrantedRestores() | RecordRelease() | RecordEvent():
            await _record(context, target, action)
    return None


async def _request_mark(context: Context, target: Target, action: RecordRelease) -> None:
    """Have a BackupStore take note of a released backup. It writes all marks at once that are asked for by then."""
    store = ObjectKey(kinds.BACKUP_STORE.kind, target.object.namespace, action.store)
    context.pending_releases.add(store, action.backup_id, key_of(target.body))
    await context.enqueue(store)


async def _record(
    context: Context,
    target: Target,
    action: RecordVerification | KeepAlarms | RecordGrantedRestores | RecordRelease | RecordEvent,
) -> None:
    """Write a field that others than the object's reconciliation write, or an Event about the object."""
    if isinstance(action, RecordGrantedRestores):
        await record_granted_restores(context.kube, action)
        return
    if isinstance(action, RecordRelease):
        await _request_mark(context, target, action)
        return
    if isinstance(action, RecordVerification):
        await record_summary(context.kube, target.object.namespace, action)
        return
    if isinstance(action, KeepAlarms):
        await record_alarms(context.kube, target.object.namespace, action)
        return
    level = logging.WARNING if action.type == "Warning" else logging.INFO
    log.log(level, "%s", action.note, extra={"reason": action.reason})
    await event_recorder.record_event(
        context.kube, target.body, action.type, action.reason, action.note, action="Reconcile"
    )


async def _set_finalizers(
    context: Context,
    target: Target,
    finalizers: tuple[str, ...],
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Replace the finalizers that were read. Raises Conflict if the object has changed since."""
    metadata: dict[str, Any] = {
        "finalizers": list(finalizers),
        "resourceVersion": target.object.metadata.resource_version,
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    try:
        await context.kube.merge_patch(target.kind, target.object.name, target.object.namespace, {"metadata": metadata})
    except NotFound:
        log.info("The object no longer exists")


async def _create_child(context: Context, target: Target, kind: Kind, body: dict[str, Any]) -> str | None:
    """Create a child, or find the one created earlier. Return its UID, or None if it is gone already.

    Raises Conflict if the name belongs to another object.
    """
    try:
        created = await context.kube.create(kind, body)
    except AlreadyExists:
        name = body["metadata"]["name"]
        found = await context.kube.get(kind, name, target.object.namespace)
        if found is not None and not Object.model_validate(found).metadata.is_owned_by(target.object.uid):
            raise Conflict(
                f"Cannot create {kind.kind} {name}: another object has that name. Remove it.", reason=Reason.NAME_TAKEN
            ) from None
        return str(found["metadata"]["uid"]) if found is not None else None
    log.info("Created %s", kind.kind)
    return str(created["metadata"]["uid"])


async def _start_mover(context: Context, target: Target, name: str, uid: str) -> None:
    annotations = {labels.STARTED_ANNOTATION: "true"}
    patch = {"metadata": {"uid": uid, "annotations": annotations}, "spec": {"suspend": False}}
    try:
        await context.kube.merge_patch(kinds.JOB, name, target.object.namespace, patch)
    except NotFound:
        log.info("The mover Job no longer exists")


async def _delete_child(context: Context, target: Target, kind: Kind, name: str, uid: str) -> None:
    """Delete the child that was read. The finalizer of a Job is no longer needed by then."""
    if kind is kinds.JOB:
        body = await context.kube.get(kind, name, target.object.namespace)
        if body is not None and body["metadata"]["uid"] == uid:
            await release_job(context, Object.model_validate(body))
    await context.kube.delete(kind, name, target.object.namespace, uid=uid)
    log.info("Deleted %s", kind.kind)


async def release_job(context: Context, job: Object) -> None:
    """Remove the operator's finalizer from a mover Job, if the Job has not changed since it was read."""
    if labels.JOB_FINALIZER not in job.metadata.finalizers:
        return
    kept = [f for f in job.metadata.finalizers if f != labels.JOB_FINALIZER]
    metadata = {"finalizers": kept, "resourceVersion": job.metadata.resource_version}
    try:
        await context.kube.merge_patch(kinds.JOB, job.name, job.namespace, {"metadata": metadata})
    except NotFound:
        return


async def _check_claim(context: Context, body: dict[str, Any]) -> None:
    """Raise what the creation of a claim would raise. A webhook that cannot take part in a trial judges later."""
    try:
        await context.kube.create(kinds.PVC, body, dry_run=True)
    except AlreadyExists:
        return
    except InvalidInput as error:
        if NO_DRY_RUN not in error.message:
            raise
        log.info("The trial creation of the PersistentVolumeClaim was left out: %s", error.message)


async def _create_claim(context: Context, body: dict[str, Any]) -> None:
    """Create the restored PersistentVolumeClaim. The next reconciliation judges one that exists already."""
    try:
        await context.kube.create(kinds.PVC, body)
    except AlreadyExists:
        log.info("The PersistentVolumeClaim already exists", extra={"claim": body["metadata"]["name"]})


async def _remove_data(context: Context, target: Target, action: DeleteStoredData | RemoveExpiredData) -> None:
    """Remove data of one or more backups from the store. Nothing is removed that other manifests list."""
    if target.store is None:
        raise NotFound("The BackupStore is gone", reason=Reason.STORE_NOT_FOUND)
    store, uid = target.store, target.object.uid
    staying = partial(list_staying, context, store, action.container, action.volume_id, uid)
    if isinstance(action, DeleteStoredData):
        await _delete_stored_data(context, store, action, staying)
    else:
        await _remove_expired_data(context, store, action, staying)


async def _remove_expired_data(
    context: Context, store: BackupStore, action: RemoveExpiredData, staying: ListStaying
) -> None:
    """Remove expired backups from the store."""
    await context.expiries.remove(
        store,
        action.container,
        action.volume_id,
        action.backup_ids,
        waits_for_locks=action.waits_for_locks,
        stores=context.stores,
        references=context.references,
        secrets=context.secrets,
        list_staying=staying,
        # The store knows no leader: check here, as the client does before each write to the API server.
        guard=context.kube.write_guard,
        clock=context.clock,
    )
    log.info("Removed expired backups", extra={"backups": len(action.backup_ids)})


async def _delete_stored_data(
    context: Context, store: BackupStore, action: DeleteStoredData, staying: ListStaying
) -> None:
    """Delete a backup's objects from the store, unless another manifest now lists its packs."""
    opened = await context.stores.open(store, action.container, context.secrets)
    keys = await key_ring(context.stores, store, context.secrets)
    expected = await staying()
    # The store knows no leader: check here, as the client does before each write to the API server.
    context.kube.write_guard()

    begin = context.references.begin(opened, keys, store, action.container, action.volume_id, expected=expected)

    def delete() -> int:
        return delete_backup(
            opened,
            store.spec.prefix,
            action.volume_id,
            action.backup_id,
            begin(),
            now=context.clock(),
            waits_for_lock=action.waits_for_lock,
        )

    try:
        count = await context.stores.call(store, delete, LONG_CALL_SECONDS)
    except BackupNeeded as error:
        # These backups were made after the decision. The next reconcile waits for them, or leaves the data to them.
        raise TransientError(error.message, reason=error.reason) from error
    except ReferencesUnknown as error:
        raise await explain(error, action.volume_id, staying) from error
    finally:
        context.references.trim(store, action.container, action.volume_id)
    log.info("Deleted stored data", extra={"objects": count})
