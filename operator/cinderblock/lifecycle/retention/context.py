"""The facts that retention needs besides the backups of the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from cinderblock.api.v1alpha1.retention import RetentionStatus
from cinderblock.lifecycle.backup_record import BackupRecord


@dataclass(frozen=True, slots=True)
class RetentionContext:
    """The facts that a plan depends on, besides the rules and the backups.

    Every default is the safe one: with it nothing is removed that would otherwise be kept. There are two exceptions. A
    restore that is not named here does not protect its backup, and an alarm that is not given here freezes nothing.

    Attributes:
        previous: status.retention of the schedule. None: retention is new, so every backup gets the whole grace.
        used_ids: ids of backups that a VolumeRestore reads, or that an unfinished backup has as its parent.
        volumes: namespace and UID of each claim that exists; None: not known, so no volume counts as gone.
        unfinished_runs: scheduled times of runs that still retry.
        others: backups of the same volumes that the schedule did not make. Only their alarms count. Each may
            also be given as one of the schedule.
        verified_at: time of the last successful verification, by the id of the backup.
        read_only: namespace and name of each BackupStore whose data nothing may delete.
    """

    previous: RetentionStatus | None = None
    used_ids: frozenset[str] = frozenset()
    volumes: frozenset[tuple[str, str]] | None = None
    unfinished_runs: frozenset[datetime] = frozenset()
    others: tuple[BackupRecord, ...] = field(default=(), hash=False)
    verified_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    read_only: frozenset[tuple[str, str]] = frozenset()
