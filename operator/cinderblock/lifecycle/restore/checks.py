"""The checks before a restore, each a function of the observed state, in the order in which they apply.

Messages are Cinder's where Cinder has a message for the case (cinder/backup/api.py ``API.restore``).
"""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.api import labels
from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import verdicts, volume_lock
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup_grants import checks as grant_checks
from cinderblock.lifecycle.children import ClaimRequest
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import given_claim
from cinderblock.lifecycle.store import movers
from cinderblock.lifecycle.verdicts import Fail, Verdict, Wait
from cinderblock.reasons import Reason

Check = Callable[[ObservedRestore], Verdict]

DEFAULT_ACCESS_MODES = ("ReadWriteOnce",)
TARGET_NOT_AVAILABLE = "Invalid volume: Volume to be restored to must be available."
"""Cinder's message about a target with any other status."""


def ended_before(restore: VolumeRestore) -> RestorePhase | None:
    """Return the final phase of a restore whose status was lost. The annotation of a copied object does not count."""
    uid, _, recorded = restore.metadata.annotations.get(labels.ENDED_ANNOTATION, "").partition("/")
    final = (phase for phase in RestorePhase if phase.is_final and phase == recorded)
    return next(final, None) if uid == restore.uid else None


def is_in_place(restore: VolumeRestore) -> bool:
    """Return whether the restore overwrites an existing volume. As in Cinder, the volume id wins over the name."""
    return restore.spec.volume_id is not None


def target_name(observed: ObservedRestore) -> str:
    """Return the name of the new claim. Cinder: ``restore_backup_<id>``, here as a name that Kubernetes allows."""
    if observed.restore.spec.claim is not None:
        return observed.restore.spec.claim.name
    backup_id = observed.backup.backup_id if observed.backup else observed.restore.spec.backup_id
    return observed.restore.spec.name or f"restore-backup-{backup_id}"


def first_verdict(observed: ObservedRestore) -> Verdict:
    """Return the verdict of the first check that does not pass."""
    checks = WITHOUT_COPY if observed.restore.fills_nothing else BEFORE_COPY
    return next((verdict for check in checks if (verdict := check(observed)) is not None), None)


def namespace_is_not_too_full(observed: ObservedRestore) -> Verdict:
    """The namespace has no more VolumeRestores than the operator works on."""
    return verdicts.too_many_objects(observed.object_count, observed.policy.object_limit, "VolumeRestore")


def backup_exists(observed: ObservedRestore) -> Verdict:
    """Cinder: 404 ``Backup <id> could not be found.``"""
    if observed.backup is None and not observed.restore.fills_nothing:
        return Fail(Reason.BACKUP_NOT_FOUND, f"Backup {observed.restore.spec.backup_id} could not be found.")
    return None


def backup_is_available(observed: ObservedRestore) -> Verdict:
    """Cinder: ``Backup status must be available``. Backups in restoring and error_restoring are complete as well."""
    if observed.backup is None:
        return None
    if not observed.backup.is_complete or observed.backup.metadata.is_being_deleted:
        return Fail(Reason.BACKUP_NOT_AVAILABLE, "Invalid backup: Backup status must be available")
    return None


def store_is_usable(observed: ObservedRestore) -> Verdict:
    """The store exists, has its Secrets, and answers."""
    return backup_checks.store_error(observed.store, observed.policy.deadlines)


def mover_is_permitted(observed: ObservedRestore) -> Verdict:
    """The operator allows what spec.mover of the store asks for, and its movers can reach the store."""
    return movers.verdict(observed.store, observed.policy)


def manifest_is_readable(observed: ObservedRestore) -> Verdict:
    """The operator itself has read the manifest, and it is the one that the status records.

    Otherwise, somebody who can write to the store would decide what a restore writes.
    """
    if observed.manifest is not None:
        return None
    if observed.manifest_error is not None:
        return backup_checks.from_error(observed.manifest_error, observed.policy.deadlines)
    return Fail(Reason.MANIFEST_MISSING, "The store has no manifest of the backup")


def existing_target_fits(observed: ObservedRestore) -> Verdict:
    """Cinder: the volume must exist, be available and be large enough. It also needs the backup's volumeMode."""
    if not is_in_place(observed.restore) or observed.manifest is None:
        return None
    target, description = observed.target, observed.manifest.description
    if target is None:
        return backup_checks.volume_not_found(observed.restore.spec.volume_id)
    if target.metadata.is_being_deleted or observed.pods_using:
        users = f" Used by pod {', '.join(observed.pods_using[:3])}." if observed.pods_using else ""
        return Fail(Reason.VOLUME_NOT_AVAILABLE, f"{TARGET_NOT_AVAILABLE}{users}")
    if target.status.phase == "Lost":
        return Fail(Reason.VOLUME_LOST, f"{TARGET_NOT_AVAILABLE} Its PersistentVolume no longer exists.")
    if target.spec.volume_mode is not description.volume_mode:
        modes = f"volumeMode is {target.spec.volume_mode}, the backup's is {description.volume_mode}"
        return Fail(Reason.VOLUME_MODE_MISMATCH, f"Invalid volume: {modes}.")
    if target.capacity_bytes < description.volume_bytes:
        return _too_small(target.capacity_bytes, description.volume_bytes)
    return None


def existing_target_is_bound(observed: ObservedRestore) -> Verdict:
    """The claim is bound, or its class binds it when a pod needs it: the mover is that pod.

    Wait for a claim that was applied together with its restore.
    """
    target = observed.target
    if not is_in_place(observed.restore) or target is None or target.is_bound:
        return None
    if target.spec.storage_class_name in observed.wait_for_consumer_classes:
        return None
    message = f"{TARGET_NOT_AVAILABLE} It is not bound yet."
    return Wait(Reason.VOLUME_NOT_BOUND, message, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def existing_target_is_detached(observed: ObservedRestore) -> Verdict:
    """No node has the volume attached: such a node may write old data over the restored data."""
    if not is_in_place(observed.restore):
        return None
    return volume_lock.still_attached(TARGET_NOT_AVAILABLE, observed.attached_to, observed.policy.deadlines)


def used_during_copy(pods: tuple[str, ...]) -> Fail | None:
    """Fail if pods used an existing target during the copy: its content is unknown then."""
    if not pods:
        return None
    return Fail(
        Reason.VOLUME_NOT_AVAILABLE,
        f"{TARGET_NOT_AVAILABLE} Pod {', '.join(pods[:3])} used it during the copy, so it may mix the data of the pod"
        " and of the backup. Restore again while no pod uses the volume.",
    )


def new_target_fits(observed: ObservedRestore) -> Verdict:
    """The name of the new claim is free, its size suffices, and its StorageClass exists."""
    if is_in_place(observed.restore) or observed.restore.spec.claim is not None or observed.manifest is None:
        return None
    if observed.target is not None and not observed.target.metadata.is_being_deleted:
        cause = f"Cannot create PersistentVolumeClaim {observed.target.name}: it exists."
        return Fail(Reason.NAME_TAKEN, f"{cause} Choose another name, or set spec.volumeId to overwrite it.")
    size = claim_request(observed).size
    if size < observed.manifest.description.volume_bytes:
        return _too_small(size, observed.manifest.description.volume_bytes)
    storage_class = observed.restore.spec.storage_class_name
    if storage_class is not None and storage_class not in observed.classes:
        return Fail(Reason.STORAGE_CLASS_NOT_FOUND, f"StorageClass {storage_class} could not be found.")
    return None


def new_name_is_free(observed: ObservedRestore) -> Verdict:
    """No claim with the name of the new one is being deleted. Wait for it: users replace volumes like that."""
    if is_in_place(observed.restore) or observed.restore.spec.claim is not None or observed.target is None:
        return None
    message = f"PersistentVolumeClaim {observed.target.name} exists and is being deleted"
    return Wait(Reason.NAME_TAKEN, message, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def _too_small(size: int, needed: int) -> Fail:
    """Return Cinder's failure, which counts GiB, with the bytes, since the GiB may be equal."""
    sizes = f"{to_gib(size)} is too small to restore backup of size {to_gib(needed)}"
    return Fail(Reason.VOLUME_TOO_SMALL, f"Invalid volume: volume size {sizes}. ({size} of {needed} bytes)")


def target_is_not_busy(observed: ObservedRestore) -> Verdict:
    """No other operation uses the existing target or takes precedence."""
    if observed.target is None or not is_in_place(observed.restore):
        return None
    busy = volume_lock.wait_for_volume(observed.restore, observed.target, observed.backups, observed.restores)
    return busy or volume_lock.still_written(observed.target, observed.pods_restoring)


def name_is_not_being_made(observed: ObservedRestore) -> Verdict:
    """No other restore is creating a claim of the same name. A later restore waits, and then finds the name taken."""
    if is_in_place(observed.restore):
        return None
    name = target_name(observed)
    for other in observed.restores:
        has_same_name = not is_in_place(other) and (other.spec.name or other.status.volume_name) == name
        if has_same_name and not other.has_ended and volume_lock.precedes(other, observed.restore):
            message = f"VolumeRestore {other.name} is creating PersistentVolumeClaim {name}"
            return Wait(Reason.VOLUME_BUSY, message)
    return None


def claim_request(observed: ObservedRestore) -> ClaimRequest:
    """Return the properties of the new claim: those of the spec, otherwise those of the backed up volume."""
    if observed.manifest is None:
        raise ValueError("the manifest is needed for the properties of the backed up volume")
    if observed.restore.spec.claim is not None:
        raise ValueError("a given claim has its own properties")
    spec, description = observed.restore.spec, observed.manifest.description
    storage_class = spec.storage_class_name
    if storage_class is None and description.storage_class in observed.classes:
        storage_class = description.storage_class
    modes = tuple(mode.value for mode in spec.access_modes or ()) or tuple(description.access_modes)
    return ClaimRequest(
        size=to_bytes(spec.size) if spec.size else description.volume_bytes,
        storage_class=storage_class,
        volume_mode=description.volume_mode,
        access_modes=modes or DEFAULT_ACCESS_MODES,
    )


BEFORE_COPY: tuple[Check, ...] = (
    namespace_is_not_too_full,
    grant_checks.backup_is_granted,
    backup_exists,
    backup_is_available,
    grant_checks.backup_is_shared,
    store_is_usable,
    mover_is_permitted,
    manifest_is_readable,
    existing_target_fits,
    existing_target_is_bound,
    target_is_not_busy,
    existing_target_is_detached,
    given_claim.check,
    new_target_fits,
    new_name_is_free,
    name_is_not_being_made,
)
"""Checks that must pass until the copy begins."""
WITHOUT_COPY: tuple[Check, ...] = (namespace_is_not_too_full, given_claim.check, name_is_not_being_made)
"""The same for a claim that gets an empty volume."""
