"""Find the backup that keeps the alarms of a deleted one, and write them there."""

from __future__ import annotations

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.related import observe_backups
from cinderblock.errors import Conflict, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.actions import KeepAlarms
from cinderblock.lifecycle.alarms.keepers import Keepers, alarms_of


async def find_keeper(context: Context, backup: VolumeBackup) -> VolumeBackup | None:
    """Return the backup that keeps the open alarms of a deleted one; None if there are none, or no other backup.

    The other backups of the volume are only read if there are alarms.
    """
    volume_id = backup.status.volume_id
    if volume_id is None or not alarms_of(backup):
        return None
    keepers = Keepers(backup)
    await observe_backups(context, backup.namespace, [f"status.volumeId={volume_id}"], keepers.observe)
    return keepers.best


async def record_alarms(kube: KubeClient, namespace: str, action: KeepAlarms) -> None:
    """Write status.deletedAlarms by merge patch, which leaves all other fields to the reconciliation of the backup.

    Raises Conflict if the VolumeBackup has changed since it was read, or is gone: another one must keep the alarms.
    """
    alarms = [alarm.to_wire() for alarm in action.alarms]
    patch = {"metadata": {"resourceVersion": action.resource_version}, "status": {"deletedAlarms": alarms}}
    try:
        await kube.merge_patch(kinds.VOLUME_BACKUP, action.name, namespace, patch, subresource="status")
    except NotFound as error:
        raise Conflict(error.message) from error
