"""Release mover Jobs and marked PersistentVolumes whose owner was removed by force, without its finalizers.

Nothing else would release them: a Job would keep the operator's finalizer, a volume the operator's reclaim policy.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.api.meta import Object
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.execute import release_job
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import InvalidInput
from cinderblock.kube import event_recorder, kinds
from cinderblock.lifecycle.restore import rebind

log = logging.getLogger(__name__)

CLAIM_LONG_CALL_SECONDS: Final = 30.0
"""Seconds until a volume is checked again whose PersistentVolumeClaim the garbage collector is about to delete."""


async def release_orphaned_job(context: Context, body: dict[str, Any]) -> None:
    """Remove the operator's finalizer from a Job that is being deleted and whose owner no longer exists."""
    job = Object.model_validate(body)
    kind = OWN_KINDS.get(job.metadata.labels.get(labels.OWNER_KIND_LABEL, ""))
    owner_name = job.metadata.annotations.get(labels.OWNER_NAME_ANNOTATION)
    owner = None
    # Anybody in the namespace can write the annotation, so it may hold what is not a name.
    with contextlib.suppress(InvalidInput):
        owner = await context.kube.get(kind, owner_name, job.namespace) if kind and owner_name else None
    if job.metadata.is_being_deleted and not (owner and job.metadata.is_owned_by(owner["metadata"]["uid"])):
        await release_job(context, job)


async def release_volume(context: Context, body: dict[str, Any]) -> float | None:
    """Release a marked volume whose VolumeRestore no longer exists. Keep it if a claim was bound to it.

    Returns the seconds until it is checked again. Raises what the API server raises.
    """
    volume = PersistentVolume.model_validate(body)
    uid = volume.metadata.labels.get(RESTORE_LABEL)
    if uid is None or volume.metadata.is_being_deleted or not _is_watched(context, volume):
        return None
    if await _exists(context, volume, uid):
        return None
    claim = await _claim_of(context, volume)
    if claim is not None and claim.metadata.is_owned_by(uid):
        return CLAIM_LONG_CALL_SECONDS
    patch, event = rebind.judge_orphan(volume, claim, uid)
    await context.kube.merge_patch(kinds.PV, patch.name, None, patch.patch)
    log.warning("%s", event.note, extra={"reason": event.reason})
    await event_recorder.record_event(context.kube, body, event.type, event.reason, event.note, action="Reconcile")
    return None


def _is_watched(context: Context, volume: PersistentVolume) -> bool:
    """Return whether the operator works in the namespace of a volume. Elsewhere, another operator may mark volumes."""
    reference, watched = volume.spec.claim_ref, context.kube.namespaces
    return not watched or (reference is not None and reference.namespace in watched)


async def _exists(context: Context, volume: PersistentVolume, uid: str) -> bool:
    """Return whether the VolumeRestore with this UID exists.

    With a list of namespaces, a list of all leaves out those that may not be read. So only the namespace of the claim
    is read then, which is also that of the VolumeRestore, and it is an error if that is not possible.
    """
    reference = volume.spec.claim_ref
    namespace = reference.namespace if context.kube.namespaces and reference is not None else None
    async for page in context.kube.pages(kinds.VOLUME_RESTORE, namespace):
        if any(restore["metadata"]["uid"] == uid for restore in page or ()):
            return True
    return False


async def _claim_of(context: Context, volume: PersistentVolume) -> PersistentVolumeClaim | None:
    reference = volume.spec.claim_ref
    return (
        await context.get(PersistentVolumeClaim, kinds.PVC, reference.name, reference.namespace) if reference else None
    )
