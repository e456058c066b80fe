"""Which operation may use a volume: one at a time, in order of age."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle.backup import snapshot_checks
from cinderblock.lifecycle.verdicts import Deadlines, Wait

STATUS_LOST = "Recalling"
"""What a backup says whose status was lost, while the store does not tell whether it is whole."""


STILL_ATTACHED = "VolumeStillAttached"
"""What an operation says while a node may still write to its volume although no pod uses it there."""


HELD_UP_REASONS = frozenset(
    {"StoreUnreachable", "NotS3", "VolumeNotBound", snapshot_checks.NOT_AVAILABLE, STILL_ATTACHED, STATUS_LOST}
)
"""What an operation says whose turn it would be, but which cannot begin: others do not wait for it."""


NOTICED = "Noticed"
"""What a backup says that nobody has looked at yet, since very many want to be."""


IDLE_REASONS = frozenset({"VolumeBusy", "NameTaken", "Queued", "Accepted", NOTICED}) | HELD_UP_REASONS
"""What an operation says while it has not touched its volume yet."""


def own_phase(backup: VolumeBackup) -> BackupPhase | None:
    """The phase, if the status is the object's own: one that came with a copied object counts for nothing."""
    return backup.status.phase if backup.has_own_status else None


def still_attached(words: str, nodes: tuple[str, ...], deadlines: Deadlines) -> Wait | None:
    """Wait while a volume is attached to ``nodes`` although no pod uses it there."""
    if not nodes:
        return None
    where = f"It is still attached to node {', '.join(nodes[:3])}, although no pod uses it."
    return Wait(STILL_ATTACHED, f"{words} {where}", limit=deadlines.detach, requeue_after=5.0)


def still_written(claim: PersistentVolumeClaim, writers: tuple[str, ...]) -> Wait | None:
    """Wait for movers of restores that nobody tells of any more: somebody has removed the VolumeRestore by force."""
    if not writers:
        return None
    words = f"Pod {', '.join(writers[:3])} of another restore may still write to volume {claim.name}"
    return Wait("VolumeBusy", f"{words}. If that lasts, see its node.", requeue_after=10.0)


def wait_for_volume(
    me: VolumeBackup | VolumeRestore,
    claim: PersistentVolumeClaim,
    backups: tuple[VolumeBackup, ...],
    restores: tuple[VolumeRestore, ...],
) -> Wait | None:
    """Wait for the operation on the same volume that is at work, or that was there first."""
    for backup in backups:
        unfinished = own_phase(backup) in (None, BackupPhase.CREATING) and not backup.metadata.is_being_deleted
        if unfinished and names_volume(backup.spec.volume_id, claim) and precedes(backup, me):
            return Wait("VolumeBusy", f"VolumeBackup {backup.name} works on volume {claim.name}", requeue_after=10.0)
    for restore in restores:
        if names_volume(restore.spec.volume_id, claim) and _may_still_write(restore):
            return Wait("VolumeBusy", _being_stopped(restore), requeue_after=10.0)
        unfinished = restore.status.id != restore.uid or restore.status.phase is RestorePhase.RESTORING
        if unfinished and names_volume(restore.spec.volume_id, claim) and precedes(restore, me):
            return Wait("VolumeBusy", f"VolumeRestore {restore.name} writes to volume {claim.name}", requeue_after=10.0)
    return None


def _being_stopped(restore: VolumeRestore) -> str:
    """Why a restore that has failed is still in the way."""
    return f"VolumeRestore {restore.name} is being stopped: its mover may still write. If that lasts, see its pod."


def _may_still_write(restore: VolumeRestore) -> bool:
    """Whether a restore that has failed keeps our finalizer: its mover may not have ended yet."""
    failed = restore.status.id == restore.uid and restore.status.phase is RestorePhase.ERROR_RESTORING
    return failed and labels.RESTORE_FINALIZER in restore.metadata.finalizers


def names_volume(asked: str | None, claim: PersistentVolumeClaim) -> bool:
    """Whether ``asked`` means the claim, by UID or by name."""
    return asked is not None and asked in (claim.uid, claim.name)


def precedes(other: VolumeBackup | VolumeRestore, me: VolumeBackup | VolumeRestore) -> bool:
    """Whether the other one is already at work; or neither is, and the other one is older and not held up."""
    if is_at_work(other) or is_at_work(me):
        return is_at_work(other)
    return not _waits_for(other, HELD_UP_REASONS) and age_key(other) < age_key(me)


def is_at_work(operation: VolumeBackup | VolumeRestore) -> bool:
    """Whether an operation has begun to touch its volume."""
    busy_conditions = [c for c in operation.status.conditions if c.type == "Reconciling"]
    return _has_own_status(operation) and bool(busy_conditions) and not _waits_for(operation, IDLE_REASONS)


def _waits_for(operation: VolumeBackup | VolumeRestore, reasons: frozenset[str]) -> bool:
    """Whether an operation says for one of these reasons that it waits."""
    return _has_own_status(operation) and any(
        c.type == "Reconciling" and c.reason in reasons for c in operation.status.conditions
    )


def _has_own_status(operation: VolumeBackup | VolumeRestore) -> bool:
    if isinstance(operation, VolumeBackup):
        return operation.has_own_status
    return operation.status.id == operation.uid


def age_key(operation: VolumeBackup | VolumeRestore) -> tuple[datetime | None, str]:
    """Sorts operations by age; the UID decides within a second."""
    return (operation.metadata.creation_timestamp, operation.uid)
