"""Marked PersistentVolumes whose VolumeRestore is no more: somebody has taken our finalizer off that one by force.

Nobody else would ever give such a volume its reclaim policy back, and it would stay for ever.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.controller.context import Context
from cinderblock.kube import event_recorder, kinds
from cinderblock.lifecycle.restore import rebind

log = logging.getLogger(__name__)

AFTER_ITS_CLAIM: Final = 30.0
"""Seconds until a volume is looked at again whose claim the garbage collector is going to remove."""


async def release_volume(context: Context, body: dict[str, Any]) -> float | None:
    """Let a marked volume go whose VolumeRestore is no more. One that a claim has been bound to is never given up.

    Returns the seconds until it is looked at again. Raises what the API server raises.
    """
    volume = PersistentVolume.model_validate(body)
    uid = volume.metadata.labels.get(rebind.RESTORE_LABEL)
    if uid is None or volume.metadata.is_being_deleted:
        return None
    if any(restore["metadata"]["uid"] == uid for restore in await context.kube.list(kinds.VOLUME_RESTORE)):
        return None
    claim = await _claim_of(context, volume)
    if claim is not None and claim.metadata.is_owned_by(uid):
        return AFTER_ITS_CLAIM
    patch, event = rebind.judge_orphan(volume, claim, uid)
    await context.kube.merge_patch(kinds.PV, patch.name, None, patch.patch)
    log.warning("%s", event.note, extra={"reason": event.reason})
    await event_recorder.record_event(context.kube, body, event.type, event.reason, event.note, action="Reconcile")
    return None


async def _claim_of(context: Context, volume: PersistentVolume) -> PersistentVolumeClaim | None:
    reference = volume.spec.claim_ref
    return (
        await context.get(PersistentVolumeClaim, kinds.PVC, reference.name, reference.namespace) if reference else None
    )
