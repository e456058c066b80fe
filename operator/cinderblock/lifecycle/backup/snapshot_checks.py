"""The checks of the snapshot that a backup is made through: the user's, or one that the operator takes.

Messages are Cinder's where Cinder has a message for the case (cinder/backup/api.py ``API.create``).
"""

from __future__ import annotations

from collections.abc import Sequence

from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot, VolumeSnapshotClass
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Verdict, Wait
from cinderblock.reasons import Reason


def choose_snapshot_class(
    store: BackupStore | None, classes: Sequence[VolumeSnapshotClass], driver: str
) -> tuple[VolumeSnapshotClass | None, str]:
    """Return the VolumeSnapshotClass for a volume, or None and why the class that should serve cannot be used.

    The BackupStore may name the class. Otherwise it is the default class of the driver, or its only class. A driver
    without classes makes no snapshots, which is not an error.
    """
    name = store.spec.volume_snapshot_class_name if store else None
    if store is not None and name is not None:
        named = next((found for found in classes if found.name == name), None)
        if named is None:
            cause = f"Cannot take a snapshot: BackupStore {store.name} names VolumeSnapshotClass {name}, which does not"
            return None, f"{cause} exist. Create it, or correct spec.volumeSnapshotClassName."
        if named.driver != driver:
            return None, ""
        return (None, _keeps_snapshots(driver, [named])) if named.keeps_snapshots else (named, "")
    own = [found for found in classes if driver and found.driver == driver]
    usable = [found for found in own if not found.keeps_snapshots]
    chosen = _newest_default(usable) or (usable[0] if len(usable) == 1 else None)
    if chosen is not None:
        return chosen, ""
    if usable:
        listed = ", ".join(sorted(found.name for found in usable))
        cause = f"Cannot choose a VolumeSnapshotClass: driver {driver} has several ({listed}), and none is the default."
        return None, f"{cause} Set spec.volumeSnapshotClassName of the BackupStore."
    return None, _keeps_snapshots(driver, own) if own else ""


def _newest_default(classes: Sequence[VolumeSnapshotClass]) -> VolumeSnapshotClass | None:
    """Return the newest default class, as Kubernetes does for StorageClasses; of equally old ones the first by name.

    The snapshot controller rejects several defaults (external-snapshotter ``SetDefaultSnapshotClass``), so the
    VolumeSnapshot names one of them.
    """
    defaults = sorted((found for found in classes if found.is_default), key=lambda found: found.name)
    return max(defaults, key=_creation_key, default=None)


def _creation_key(found: VolumeSnapshotClass) -> float:
    created = found.metadata.creation_timestamp
    return created.timestamp() if created else 0.0


def _keeps_snapshots(driver: str, classes: Sequence[VolumeSnapshotClass]) -> str:
    """Return why the only classes of a driver cannot be used: they would leave the snapshot of every backup behind."""
    listed = ", ".join(sorted(found.name for found in classes))
    cause = f"Cannot use VolumeSnapshotClass {listed}: deletionPolicy Retain would keep the snapshot of every backup."
    return f"{cause} Create a class for driver {driver} with deletionPolicy Delete."


def given_snapshot_fits(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Snapshot <id> could not be found.``, and a snapshot must be of the volume and be available.

    Wait for a snapshot that is not ready: it may have been applied together with its backup.
    """
    snapshot_id = observed.backup.spec.snapshot_id
    if snapshot_id is None or observed.claim is None:
        return None
    if observed.given_snapshot is None:
        return Fail(Reason.SNAPSHOT_NOT_FOUND, f"Snapshot {snapshot_id} could not be found.")
    source = observed.given_snapshot.spec.source.persistent_volume_claim_name
    if source is not None and source != observed.claim.name:
        return Fail(
            Reason.SNAPSHOT_MISMATCH,
            f"Invalid volume: Volume {observed.claim.name} does not match with snapshot.volume_id {source}.",
        )
    if source is not None and _is_older(observed.given_snapshot, observed.claim):
        return Fail(
            Reason.SNAPSHOT_MISMATCH,
            f"Invalid volume: Volume {observed.claim.name} does not match with snapshot.volume_id: the snapshot is"
            " older and belongs to an earlier volume of this name.",
        )
    return _given_snapshot_is_ready(observed.given_snapshot, observed.policy.deadlines)


def _given_snapshot_is_ready(snapshot: VolumeSnapshot, deadlines: Deadlines) -> Verdict:
    if snapshot.status.ready_to_use:
        return None
    rule = "Invalid snapshot: Snapshot to be backed up must be available, but the current status is"
    if snapshot.status.error is not None:
        return Fail(Reason.SNAPSHOT_NOT_AVAILABLE, f'{rule} "error".')
    return Wait(Reason.SNAPSHOT_NOT_AVAILABLE, f'{rule} "creating".', limit=deadlines.snapshot, requeue_after=5.0)


def _is_older(snapshot: VolumeSnapshot, claim: PersistentVolumeClaim) -> bool:
    """Return whether a snapshot is older than its claim by both clocks, that of the API server and the driver's.

    One clock does not suffice: a VolumeSnapshot may be applied before its claim, and an array's clock may be wrong.
    """
    applied, taken = snapshot.metadata.creation_timestamp, snapshot.status.creation_time
    claimed = claim.metadata.creation_timestamp
    return bool(applied and taken and claimed and applied < claimed and taken < claimed)


def snapshot_can_be_made(observed: ObservedBackup) -> Verdict:
    """A volume that pods use can be snapshotted, unless nobody can write to it. A given snapshot replaces ours."""
    if observed.backup.spec.snapshot_id is not None:
        return None
    if observed.snapshot_class_missing:
        return Fail(Reason.SNAPSHOT_CLASS_NOT_FOUND, observed.snapshot_class_missing)
    is_read_only = observed.claim is not None and observed.claim.is_read_only
    if observed.snapshot_class is None and observed.pods_using and not is_read_only:
        driver = observed.volume.driver if observed.volume else ""
        cause = (
            f"Cannot take a snapshot of the volume in use: no VolumeSnapshotClass for driver {driver or '(not CSI)'}."
        )
        remedy = "Create a VolumeSnapshotClass, or stop the pods that use the volume."
        return Fail(Reason.SNAPSHOT_CLASS_NOT_FOUND, f"{cause} {remedy}")
    return None


def snapshot_can_be_mounted(observed: ObservedBackup) -> Verdict:
    """A StorageClass can create a volume from the snapshot, which the mover reads."""
    if observed.snapshot_class is None and observed.given_snapshot is None:
        return None
    if observed.claim is None or observed.volume is None or storage_class_for_snapshot(observed) is not None:
        return None
    cause = f"Cannot create a volume from a snapshot of volume {observed.claim.name}: no StorageClass of driver"
    return Fail(Reason.STORAGE_CLASS_NOT_FOUND, f"{cause} {observed.volume.driver}. Create a StorageClass.")


def late_classes(observed: ObservedBackup) -> frozenset[str]:
    """Return the names of the StorageClasses that bind a claim only when a pod needs it."""
    return frozenset(found.name for found in observed.classes if found.binds_late)


def storage_class_for_snapshot(observed: ObservedBackup) -> str | None:
    """Return the StorageClass that creates volumes from snapshots: the volume's own, otherwise one of its driver.

    A volume need not have a class, and the class of an old volume may have been deleted.
    """
    own = observed.claim.spec.storage_class_name if observed.claim is not None else None
    if own and any(found.name == own for found in observed.classes):
        return own
    driver = observed.volume.driver if observed.volume is not None else ""
    fitting = [found for found in observed.classes if driver and found.provisioner == driver]
    return min(fitting, key=lambda found: (not found.is_default, found.name)).name if fitting else None
