"""The rules for restoring, each a function of the world, in the order in which they are asked.

Messages are Cinder's where Cinder has words for the case (cinder/backup/api.py ``API.restore``).
"""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import checks
from cinderblock.lifecycle.objects import ClaimRequest
from cinderblock.lifecycle.verdicts import Fail, Verdict, Wait
from cinderblock.lifecycle.worlds import RestoreWorld

Check = Callable[[RestoreWorld], Verdict]

DEFAULT_ACCESS_MODES = ("ReadWriteOnce",)
TARGET_NOT_AVAILABLE = "Invalid volume: Volume to be restored to must be available."
"""Cinder's sentence about a target in any other state."""


def own_phase(restore: VolumeRestore) -> RestorePhase | None:
    """The phase, if the status is the object's own: one that came with a copied object counts for nothing."""
    return restore.status.phase if restore.status.id == restore.uid else None


def wants_existing(restore: VolumeRestore) -> bool:
    """Whether an existing volume is to be overwritten. Cinder: volume_id wins over name."""
    return restore.spec.volume_id is not None


def asked_name(world: RestoreWorld) -> str:
    """Name of the new claim. Cinder: ``restore_backup_<id>``, here as a name that Kubernetes allows."""
    backup_id = world.backup.backup_id if world.backup else world.restore.spec.backup_id
    return world.restore.spec.name or f"restore-backup-{backup_id}"


def first_verdict(world: RestoreWorld) -> Verdict:
    """What the first check that has something to say says."""
    return next((verdict for check in BEFORE_COPY if (verdict := check(world)) is not None), None)


def backup_exists(world: RestoreWorld) -> Verdict:
    """Cinder: 404 ``Backup <id> could not be found.``"""
    if world.backup is None:
        return Fail("BackupNotFound", f"Backup {world.restore.spec.backup_id} could not be found.")
    return None


def backup_is_available(world: RestoreWorld) -> Verdict:
    """Cinder: ``Backup status must be available``. One that is being restored or failed to be is whole as well."""
    if world.backup is None:
        return None
    if checks.own_phase(world.backup) not in checks.WHOLE or world.backup.metadata.is_being_deleted:
        return Fail("BackupNotAvailable", "Invalid backup: Backup status must be available")
    return None


def store_is_usable(world: RestoreWorld) -> Verdict:
    """The store exists, has its Secrets, and answers."""
    return checks.store_problem(world.store, world.policy.deadlines)


def manifest_is_readable(world: RestoreWorld) -> Verdict:
    """Nothing is touched before the operator itself has read the manifest and found the one that the status records.

    Somebody who can write to the store must not decide what a restore writes.
    """
    if world.manifest is not None:
        return None
    if world.manifest_trouble is not None:
        return checks.trouble(world.manifest_trouble, world.policy.deadlines)
    return Fail("ManifestMissing", "The store has no manifest of the backup")


def existing_target_fits(world: RestoreWorld) -> Verdict:
    """Cinder: the volume must exist, be available, and be large enough; and be of the backup's volumeMode."""
    if not wants_existing(world.restore) or world.manifest is None:
        return None
    target, description = world.target, world.manifest.description
    if target is None:
        return Fail("VolumeNotFound", f"Volume {world.restore.spec.volume_id} could not be found.")
    if target.metadata.is_being_deleted or world.users:
        users = f" Used by pod {', '.join(world.users[:3])}." if world.users else ""
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


def existing_target_is_bound(world: RestoreWorld) -> Verdict:
    """A claim that was applied together with its restore is waited for; if its class waits for a pod, not even that.

    The mover is that pod then, as it is for a new volume.
    """
    target = world.target
    if not wants_existing(world.restore) or target is None or target.is_bound:
        return None
    if target.spec.storage_class_name in world.late_classes:
        return None
    words = f"{TARGET_NOT_AVAILABLE} It is not bound yet."
    return Wait("VolumeNotBound", words, limit=world.policy.deadlines.volume, look_again=5.0)


def existing_target_is_detached(world: RestoreWorld) -> Verdict:
    """What a node still holds back would be written over what was restored."""
    if not wants_existing(world.restore):
        return None
    return checks.still_attached(TARGET_NOT_AVAILABLE, world.attached_to, world.policy.deadlines)


def intruded(pods: tuple[str, ...]) -> Fail | None:
    """An existing target that a pod got while it was written: nobody knows any more what it holds."""
    if not pods:
        return None
    return Fail(
        "VolumeNotAvailable",
        f"{TARGET_NOT_AVAILABLE} Pod {', '.join(pods[:3])} used it while it was written, and it may hold something of"
        " both: restore it again while no pod uses it.",
    )


def new_target_fits(world: RestoreWorld) -> Verdict:
    """The asked name is free, the size is enough, the StorageClass exists."""
    if wants_existing(world.restore) or world.manifest is None:
        return None
    if world.target is not None and not world.target.metadata.is_being_deleted:
        return Fail(
            "NameTaken", f"PersistentVolumeClaim {world.target.name} exists: give another name, or its volumeId."
        )
    size = request(world).size
    if size < world.manifest.description.volume_bytes:
        return _too_small(size, world.manifest.description.volume_bytes)
    asked = world.restore.spec.storage_class_name
    if asked is not None and asked not in world.classes:
        return Fail("StorageClassNotFound", f"StorageClass {asked} could not be found.")
    return None


def new_name_is_free(world: RestoreWorld) -> Verdict:
    """A claim of the asked name that is going is waited for: who replaces a volume deletes it and restores at once."""
    if wants_existing(world.restore) or world.target is None:
        return None
    words = f"PersistentVolumeClaim {world.target.name} exists and is being deleted"
    return Wait("NameTaken", words, limit=world.policy.deadlines.volume, look_again=5.0)


def _too_small(have: int, need: int) -> Fail:
    """Cinder counts GiB; bytes are added where the GiB would not show the difference."""
    sizes = f"{to_gib(have)} is too small to restore backup of size {to_gib(need)}"
    return Fail("VolumeTooSmall", f"Invalid volume: volume size {sizes}. ({have} of {need} bytes)")


def target_is_not_busy(world: RestoreWorld) -> Verdict:
    """One operation per volume at a time, in order of age."""
    if world.target is None or not wants_existing(world.restore):
        return None
    busy = checks.busy(world.restore, world.target, world.backups, world.restores)
    return busy or checks.still_written(world.target, world.writers)


def name_is_not_being_made(world: RestoreWorld) -> Verdict:
    """Two restores for one new name: one gets it (`checks.goes_first`), the other waits and then finds it taken."""
    if wants_existing(world.restore):
        return None
    name = asked_name(world)
    for other in world.restores:
        same = not wants_existing(other) and (other.spec.name or other.status.volume_name) == name
        unfinished = own_phase(other) in (None, RestorePhase.RESTORING)
        if same and unfinished and checks.goes_first(other, world.restore):
            return Wait("VolumeBusy", f"VolumeRestore {other.name} is making volume {name}")
    return None


def request(world: RestoreWorld) -> ClaimRequest:
    """What the new volume is to be: as asked, else as the backed up volume was."""
    if world.manifest is None:
        raise ValueError("the manifest says what the volume was")
    spec, description = world.restore.spec, world.manifest.description
    storage_class = spec.storage_class_name
    if storage_class is None and description.storage_class in world.classes:
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
