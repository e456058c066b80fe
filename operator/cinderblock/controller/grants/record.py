"""Write which restores in other namespaces read a VolumeBackup."""

from __future__ import annotations

from cinderblock.errors import Conflict, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.actions import RecordGrantedRestores


async def record_granted_restores(kube: KubeClient, action: RecordGrantedRestores) -> None:
    """Write status.grantedRestores by merge patch, which leaves all other fields to the reconciliation of the backup.

    Raises Conflict if the VolumeBackup has changed since it was read, or is gone: everything must be decided again.
    """
    entries = [entry.to_wire() for entry in action.restores]
    patch = {"metadata": {"resourceVersion": action.resource_version}, "status": {"grantedRestores": entries}}
    try:
        await kube.merge_patch(kinds.VOLUME_BACKUP, action.name, action.namespace, patch, subresource="status")
    except NotFound as error:
        raise Conflict(error.message) from error
