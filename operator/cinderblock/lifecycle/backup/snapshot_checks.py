"""The rules about snapshots that a backup is made through: one that the user gave, or one of ours.

Messages are Cinder's where Cinder has words for the case (cinder/backup/api.py ``API.create``).
"""

from __future__ import annotations

from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Verdict, Wait

NOT_AVAILABLE = "SnapshotNotAvailable"
"""What a backup says of a VolumeSnapshot that it was given."""


def given_snapshot_fits(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Snapshot <id> could not be found.``, and a snapshot must be of the volume and be available.

    One that is still being made is waited for, as a claim is: it may have been applied together with its backup.
    """
    asked = observed.backup.spec.snapshot_id
    if asked is None or observed.claim is None:
        return None
    if observed.given_snapshot is None:
        return Fail("SnapshotNotFound", f"Snapshot {asked} could not be found.")
    source = observed.given_snapshot.spec.source.persistent_volume_claim_name
    if source is not None and source != observed.claim.name:
        return Fail(
            "SnapshotMismatch",
            f"Invalid volume: Volume {observed.claim.name} does not match with snapshot.volume_id {source}.",
        )
    if source is not None and _is_older(observed.given_snapshot, observed.claim):
        return Fail(
            "SnapshotMismatch",
            f"Invalid volume: Volume {observed.claim.name} does not match with snapshot.volume_id: the snapshot is"
            " older, of an earlier volume of that name.",
        )
    return _given_snapshot_is_ready(observed.given_snapshot, observed.policy.deadlines)


def _given_snapshot_is_ready(snapshot: VolumeSnapshot, deadlines: Deadlines) -> Verdict:
    if snapshot.status.ready_to_use:
        return None
    words = "Invalid snapshot: Snapshot to be backed up must be available, but the current status is"
    if snapshot.status.error is not None:
        return Fail(NOT_AVAILABLE, f'{words} "error".')
    return Wait(NOT_AVAILABLE, f'{words} "creating".', limit=deadlines.snapshot, requeue_after=5.0)


def _is_older(snapshot: VolumeSnapshot, claim: PersistentVolumeClaim) -> bool:
    """Whether a snapshot was there before its claim, by both clocks: the API server's and that of the driver.

    A VolumeSnapshot may be applied before its claim, and an array's clock may be wrong; neither makes it another's.
    """
    asked, taken, made = (
        snapshot.metadata.creation_timestamp,
        snapshot.status.creation_time,
        claim.metadata.creation_timestamp,
    )
    return bool(asked and taken and made and asked < made and taken < made)


def snapshot_can_be_made(observed: ObservedBackup) -> Verdict:
    """A volume that pods use can only be copied through a snapshot. Where one is given, none is made."""
    if observed.backup.spec.snapshot_id is not None:
        return None
    if observed.snapshot_class_missing:
        return Fail("SnapshotClassNotFound", observed.snapshot_class_missing)
    if observed.snapshot_class is None and observed.pods_using:
        driver = observed.volume.driver if observed.volume else ""
        return Fail(
            "SnapshotClassNotFound",
            f"No VolumeSnapshotClass for driver {driver or '(not CSI)'}: an in-use volume needs a snapshot"
            " to be backed up. Create a class, or stop the pods that use the volume.",
        )
    return None


def snapshot_can_be_mounted(observed: ObservedBackup) -> Verdict:
    """A snapshot is read as a volume that is made from it: a class of its driver must be there to make one."""
    if observed.snapshot_class is None and observed.given_snapshot is None:
        return None
    if observed.claim is None or observed.volume is None or storage_class_for_snapshot(observed) is not None:
        return None
    return Fail(
        "StorageClassNotFound",
        f"No StorageClass of driver {observed.volume.driver}: create one. Else no volume can be made from a"
        f" snapshot of volume {observed.claim.name}.",
    )


def storage_class_for_snapshot(observed: ObservedBackup) -> str | None:
    """The class that makes volumes from snapshots: the volume's own, else one of its driver.

    A volume that was not made by a class has none, and that of an old one may have been deleted since.
    """
    own = observed.claim.spec.storage_class_name if observed.claim is not None else None
    if own and any(found.name == own for found in observed.classes):
        return own
    driver = observed.volume.driver if observed.volume is not None else ""
    fitting = [found for found in observed.classes if driver and found.provisioner == driver]
    return min(fitting, key=lambda found: (not found.is_default, found.name)).name if fitting else None
