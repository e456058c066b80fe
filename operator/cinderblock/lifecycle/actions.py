"""What a decision may ask for. Each action is idempotent: performing it again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreStatus
from cinderblock.api.v1alpha1.store import BackupStoreStatus

ChildKind = Literal["Job", "PersistentVolumeClaim", "VolumeSnapshot"]


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put our finalizer on the object itself, before anything is made that would have to be cleaned up."""

    finalizer: str


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take our finalizer off the object itself: nothing is left to clean up.

    Attributes:
        finalizer: its name.
        annotations: written in the same request.
    """

    finalizer: str
    annotations: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class CreateChild:
    """Create a child; one of that name which is already owned by us is the same one."""

    kind: ChildKind
    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class StartMover:
    """Let exactly the Job that was seen (by UID) run: it was created suspended."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Delete exactly the child that was seen (by UID); of a Job, let go of our finalizer first."""

    kind: ChildKind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PatchVolume:
    """Merge-patch a PersistentVolume, provided that it is still as it was seen (by resourceVersion)."""

    name: str
    patch: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Create the claim that a restore was asked for; it is the restore's child until it is handed over."""

    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class PatchClaim:
    """Merge-patch a claim that was created for a restore, provided that it is still as it was seen.

    Attributes:
        name: its name.
        patch: names the resourceVersion.
    """

    name: str
    patch: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class DeleteStoredData:
    """Remove a backup's manifest, then its packs, unless another manifest lists them.

    Attributes:
        container: the bucket.
        volume_id, backup_id: the ids that the manifest must name; other ids stop the deletion.
    """

    container: str
    volume_id: str
    backup_id: str


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Record an Event on the object."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


Action = (
    AddFinalizer
    | RemoveFinalizer
    | CreateChild
    | StartMover
    | DeleteChild
    | PatchVolume
    | CreateClaim
    | PatchClaim
    | DeleteStoredData
    | RecordEvent
)

MIN_REQUEUE_SECONDS = 5.0
"""Seconds that pass at least between two looks at something that is awaited."""

AnyStatus = VolumeBackupStatus | VolumeRestoreStatus | BackupStoreStatus


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        status: to be written if it differs from what the object says; None: leave it.
        actions: to be performed in this order, before the status is written.
        look_again: seconds until the object is reconciled again even if nothing is heard: 0 after something was done
            that lets it go on at once, else at least SHORTEST_LOOK; None: only the slow resync.
    """

    status: AnyStatus | None
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a poll that is too fast: what happens in between is heard through watches."""
        if self.requeue_after is not None and 0 < self.requeue_after < MIN_REQUEUE_SECONDS:
            raise ValueError(f"nothing is polled every {self.requeue_after} s")
