"""Perform what was decided. Every action may be performed again: it then changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cinderblock.api import labels
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.stores.references import key_ring
from cinderblock.errors import AlreadyExists, Conflict, NotFound, TransientError
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.actions import (
    Action,
    AddFinalizer,
    CreateChild,
    CreateClaim,
    DeleteChild,
    DeleteStoredData,
    PatchClaim,
    PatchVolume,
    RecordEvent,
    RemoveFinalizer,
    StartMover,
)
from cinderblock.reasons import Reason
from cinderblock.repository.deletion import delete_backup

log = logging.getLogger(__name__)

CHILDREN: dict[str, Kind] = {
    "Job": kinds.JOB,
    "PersistentVolumeClaim": kinds.PVC,
    "VolumeSnapshot": kinds.VOLUME_SNAPSHOT,
}


@dataclass(frozen=True, slots=True)
class Target:
    """The object whose actions are performed, as it was read.

    Attributes:
        kind: its kind.
        seen: the object as a model.
        body: the object as the API server gave it.
        store: the BackupStore of an operation, if it is known.
    """

    kind: Kind
    seen: Object
    body: dict[str, Any]
    store: BackupStore | None = None


async def execute(context: Context, subject: Target, actions: tuple[Action, ...]) -> None:
    """Perform ``actions`` in order. Raises what the API server or the store raise; the rest is then left undone."""
    for action in actions:
        await _execute_one(context, subject, action)


async def _execute_one(context: Context, subject: Target, action: Action) -> None:
    match action:
        case AddFinalizer(finalizer):
            await _set_finalizers(context, subject, (*subject.seen.metadata.finalizers, finalizer))
        case RemoveFinalizer(finalizer, annotations):
            kept = tuple(f for f in subject.seen.metadata.finalizers if f != finalizer)
            await _set_finalizers(context, subject, kept, annotations)
        case CreateChild(kind, body):
            await _create_child(context, subject, CHILDREN[kind], body)
        case StartMover(name, uid):
            await _start_mover(context, subject, name, uid)
        case DeleteChild(kind, name, uid):
            await _delete_child(context, subject, CHILDREN[kind], name, uid)
        case PatchVolume(name, patch) | PatchClaim(name, patch):
            patched = kinds.PV if isinstance(action, PatchVolume) else kinds.PVC
            await context.kube.merge_patch(patched, name, subject.seen.namespace, patch)
        case CreateClaim(body):
            await _create_claim(context, body)
        case DeleteStoredData():
            await _delete_stored_data(context, subject, action)
        case RecordEvent(kind, reason, note):
            log.log(logging.WARNING if kind == "Warning" else logging.INFO, "%s", note, extra={"reason": reason})
            await event_recorder.record_event(context.kube, subject.body, kind, reason, note, action="Reconcile")


async def _set_finalizers(
    context: Context,
    subject: Target,
    finalizers: tuple[str, ...],
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Replace the list as it was seen: somebody else's change in between is a Conflict, and we look again."""
    metadata: dict[str, Any] = {
        "finalizers": list(finalizers),
        "resourceVersion": subject.seen.metadata.resource_version,
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    try:
        await context.kube.merge_patch(subject.kind, subject.seen.name, subject.seen.namespace, {"metadata": metadata})
    except NotFound:
        log.info("The object is gone already")


async def _create_child(context: Context, subject: Target, kind: Kind, body: dict[str, Any]) -> None:
    """Create, or find that it is there and ours. One that is not ours is a Conflict."""
    try:
        await context.kube.create(kind, body)
    except AlreadyExists:
        name = body["metadata"]["name"]
        found = await context.kube.get(kind, name, subject.seen.namespace)
        if found is not None and not Object.model_validate(found).metadata.is_owned_by(subject.seen.uid):
            raise Conflict(f"{kind.kind} {name} exists and is not ours: remove it", reason=Reason.NAME_TAKEN) from None
        return
    log.info("Created %s", kind.kind)


async def _start_mover(context: Context, subject: Target, name: str, uid: str) -> None:
    patch = {"metadata": {"uid": uid}, "spec": {"suspend": False}}
    try:
        await context.kube.merge_patch(kinds.JOB, name, subject.seen.namespace, patch)
    except NotFound:
        log.info("The mover's Job is gone already")


async def _delete_child(context: Context, subject: Target, kind: Kind, name: str, uid: str) -> None:
    """Delete the child that was seen. Our finalizer on a Job has done its work once we come here."""
    if kind is kinds.JOB:
        body = await context.kube.get(kind, name, subject.seen.namespace)
        if body is not None and body["metadata"]["uid"] == uid:
            await release_job(context, Object.model_validate(body))
    await context.kube.delete(kind, name, subject.seen.namespace, uid=uid)
    log.info("Deleted %s", kind.kind)


async def release_job(context: Context, job: Object) -> None:
    """Take our finalizer off a mover Job, as it was seen."""
    if labels.JOB_FINALIZER not in job.metadata.finalizers:
        return
    kept = [f for f in job.metadata.finalizers if f != labels.JOB_FINALIZER]
    metadata = {"finalizers": kept, "resourceVersion": job.metadata.resource_version}
    try:
        await context.kube.merge_patch(kinds.JOB, job.name, job.namespace, {"metadata": metadata})
    except NotFound:
        return


async def _create_claim(context: Context, body: dict[str, Any]) -> None:
    """Create the restored claim. One that is there already is judged by the next look at the world."""
    try:
        await context.kube.create(kinds.PVC, body)
    except AlreadyExists:
        log.info("The claim exists already: %s", body["metadata"]["name"])


async def _delete_stored_data(context: Context, subject: Target, action: DeleteStoredData) -> None:
    """Remove a backup's objects, unless another manifest now lists its packs."""
    store = subject.store
    if store is None:
        raise NotFound("The BackupStore is gone", reason=Reason.STORE_NOT_FOUND)
    opened, keys = await context.stores.open(store, action.container), await key_ring(context.stores, store)
    # The store knows no leader: ask here, as the client does before each write to the API server.
    context.kube.write_guard()

    begin = context.references.begin(opened, keys, store, action.container, action.volume_id)

    def remove() -> int:
        references = begin()
        references.read_all()
        needs = references.needs(action.backup_id)
        if needs.by:
            # They were made after the last look. The next look waits for them, or leaves the data to them.
            raise TransientError(f"Needed by backup {', '.join(needs.by[:10])}", reason=Reason.HAS_DEPENDENT_BACKUPS)
        if needs.unknown:
            raise dependents.unknown(needs.unknown[0].message)
        return delete_backup(opened, store.spec.prefix, action.volume_id, action.backup_id, references)

    try:
        count = await asyncio.to_thread(remove)
    finally:
        context.references.settle(store, action.container, action.volume_id)
    log.info("Deleted stored data", extra={"objects": count})
