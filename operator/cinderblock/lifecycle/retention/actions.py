"""The actions of retention. Each may be executed again: the second time it changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.verdict import RetentionPlan, Step


@dataclass(frozen=True, slots=True)
class BackupVersion:
    """A VolumeBackup as it was read. A write fails if it has changed since."""

    namespace: str
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class MarkExpiring:
    """Announce the removal of a backup: write its status.expiresAt."""

    backup: BackupVersion
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UnmarkExpiring:
    """Remove the status.expiresAt of a backup that is kept."""

    backup: BackupVersion


@dataclass(frozen=True, slots=True)
class RemoveExpired:
    """Delete a VolumeBackup whose grace has ended.

    Attributes:
        backup: the backup. A hold that was set after it was read changes its version, so that the deletion fails.
        witness: another complete backup of its group, which must still be there, without new faults; None: none is
            needed.
    """

    backup: BackupVersion
    witness: BackupVersion | None


RetentionAction = MarkExpiring | UnmarkExpiring | RemoveExpired


def actions_of(plan: RetentionPlan) -> tuple[RetentionAction, ...]:
    """Return the actions of a plan: first those that keep, then those that announce, then those that remove."""
    unmarked = [UnmarkExpiring(version_of(v.backup)) for v in plan.verdicts if v.step is Step.UNMARK]
    marked = [
        MarkExpiring(version_of(v.backup), v.expires_at)
        for v in plan.verdicts
        if v.step is Step.MARK and v.expires_at is not None
    ]
    removed = [
        RemoveExpired(version_of(v.backup), version_of(v.witness) if v.witness is not None else None)
        for v in plan.verdicts
        if v.step is Step.REMOVE
    ]
    return (*unmarked, *marked, *removed)


def unmark_all(backups: Iterable[BackupRecord]) -> tuple[UnmarkExpiring, ...]:
    """Return the removals of all marks: nothing will remove these backups any more."""
    return tuple(
        UnmarkExpiring(version_of(backup))
        for backup in backups
        if backup.expires_at is not None and not backup.is_being_deleted
    )


def version_of(record: BackupRecord) -> BackupVersion:
    """Return the identity and version of a backup."""
    return BackupVersion(record.namespace, record.name, record.uid, record.resource_version)
