"""The checks before a backup is made, each a function of the observed state, in the order in which they apply.

Messages are Cinder's where Cinder has a message for the case (cinder/backup/api.py ``API.create``).
"""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.errors import CinderblockError, TransientError
from cinderblock.lifecycle import verdicts
from cinderblock.lifecycle.backup import damage, snapshot_checks
from cinderblock.lifecycle.observed import ObservedBackup, StoreLookup
from cinderblock.lifecycle.store import access, movers, place
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Verdict, Wait
from cinderblock.lifecycle.volume_lock import age_key, still_attached, still_written, wait_for_volume
from cinderblock.reasons import Reason

Check = Callable[[ObservedBackup], Verdict]


def identity(backup: VolumeBackup) -> dict[str, str | None]:
    """Return the fields by which a status identifies its object."""
    return {"id": backup.backup_id, "imported_by": backup.uid if backup.spec.import_ else None}


def is_forgotten(backup: VolumeBackup) -> bool:
    """Return whether the store may hold data of a backup whose status does not say where.

    The finalizer shows that. Either the status was lost, or the operator died between the two writes of an acceptance.
    """
    is_recorded = backup.own_phase is not None and backup.status.manifest_key is not None
    return labels.BACKUP_FINALIZER in backup.metadata.finalizers and not is_recorded


def is_unpinned(backup: VolumeBackup) -> bool:
    """Return whether a backup is complete and has no pins, because an earlier release made it."""
    return backup.is_complete and backup.status.manifest_key is not None and backup.status.pins is None


def first_verdict(observed: ObservedBackup, checks: tuple[Check, ...]) -> Verdict:
    """Return the verdict of the first check that does not pass."""
    return next((verdict for check in checks if (verdict := check(observed)) is not None), None)


def store_error(lookup: StoreLookup, deadlines: Deadlines) -> Verdict:
    """Fail or wait if the store is missing, may not be used, refuses, or does not answer."""
    if lookup.store is None:
        return Fail(lookup.missing_reason, lookup.missing)
    if lookup.refusal is not None:
        return lookup.refusal
    if lookup.error is None:
        return None
    return from_error(lookup.error, deadlines)


def from_error(error: CinderblockError, deadlines: Deadlines) -> Fail | Wait:
    """Return the verdict on an error of the store: wait if it is transient, otherwise fail."""
    if isinstance(error, TransientError):
        return Wait(error.reason, error.message, limit=deadlines.store, requeue_after=10.0)
    return Fail(error.reason, error.message)


def store_is_usable(observed: ObservedBackup) -> Verdict:
    """The store exists, is not leaving, has its Secrets, and answers."""
    store, is_accepted = observed.store.store, observed.backup.own_phase and observed.backup.status.manifest_key
    if store is not None and store.is_leaving and not is_accepted:
        message = f"Cannot back up to BackupStore {store.name}: it is being deleted. Choose another BackupStore."
        return Fail(Reason.STORE_BEING_DELETED, message)
    return foreign_container(observed) or store_error(observed.store, observed.policy.deadlines)


def store_is_writable(observed: ObservedBackup) -> Verdict:
    """The access to the store is not ReadOnly. No answer of the store is needed to know that."""
    return access.refusal(observed.store.store) if observed.store.store is not None else None


def place_is_recorded(observed: ObservedBackup) -> Verdict:
    """The store is where the acceptance recorded the manifest. Wait if it has moved: it may move back."""
    store = observed.store.store
    moved = place.misplaced(observed.backup, store) if store is not None else None
    return from_error(moved, observed.policy.deadlines) if moved is not None else None


def foreign_container(observed: ObservedBackup) -> Fail | None:
    """Fail if a backup names another bucket than that of a shared store, whose credentials are not the namespace's."""
    store, asked = observed.store.store, observed.backup.spec.container
    if store is None or asked is None or asked == place.container_of(store, asked):
        return None
    message = f"BackupStore {store.name} has only container {store.spec.container}. Leave spec.container out."
    return Fail(Reason.STORE_NOT_ALLOWED, message)


def namespace_is_not_too_full(observed: ObservedBackup) -> Verdict:
    """The namespace has no more VolumeBackups than the operator works on: each takes memory of all others."""
    return verdicts.too_many_objects(observed.object_count, observed.policy.object_limit, "VolumeBackup")


def mover_is_permitted(observed: ObservedBackup) -> Verdict:
    """The operator allows what spec.mover of the store asks for, and its movers can reach the store."""
    return movers.verdict(observed.store, observed.policy)


def volume_exists(observed: ObservedBackup) -> Verdict:
    """Cinder: 404 ``Volume <id> could not be found.``"""
    if observed.claim is None:
        return volume_not_found(observed.backup.spec.volume_id)
    if observed.claim.metadata.is_being_deleted:
        return Fail(Reason.VOLUME_NOT_AVAILABLE, not_available("deleting"))
    return None


def volume_not_found(volume_id: str | None) -> Fail:
    """Return Cinder's failure about a volume that does not exist."""
    return Fail(Reason.VOLUME_NOT_FOUND, f"Volume {volume_id} could not be found.")


def volume_is_bound(observed: ObservedBackup) -> Verdict:
    """The claim has a volume. Wait for a claim that was applied together with its backup."""
    if observed.claim is None or observed.claim.is_bound:
        return None
    message = not_available(_cinder_status(observed.claim))
    if observed.claim.status.phase == "Lost":
        return Fail(Reason.VOLUME_LOST, message)
    return Wait(Reason.VOLUME_NOT_BOUND, message, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def _cinder_status(claim: PersistentVolumeClaim) -> str:
    """Return the phase of an unbound claim as a status of Cinder: a lost volume has the status error."""
    return "error" if claim.status.phase == "Lost" else claim.status.phase.lower() or "pending"


def not_available(status: str) -> str:
    """Return Cinder's message about a volume whose status does not allow a backup."""
    return f'Invalid volume: Volume to be backed up must be available or in-use, but the current status is "{status}".'


def volume_is_free_or_forced(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Backing up an in-use volume must use the force flag.`` A given snapshot needs no force.

    A ReadOnlyMany volume needs none either: nobody can write to it.
    """
    if _is_read_only(observed):
        return None
    if observed.pods_using and not observed.backup.spec.force and observed.backup.spec.snapshot_id is None:
        return Fail(
            Reason.VOLUME_IN_USE,
            "Invalid volume: Backing up an in-use volume must use the force flag."
            f" Used by pod {', '.join(observed.pods_using[:3])}.",
        )
    return None


def _is_read_only(observed: ObservedBackup) -> bool:
    return observed.claim is not None and observed.claim.is_read_only


def used_during_copy(pods: tuple[str, ...]) -> Fail | None:
    """Fail if pods used a volume without snapshots during the copy: the copy may mix several states."""
    if not pods:
        return None
    return Fail(
        Reason.VOLUME_IN_USE,
        f"Invalid volume: Pod {', '.join(pods[:3])} used the volume during the copy, and its driver does not support"
        " snapshots, so the copy may be inconsistent. Retry while no pod uses the volume.",
    )


def volume_is_detached(observed: ObservedBackup) -> Verdict:
    """No node has the volume attached without a pod: such a node may hold data back that the copy would lack.

    With ``force``, the snapshot is taken at once. Otherwise wait: after a pod has ended, a detachment takes
    seconds.
    """
    is_forced = observed.backup.spec.force and observed.snapshot_class is not None
    if observed.backup.spec.snapshot_id is not None or is_forced or _is_read_only(observed):
        return None
    return still_attached(
        "Invalid volume: Backing up an in-use volume must use the force flag.",
        observed.attached_to,
        observed.policy.deadlines,
    )


def parent_is_there(observed: ObservedBackup) -> Verdict:
    """Cinder: ``No backups available to do an incremental backup.``

    If there are only damaged ones, the backup is full. The acceptance decides that.
    """
    if not observed.backup.spec.incremental:
        return None
    parent_id = recorded_parent_id(observed)
    is_decided = observed.backup.own_phase is not None and observed.backup.status.manifest_key is not None
    if parent_id is None and not is_decided and not _possible_parents(observed):
        return Fail(Reason.NO_PARENT, "Invalid backup: No backups available to do an incremental backup.")
    if parent_id is not None and recorded_parent(observed) is None:
        message = f"Cannot make the incremental backup: its parent {parent_id} was deleted. Make another backup."
        return Fail(Reason.PARENT_GONE, message)
    return None


def parent_can_be_identified(observed: ObservedBackup) -> Verdict:
    """The parent has pins, from its status or from its manifest, so that the mover uses exactly that parent."""
    if observed.parent_error is None:
        return None
    return from_error(observed.parent_error, observed.policy.deadlines)


def volume_is_not_busy(observed: ObservedBackup) -> Verdict:
    """No other operation uses the volume or takes precedence."""
    if observed.claim is None:
        return None
    return wait_for_volume(observed.backup, observed.claim, observed.siblings, observed.restores) or still_written(
        observed.claim, observed.pods_restoring
    )


def latest_parent(observed: ObservedBackup) -> VolumeBackup | None:
    """Return the complete backup of the same volume and store with the latest dataTimestamp that is not damaged.

    With a given snapshot, the parent must be older than that snapshot. If so much is damaged that the backup should be
    full, there is no parent.
    """
    sound = [backup for backup in _possible_parents(observed) if not backup.is_damaged]
    newest = max(sound, key=data_age_key, default=None)
    return newest if newest is not None and damage.is_usable(newest, damaged_siblings(observed)) else None


def damaged_siblings(observed: ObservedBackup) -> tuple[VolumeBackup, ...]:
    """Return the backups of the same volume and place that a verification found damaged."""
    return tuple(sibling for sibling in observed.siblings if sibling.is_damaged and _is_in_place(observed, sibling))


def _is_in_place(observed: ObservedBackup, sibling: VolumeBackup) -> bool:
    """Return whether a backup is of the same volume, and in the same store and bucket."""
    claim, store = observed.claim, observed.store.store
    if claim is None or store is None:
        return False
    if (sibling.status.volume_id, sibling.status.store_name) != (claim.uid, store.name):
        return False
    is_equal = sibling.status.container == place.container_of(store, observed.backup.spec.container)
    return (is_equal or not place.is_known(store)) and place.misplaced(sibling, store) is None


def _possible_parents(observed: ObservedBackup) -> list[VolumeBackup]:
    """Return the complete backups of the same volume and place, whether they are damaged or not."""
    before = observed.given_snapshot.status.creation_time if observed.given_snapshot else None
    return [
        sibling
        for sibling in observed.siblings
        if sibling.is_complete
        and not sibling.is_alias
        and not sibling.metadata.is_being_deleted
        and _is_in_place(observed, sibling)
        and sibling.status.data_timestamp is not None
        and (before is None or sibling.status.data_timestamp < before)
    ]


def data_age_key(backup: VolumeBackup) -> tuple[float, str]:
    """Return a key that sorts backups by their dataTimestamp, and equal ones by UID."""
    instant = backup.status.data_timestamp
    return (instant.timestamp() if instant else 0.0, backup.uid)


def recorded_parent_id(observed: ObservedBackup) -> str | None:
    """Return the id of the parent that the acceptance recorded."""
    return observed.backup.status.parent_id if observed.backup.own_phase else None


def recorded_parent(observed: ObservedBackup) -> VolumeBackup | None:
    """Return the recorded parent; None if it does not exist or is being deleted."""
    found = [
        sibling
        for sibling in observed.siblings
        if sibling.backup_id == recorded_parent_id(observed) and not sibling.metadata.is_being_deleted
    ]
    return min(found, key=id_precedence, default=None)


def id_precedence(backup: VolumeBackup) -> tuple[bool, bool, tuple[object, str]]:
    """Return a sort key for backups with the same id. Complete ones come first, then the ones not imported."""
    return (not backup.is_complete, backup.spec.import_ is not None, age_key(backup))


BEFORE_COPY: tuple[Check, ...] = (
    namespace_is_not_too_full,
    volume_exists,
    store_is_writable,
    volume_is_bound,
    store_is_usable,
    mover_is_permitted,
    snapshot_checks.given_snapshot_fits,
    volume_is_free_or_forced,
    snapshot_checks.snapshot_can_be_made,
    snapshot_checks.snapshot_can_be_mounted,
    volume_is_not_busy,
    volume_is_detached,
    parent_is_there,
    parent_can_be_identified,
)
"""Checks that must pass until the copy begins. Later changes do not matter: a pod that starts then does no harm."""
