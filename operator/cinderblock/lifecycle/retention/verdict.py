"""The result of retention: what happens to each backup, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cinderblock.api.v1alpha1.retention import RetentionStatus
from cinderblock.lifecycle.backup_record import BackupRecord


class Judgement(StrEnum):
    """The first answer in the order of judgement. It decides alone whether a backup is kept."""

    IMPORTED = "Imported"
    RETAINED = "Retain"
    DELETING = "Deleting"
    LOCKED = "Locked"
    """It is being deleted, and waits for a lock in the store."""
    READ_ONLY = "ReadOnly"
    """Nothing may delete its data: the access to its store is ReadOnly."""
    UNFINISHED = "Unfinished"
    FORGOTTEN = "Forgotten"
    CLOCK_BEHIND = "ClockBehind"
    HELD = "Held"
    OBJECT_LOCK = "ObjectLock"
    """The store refuses to delete its data before status.lockedUntil."""
    IN_USE = "InUse"
    LAST_WHOLE = "LastWhole"
    LAST_INTACT = "LastIntact"
    LAST_UNALARMED = "LastUnalarmed"
    OPEN_ALARM = "OpenAlarm"
    LAST_VERIFIED = "LastVerified"
    FUTURE = "Future"
    RETRYING = "Retrying"
    MIN_AGE = "MinAge"
    FROZEN = "Frozen"
    RULES = "Rules"
    NO_RULES = "NoRules"
    FAILED_LAST = "FailedLast"
    GONE = "Gone"
    MAX_AGE = "MaxAge"
    FAILED = "Failed"
    EXPIRED = "Expired"

    @property
    def keeps(self) -> bool:
        """Whether the backup is kept."""
        return self not in _EXPIRING


GOING = frozenset({Judgement.DELETING, Judgement.LOCKED})
"""Judgements of backups whose VolumeBackup is being deleted."""
_EXPIRING = frozenset({Judgement.GONE, Judgement.MAX_AGE, Judgement.FAILED, Judgement.EXPIRED})


class Step(StrEnum):
    """The present step of a backup."""

    KEEP = "Keep"
    """It stays, and has no status.expiresAt."""
    UNMARK = "Unmark"
    """It stays, and loses its status.expiresAt."""
    MARK = "Mark"
    """It gets a new status.expiresAt."""
    EXPIRING = "Expiring"
    """It stays until its status.expiresAt."""
    REMOVE = "Remove"
    """It is removed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one backup.

    Attributes:
        backup: the backup.
        step: what happens now.
        judgement: why.
        rules: the keep rules that it fulfills, such as ``daily 3``. Guards and maximum ages stand above them.
        expires_at: the status.expiresAt that it has after the step; None: it has none.
        is_braked: whether its removal waits because of maxPerDay.
        witness: another complete backup of its group, which must still exist when this one is removed; None: none is
            needed, because the backup failed or its volume is gone.
    """

    backup: BackupRecord
    step: Step
    judgement: Judgement
    rules: tuple[str, ...] = ()
    expires_at: datetime | None = None
    is_braked: bool = False
    witness: BackupRecord | None = None


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """The plan for the backups of one schedule.

    Attributes:
        verdicts: one for each backup, by namespace and volume, from new to old.
        status: status.retention of the schedule. Write it even if an action fails.
        requeue_after: seconds until the plan must be made again.
    """

    verdicts: tuple[Verdict, ...]
    status: RetentionStatus
    requeue_after: float
