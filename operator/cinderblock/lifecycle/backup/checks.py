"""The rules for making a backup, each a function of the world, in the order in which they are asked.

Messages are Cinder's where Cinder has words for the case (cinder/backup/api.py ``API.create``).
"""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import CinderblockError, TransientError
from cinderblock.lifecycle.backup import snapshot_checks
from cinderblock.lifecycle.observed import ObservedBackup, StoreLookup
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Verdict, Wait
from cinderblock.lifecycle.volume_lock import own_phase, still_attached, still_written, wait_for_volume

WHOLE = frozenset({BackupPhase.AVAILABLE, BackupPhase.RESTORING, BackupPhase.ERROR_RESTORING})
"""Phases of a backup that is whole in the store."""


Check = Callable[[ObservedBackup], Verdict]


def identity(backup: VolumeBackup) -> dict[str, str | None]:
    """What a status says about whom it speaks of."""
    return {"id": backup.backup_id, "imported_by": backup.uid if backup.spec.import_ else None}


def is_forgotten(backup: VolumeBackup) -> bool:
    """Whether our finalizer says that something may be stored, and the status does not say where.

    The status was lost; or the operator died between the two writes of an acceptance.
    """
    recorded = own_phase(backup) is not None and backup.status.manifest_key is not None
    return labels.BACKUP_FINALIZER in backup.metadata.finalizers and not recorded


def is_unpinned(backup: VolumeBackup) -> bool:
    """Return whether a backup is whole and has no pins, because an earlier release made it."""
    status = backup.status
    return own_phase(backup) in WHOLE and status.manifest_key is not None and status.pins is None


def first_verdict(observed: ObservedBackup, checks: tuple[Check, ...]) -> Verdict:
    """What the first check that has something to say says."""
    return next((verdict for check in checks if (verdict := check(observed)) is not None), None)


def store_error(view: StoreLookup, deadlines: Deadlines) -> Verdict:
    """The store is missing, refuses, or does not answer."""
    if view.store is None:
        return Fail("StoreNotFound", view.missing)
    if view.error is None:
        return None
    return from_error(view.error, deadlines)


def from_error(error: CinderblockError, deadlines: Deadlines) -> Fail | Wait:
    """A store that was asked and had no good answer: transient ones are waited for."""
    if isinstance(error, TransientError):
        return Wait(error.reason, error.message, limit=deadlines.store, requeue_after=10.0)
    return Fail(error.reason, error.message)


def store_is_usable(observed: ObservedBackup) -> Verdict:
    """The store exists, is to stay, has its Secrets, and answers."""
    store, begun = observed.store.store, own_phase(observed.backup) and observed.backup.status.manifest_key
    if store is not None and store.metadata.is_being_deleted and not begun:
        return Fail("StoreBeingDeleted", f"BackupStore {store.name} is being deleted: nothing new goes into it.")
    return store_error(observed.store, observed.policy.deadlines)


def volume_exists(observed: ObservedBackup) -> Verdict:
    """Cinder: 404 ``Volume <id> could not be found.``"""
    if observed.claim is None:
        return Fail("VolumeNotFound", f"Volume {observed.backup.spec.volume_id} could not be found.")
    if observed.claim.metadata.is_being_deleted:
        return Fail("VolumeNotAvailable", not_available("deleting"))
    return None


def volume_is_bound(observed: ObservedBackup) -> Verdict:
    """A claim without a volume has nothing to back up. One that was applied together with its backup is waited for."""
    if observed.claim is None or observed.claim.is_bound:
        return None
    words = not_available(_claim_status(observed.claim))
    if observed.claim.status.phase == "Lost":
        return Fail("VolumeLost", words)
    return Wait("VolumeNotBound", words, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def _claim_status(claim: PersistentVolumeClaim) -> str:
    """The phase of a claim that is not bound; Cinder's word for one whose volume is gone is error."""
    return "error" if claim.status.phase == "Lost" else claim.status.phase.lower() or "pending"


def not_available(status: str) -> str:
    """Cinder's sentence about a volume that can not be backed up in its status."""
    return f'Invalid volume: Volume to be backed up must be available or in-use, but the current status is "{status}".'


def volume_is_free_or_forced(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Backing up an in-use volume must use the force flag.``; a given snapshot needs no force."""
    if observed.pods_using and not observed.backup.spec.force and observed.backup.spec.snapshot_id is None:
        return Fail(
            "VolumeInUse",
            "Invalid volume: Backing up an in-use volume must use the force flag."
            f" Used by pod {', '.join(observed.pods_using[:3])}.",
        )
    return None


def used_during_copy(pods: tuple[str, ...]) -> Fail | None:
    """A volume without snapshots that a pod got while it was copied: the copy may be of no instant that ever was."""
    if not pods:
        return None
    return Fail(
        "VolumeInUse",
        f"Invalid volume: Pod {', '.join(pods[:3])} used the volume while it was copied, and its driver makes no"
        " snapshots: the copy may be of no instant that ever was. Make the backup again while no pod uses it.",
    )


def volume_is_detached(observed: ObservedBackup) -> Verdict:
    """A pod that is gone says little while its node still has the volume: what that one holds back is not in a copy.

    Through a snapshot, ``force`` takes it as it is. Otherwise it is waited for: after a pod has ended, a detachment
    takes seconds.
    """
    if observed.backup.spec.snapshot_id is not None or (
        observed.backup.spec.force and observed.snapshot_class is not None
    ):
        return None
    return still_attached(
        "Invalid volume: Backing up an in-use volume must use the force flag.",
        observed.attached_to,
        observed.policy.deadlines,
    )


def parent_is_there(observed: ObservedBackup) -> Verdict:
    """Cinder: ``No backups available to do an incremental backup.``"""
    if not observed.backup.spec.incremental:
        return None
    if recorded_parent_id(observed) is None and latest_parent(observed) is None:
        return Fail("NoParent", "Invalid backup: No backups available to do an incremental backup.")
    if recorded_parent_id(observed) is not None and recorded_parent(observed) is None:
        return Fail(
            "ParentGone", f"Parent backup {recorded_parent_id(observed)} was deleted meanwhile: make the backup again."
        )
    return None


def parent_can_be_identified(observed: ObservedBackup) -> Verdict:
    """A mover builds on exactly the recorded parent. The pins of a parent without any are read before."""
    if observed.parent_error is None:
        return None
    return from_error(observed.parent_error, observed.policy.deadlines)


def volume_is_not_busy(observed: ObservedBackup) -> Verdict:
    """One operation per volume at a time, in order of age."""
    if observed.claim is None:
        return None
    return wait_for_volume(observed.backup, observed.claim, observed.siblings, observed.restores) or still_written(
        observed.claim, observed.pods_restoring
    )


def latest_parent(observed: ObservedBackup) -> VolumeBackup | None:
    """The latest available backup by dataTimestamp of the same volume and store; with a snapshot: older than it."""
    if observed.claim is None or observed.store.store is None:
        return None
    before = observed.given_snapshot.status.creation_time if observed.given_snapshot else None
    candidates = [
        sibling
        for sibling in observed.siblings
        if own_phase(sibling) in WHOLE
        and not sibling.is_alias
        and not sibling.metadata.is_being_deleted
        and sibling.status.volume_id == observed.claim.uid
        and sibling.status.store_name == observed.store.store.name
        and sibling.status.container == (observed.backup.spec.container or observed.store.store.spec.container)
        and sibling.status.data_timestamp is not None
        and (before is None or sibling.status.data_timestamp < before)
    ]
    return max(candidates, key=_data_age, default=None)


def _data_age(backup: VolumeBackup) -> tuple[float, str]:
    """Sorts backups by the instant of their data; the UID decides between equal ones."""
    instant = backup.status.data_timestamp
    return (instant.timestamp() if instant else 0.0, backup.uid)


def recorded_parent_id(observed: ObservedBackup) -> str | None:
    """The parent that was chosen when the backup was accepted."""
    return observed.backup.status.parent_id if own_phase(observed.backup) else None


def recorded_parent(observed: ObservedBackup) -> VolumeBackup | None:
    """The recorded parent, unless it is gone or going."""
    return next(
        (
            s
            for s in observed.siblings
            if s.backup_id == recorded_parent_id(observed) and not s.metadata.is_being_deleted
        ),
        None,
    )


BEFORE_COPY: tuple[Check, ...] = (
    volume_exists,
    volume_is_bound,
    store_is_usable,
    snapshot_checks.given_snapshot_fits,
    volume_is_free_or_forced,
    snapshot_checks.snapshot_can_be_made,
    snapshot_checks.snapshot_can_be_mounted,
    volume_is_not_busy,
    volume_is_detached,
    parent_is_there,
    parent_can_be_identified,
)
"""Asked until the copy begins; what was true then need not stay true (a pod that starts later does no harm)."""
