"""The actions that a decision can contain. Each is idempotent: executing it again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cinderblock.api.v1alpha1.backup import DeletedAlarm, GrantedRestore, VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrantStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSourceStatus
from cinderblock.api.v1alpha1.store import BackupStoreStatus
from cinderblock.api.v1alpha1.verification import BackupVerificationStatus, VerificationSummary
from cinderblock.reasons import AnyReason

ChildKind = Literal["Job", "PersistentVolumeClaim", "VolumeRestore", "VolumeSnapshot"]


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Add our finalizer to the object itself, before anything is created that needs cleanup."""

    finalizer: str


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Remove our finalizer from the object itself: nothing is left to clean up.

    Attributes:
        finalizer: its name.
        annotations: annotations to write in the same request.
    """

    finalizer: str
    annotations: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class CreateChild:
    """Create a child object. An object of the same name that the owner already owns is that child."""

    kind: ChildKind
    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class StartMover:
    """Start the suspended Job with this name and UID."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Delete the child with this name and UID; of a Job, remove our finalizer first."""

    kind: ChildKind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PatchVolume:
    """Merge-patch a PersistentVolume, provided that its resourceVersion has not changed."""

    name: str
    patch: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class CheckClaim:
    """Ask the API server whether it would accept the claim of a `CreateClaim`, before anything is copied for it."""

    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Create the PersistentVolumeClaim that a restore requests; it is a child of the restore until it is released."""

    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class PatchClaim:
    """Merge-patch a claim that was created for a restore, provided that its resourceVersion has not changed.

    Attributes:
        name: its name.
        patch: the patch; it contains the resourceVersion.
    """

    name: str
    patch: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class DeleteStoredData:
    """Remove the manifest of a backup, then its packs, unless another manifest lists them.

    Attributes:
        container: the bucket.
        volume_id, backup_id: the ids that the manifest must contain; other ids stop the deletion.
        waits_for_lock: whether to wait for the end of a lock even if a deletion would only hide the data.
    """

    container: str
    volume_id: str
    backup_id: str
    waits_for_lock: bool = False


@dataclass(frozen=True, slots=True)
class RemoveExpiredData:
    """Remove the manifests of expired backups, and those of their packs that no other manifest lists.

    Attributes:
        container: the bucket.
        volume_id: their volume.
        backup_ids: their ids; the first is that of the object itself.
        waits_for_locks: whether to wait for the end of locks even if a deletion would only hide the data.
    """

    container: str
    volume_id: str
    backup_ids: tuple[str, ...]
    waits_for_locks: bool = False


@dataclass(frozen=True, slots=True)
class RecordVerification:
    """Write status.verification of a VolumeBackup, provided that the object has not changed since it was read.

    Attributes:
        name, resource_version: of the VolumeBackup.
        summary: what is known about it now.
    """

    name: str
    resource_version: str
    summary: VerificationSummary


@dataclass(frozen=True, slots=True)
class KeepAlarms:
    """Write status.deletedAlarms of a VolumeBackup, provided that the object has not changed since it was read.

    Attributes:
        name, resource_version: of the VolumeBackup.
        alarms: all alarms of deleted backups that it keeps from now on.
    """

    name: str
    resource_version: str
    alarms: tuple[DeletedAlarm, ...] = field(hash=False)


@dataclass(frozen=True, slots=True)
class RecordGrantedRestores:
    """Write status.grantedRestores of a VolumeBackup, provided that the object has not changed since it was read.

    Attributes:
        namespace, name, uid, resource_version: of the VolumeBackup.
        restores: all restores in other namespaces that read it from now on.
        note: what an Event tells the owner of the backup; empty: there is no Event.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    restores: tuple[GrantedRestore, ...] = field(hash=False)
    note: str = ""


@dataclass(frozen=True, slots=True)
class RecordRelease:
    """Have the BackupStore take note that a backup was released, so that no import brings its VolumeBackup back.

    Attributes:
        store: name of the BackupStore.
        backup_id: id by which an import would know the backup.
    """

    store: str
    backup_id: str


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Record an Event on the object."""

    type: Literal["Normal", "Warning"]
    reason: AnyReason
    note: str


Action = (
    AddFinalizer
    | RemoveFinalizer
    | CreateChild
    | StartMover
    | DeleteChild
    | PatchVolume
    | CheckClaim
    | CreateClaim
    | PatchClaim
    | DeleteStoredData
    | RemoveExpiredData
    | RecordVerification
    | KeepAlarms
    | RecordGrantedRestores
    | RecordRelease
    | RecordEvent
)

MIN_REQUEUE_SECONDS = 5.0
"""The shortest delay between two reconciliations of an object that waits."""

AnyStatus = (
    VolumeBackupStatus
    | VolumeRestoreStatus
    | BackupVerificationStatus
    | BackupStoreStatus
    | BackupGrantStatus
    | RestoreSourceStatus
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of ``decide``.

    Attributes:
        status: the status to write if it differs from that of the object; None: write none.
        actions: the actions to execute in this order, before the status is written.
        requeue_after: seconds until the next reconciliation if no event triggers one earlier: 0 if the actions let the
            operation continue at once, otherwise at least MIN_REQUEUE_SECONDS; None: at the slow resync.
    """

    status: AnyStatus | None
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a delay that polls too fast: watches report what happens in between."""
        if self.requeue_after is not None and 0 < self.requeue_after < MIN_REQUEUE_SECONDS:
            raise ValueError(f"requeue_after is too short: {self.requeue_after} s")
