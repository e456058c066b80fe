"""Write which restores in other namespaces read a VolumeBackup."""

from __future__ import annotations

from cinderblock.errors import Conflict, NotFound
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.actions import RecordGrantedRestores
from cinderblock.reasons import Reason


async def record_granted_restores(kube: KubeClient, action: RecordGrantedRestores) -> None:
    """Write status.grantedRestores by merge patch, which leaves all other fields to the reconciliation of the backup.

    The Event for the owner comes first. If the operator dies in between, the same Event is counted a second time, and
    no restore begins without one.

    Raises Conflict if the VolumeBackup has changed since it was read, or is gone: everything must be decided again.
    """
    if action.note:
        await _tell_owner(kube, action)
    entries = [entry.to_wire() for entry in action.restores]
    patch = {"metadata": {"resourceVersion": action.resource_version}, "status": {"grantedRestores": entries}}
    try:
        await kube.merge_patch(kinds.VOLUME_BACKUP, action.name, action.namespace, patch, subresource="status")
    except NotFound as error:
        raise Conflict(error.message) from error


async def _tell_owner(kube: KubeClient, action: RecordGrantedRestores) -> None:
    kind = kinds.VOLUME_BACKUP
    metadata = {"namespace": action.namespace, "name": action.name, "uid": action.uid}
    about = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    await event_recorder.record_event(kube, about, "Normal", Reason.READ_ELSEWHERE, action.note, action="Restore")
