"""The rules for restoring, each a function of the world, in the order in which they are asked.

Messages are Cinder's where Cinder has words for the case (cinder/backup/api.py ``API.restore``).
"""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.children import ClaimRequest
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.verdicts import Fail, Verdict, Wait

Check = Callable[[ObservedRestore], Verdict]

DEFAULT_ACCESS_MODES = ("ReadWriteOnce",)
TARGET_NOT_AVAILABLE = "Invalid volume: Volume to be restored to must be available."
"""Cinder's sentence about a target in any other state."""


def own_phase(restore: VolumeRestore) -> RestorePhase | None:
    """The phase, if the status is the object's own: one that came with a copied object counts for nothing."""
    return restore.status.phase if restore.status.id == restore.uid else None


def is_in_place(restore: VolumeRestore) -> bool:
    """Whether an existing volume is to be overwritten. Cinder: volume_id wins over name."""
    return restore.spec.volume_id is not None


def target_name(observed: ObservedRestore) -> str:
    """Name of the new claim. Cinder: ``restore_backup_<id>``, here as a name that Kubernetes allows."""
    backup_id = observed.backup.backup_id if observed.backup else observed.restore.spec.backup_id
    return observed.restore.spec.name or f"restore-backup-{backup_id}"


def first_verdict(observed: ObservedRestore) -> Verdict:
    """What the first check that has something to say says."""
    return next((verdict for check in BEFORE_COPY if (verdict := check(observed)) is not None), None)


def backup_exists(observed: ObservedRestore) -> Verdict:
    """Cinder: 404 ``Backup <id> could not be found.``"""
    if observed.backup is None:
        return Fail("BackupNotFound", f"Backup {observed.restore.spec.backup_id} could not be found.")
    return None


def backup_is_available(observed: ObservedRestore) -> Verdict:
    """Cinder: ``Backup status must be available``. One that is being restored or failed to be is whole as well."""
    if observed.backup is None:
        return None
    if volume_lock.own_phase(observed.backup) not in backup_checks.WHOLE or observed.backup.metadata.is_being_deleted:
        return Fail("BackupNotAvailable", "Invalid backup: Backup status must be available")
    return None


def store_is_usable(observed: ObservedRestore) -> Verdict:
    """The store exists, has its Secrets, and answers."""
    return backup_checks.store_error(observed.store, observed.policy.deadlines)


def manifest_is_readable(observed: ObservedRestore) -> Verdict:
    """Nothing is touched before the operator itself has read the manifest and found the one that the status records.

    Somebody who can write to the store must not decide what a restore writes.
    """
    if observed.manifest is not None:
        return None
    if observed.manifest_error is not None:
        return backup_checks.from_error(observed.manifest_error, observed.policy.deadlines)
    return Fail("ManifestMissing", "The store has no manifest of the backup")


def existing_target_fits(observed: ObservedRestore) -> Verdict:
    """Cinder: the volume must exist, be available, and be large enough; and be of the backup's volumeMode."""
    if not is_in_place(observed.restore) or observed.manifest is None:
        return None
    target, description = observed.target, observed.manifest.description
    if target is None:
        return Fail("VolumeNotFound", f"Volume {observed.restore.spec.volume_id} could not be found.")
    if target.metadata.is_being_deleted or observed.pods_using:
        users = f" Used by pod {', '.join(observed.pods_using[:3])}." if observed.pods_using else ""
        return Fail("VolumeNotAvailable", f"{TARGET_NOT_AVAILABLE}{users}")
    if target.status.phase == "Lost":
        return Fail("VolumeLost", f"{TARGET_NOT_AVAILABLE} Its PersistentVolume is gone.")
    if target.spec.volume_mode is not description.volume_mode:
        return Fail(
            "VolumeModeMismatch",
            f"Invalid volume: volumeMode is {target.spec.volume_mode}, the backup's is {description.volume_mode}.",
        )
    if target.capacity_bytes < description.volume_bytes:
        return _too_small(target.capacity_bytes, description.volume_bytes)
    return None


def existing_target_is_bound(observed: ObservedRestore) -> Verdict:
    """A claim that was applied together with its restore is waited for; if its class waits for a pod, not even that.

    The mover is that pod then, as it is for a new volume.
    """
    target = observed.target
    if not is_in_place(observed.restore) or target is None or target.is_bound:
        return None
    if target.spec.storage_class_name in observed.wait_for_consumer_classes:
        return None
    words = f"{TARGET_NOT_AVAILABLE} It is not bound yet."
    return Wait("VolumeNotBound", words, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def existing_target_is_detached(observed: ObservedRestore) -> Verdict:
    """What a node still holds back would be written over what was restored."""
    if not is_in_place(observed.restore):
        return None
    return volume_lock.still_attached(TARGET_NOT_AVAILABLE, observed.attached_to, observed.policy.deadlines)


def used_during_copy(pods: tuple[str, ...]) -> Fail | None:
    """An existing target that a pod got while it was written: nobody knows any more what it holds."""
    if not pods:
        return None
    return Fail(
        "VolumeNotAvailable",
        f"{TARGET_NOT_AVAILABLE} Pod {', '.join(pods[:3])} used it while it was written, and it may hold something of"
        " both: restore it again while no pod uses it.",
    )


def new_target_fits(observed: ObservedRestore) -> Verdict:
    """The asked name is free, the size is enough, the StorageClass exists."""
    if is_in_place(observed.restore) or observed.manifest is None:
        return None
    if observed.target is not None and not observed.target.metadata.is_being_deleted:
        return Fail(
            "NameTaken", f"PersistentVolumeClaim {observed.target.name} exists: give another name, or its volumeId."
        )
    size = claim_request(observed).size
    if size < observed.manifest.description.volume_bytes:
        return _too_small(size, observed.manifest.description.volume_bytes)
    asked = observed.restore.spec.storage_class_name
    if asked is not None and asked not in observed.classes:
        return Fail("StorageClassNotFound", f"StorageClass {asked} could not be found.")
    return None


def new_name_is_free(observed: ObservedRestore) -> Verdict:
    """A claim of the asked name that is going is waited for: who replaces a volume deletes it and restores at once."""
    if is_in_place(observed.restore) or observed.target is None:
        return None
    words = f"PersistentVolumeClaim {observed.target.name} exists and is being deleted"
    return Wait("NameTaken", words, limit=observed.policy.deadlines.volume, requeue_after=5.0)


def _too_small(have: int, need: int) -> Fail:
    """Cinder counts GiB; bytes are added where the GiB would not show the difference."""
    sizes = f"{to_gib(have)} is too small to restore backup of size {to_gib(need)}"
    return Fail("VolumeTooSmall", f"Invalid volume: volume size {sizes}. ({have} of {need} bytes)")


def target_is_not_busy(observed: ObservedRestore) -> Verdict:
    """One operation per volume at a time, in order of age."""
    if observed.target is None or not is_in_place(observed.restore):
        return None
    busy = volume_lock.wait_for_volume(observed.restore, observed.target, observed.backups, observed.restores)
    return busy or volume_lock.still_written(observed.target, observed.pods_restoring)


def name_is_not_being_made(observed: ObservedRestore) -> Verdict:
    """Two restores for one new name: one gets it (`checks.goes_first`), the other waits and then finds it taken."""
    if is_in_place(observed.restore):
        return None
    name = target_name(observed)
    for other in observed.restores:
        same = not is_in_place(other) and (other.spec.name or other.status.volume_name) == name
        unfinished = own_phase(other) in (None, RestorePhase.RESTORING)
        if same and unfinished and volume_lock.precedes(other, observed.restore):
            return Wait("VolumeBusy", f"VolumeRestore {other.name} is making volume {name}")
    return None


def claim_request(observed: ObservedRestore) -> ClaimRequest:
    """What the new volume is to be: as asked, else as the backed up volume was."""
    if observed.manifest is None:
        raise ValueError("the manifest says what the volume was")
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
    backup_exists,
    backup_is_available,
    store_is_usable,
    manifest_is_readable,
    existing_target_fits,
    existing_target_is_bound,
    target_is_not_busy,
    existing_target_is_detached,
    new_target_fits,
    new_name_is_free,
    name_is_not_being_made,
)
"""Asked until the copy begins."""
