"""Times of the backups of volumes, for metrics and alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreStatus
from cinderblock.api.v1alpha1.verification import (
    BackupVerification,
    BackupVerificationStatus,
    VerificationLevel,
    VerificationPhase,
    VerificationSummary,
)


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """An existing PersistentVolumeClaim."""

    uid: str
    namespace: str
    name: str


class Places(NamedTuple):
    """The stores that hold the newest complete backup of a volume.

    Attributes:
        data_time: time of its data, in seconds since 1970.
        stores: its store, and those with a verified copy.
        servers: how many different S3 servers these are.
        locks: for each of these stores that locks it: the end of the lock, in seconds since 1970.
    """

    data_time: float
    stores: int
    servers: int
    locks: tuple[float, ...] = ()

    def locked(self, now: float) -> int:
        """Return how many of these stores refuse to delete the backup at a time, in seconds since 1970."""
        return sum(end > now for end in self.locks)


@dataclass(slots=True)
class VolumeMetrics:
    """Times of a volume's backups, in seconds since 1970.

    Attributes:
        namespace, name: of the PersistentVolumeClaim.
        first_request: creation of its oldest existing VolumeBackup.
        last_success: time of the data in the newest complete backup.
        last_incomplete: time of the data in the newest backup that lacks unreadable files.
        last_failure: time of the last failure of its existing VolumeBackups.
        last_verified: time of the last verification of one of its backups that is known to be sound.
        last_levels: time of the last verification of each level that one of its backups passed. Drills also count whose
            backup has expired since, as long as their BackupVerification exists.
        protected_since: since when a schedule selects it, or the creation of its oldest existing VolumeBackup if that
            is earlier. Retention does not change it.
        drills_since: since when a schedule has drills for it; None: none has.
        failed_backup, fail_reason: name of the VolumeBackup that failed last, and its cause.
        newest: where the newest complete backup is.
    """

    namespace: str
    name: str
    first_request: float | None = None
    last_success: float | None = None
    last_incomplete: float | None = None
    last_failure: float | None = None
    last_verified: float | None = None
    failed_backup: str = ""
    fail_reason: str = ""
    last_levels: dict[VerificationLevel, float] = field(default_factory=dict)
    protected_since: float | None = None
    drills_since: float | None = None
    newest: Places | None = None

    @property
    def has_failed(self) -> bool:
        """Return whether its last backup failed: none holds data of a later instant."""
        return self.last_failure is not None and self.last_failure > (self.last_success or 0.0)

    @property
    def is_incomplete(self) -> bool:
        """Return whether its last backup lacks files: none that has all holds data of a later instant."""
        return self.last_incomplete is not None and self.last_incomplete > (self.last_success or 0.0)


def add_backup(volume: VolumeMetrics, backup: VolumeBackup, phase: BackupPhase | None) -> None:
    """Add the times of a backup to those of its volume.

    Args:
        volume: the volume.
        backup: the backup.
        phase: the phase of its own status.
    """
    created, status = backup.metadata.creation_timestamp, backup.status
    if created is not None:
        volume.first_request = min(created.timestamp(), volume.first_request or float("inf"))
    data_time = status.data_timestamp or created
    if backup.is_complete and not backup.metadata.is_being_deleted:
        if data_time is not None and status.unreadable_files:
            volume.last_incomplete = max(data_time.timestamp(), volume.last_incomplete or 0.0)
        elif data_time is not None:
            volume.last_success = max(data_time.timestamp(), volume.last_success or 0.0)
        if backup.verified_at is not None:
            volume.last_verified = max(backup.verified_at.timestamp(), volume.last_verified or 0.0)
        _add_levels(volume, backup.own_verification)
    ended = failure_time(status)
    if phase is BackupPhase.ERROR and ended is not None:
        failed = ended.timestamp()
        if failed >= (volume.last_failure or 0.0):
            volume.last_failure, volume.failed_backup = failed, backup.name
            volume.fail_reason = status.fail_reason or ""


def add_places(volume: VolumeMetrics, backup: VolumeBackup, server_of: Callable[[str], str]) -> None:
    """Note where a backup is, if it is the newest complete one so far.

    Args:
        volume: the volume.
        backup: the backup.
        server_of: returns the S3 server of a BackupStore by its name.
    """
    time = backup.status.data_timestamp or backup.metadata.creation_timestamp
    if time is None or not backup.is_complete or backup.metadata.is_being_deleted or backup.status.unreadable_files:
        return
    copies = [copy for copy in backup.own_copies if copy.time is not None and copy.failed_at is None]
    names = {backup.status.store_name or "", *(copy.store_name for copy in copies)}
    ends = [backup.status.locked_until, *(copy.locked_until for copy in copies)]
    locks = tuple(end.timestamp() for end in ends if end is not None)
    found = Places(time.timestamp(), len(names), len({server_of(name) for name in names}), locks)
    volume.newest = max(found, volume.newest or found)


def add_drill(volume: VolumeMetrics, verification: BackupVerification) -> None:
    """Add the time of a drill that has passed.

    The VolumeBackup that it restored may expire before the next drill. Without the drill itself, nothing would show
    that drills have stopped.
    """
    at = verification.status.completed_at
    is_drill = verification.spec.level is VerificationLevel.RESTORE
    if is_drill and verification.own_phase is VerificationPhase.VERIFIED and at is not None:
        _add_level(volume, VerificationLevel.RESTORE, at)


def failure_time(status: VolumeBackupStatus | VolumeRestoreStatus | BackupVerificationStatus) -> datetime | None:
    """Return when an operation with phase error failed. A later change of its spec updates the status, too."""
    return status.completed_at or status.updated_at


def _add_levels(volume: VolumeMetrics, found: VerificationSummary | None) -> None:
    for level, at in found.level_times().items() if found is not None else ():
        _add_level(volume, level, at)


def _add_level(volume: VolumeMetrics, level: VerificationLevel, at: datetime) -> None:
    volume.last_levels[level] = max(at.timestamp(), volume.last_levels.get(level, 0.0))


def merged(
    claim: ClaimRef, found: Sequence[VolumeMetrics], selected_since: datetime | None, drills_since: datetime | None
) -> VolumeMetrics:
    """Return the times of a claim, whose backups may name it by UID or by name.

    Args:
        claim: the claim.
        found: the times of its backups, at least one.
        selected_since: since when a schedule selects it; None: none does.
        drills_since: since when a schedule has drills for it; None: none has.
    """

    def newest(instants: Iterable[float | None]) -> float | None:
        return max((instant for instant in instants if instant is not None), default=None)

    failed = max(found, key=lambda part: part.last_failure or 0.0)
    requests = [part.first_request for part in found if part.first_request is not None]
    begun = [*requests, *([selected_since.timestamp()] if selected_since is not None else [])]
    return VolumeMetrics(
        claim.namespace,
        claim.name,
        min(requests, default=None),
        newest(part.last_success for part in found),
        newest(part.last_incomplete for part in found),
        failed.last_failure,
        newest(part.last_verified for part in found),
        failed.failed_backup,
        failed.fail_reason,
        {
            level: max(part.last_levels[level] for part in found if level in part.last_levels)
            for level in VerificationLevel
            if any(level in part.last_levels for part in found)
        },
        min(begun, default=None),
        drills_since.timestamp() if drills_since is not None else None,
        max((part.newest for part in found if part.newest is not None), default=None),
    )
