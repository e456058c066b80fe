"""Retention: how long the backups of a schedule are kept (restic: forget)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from cinderblock.api.duration import LongDuration
from cinderblock.api.meta import Model

Count = Annotated[int, Field(ge=0, le=100_000)]


class FailedRetention(Model):
    """Retention of VolumeBackups in the phase error."""

    last: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of failed VolumeBackups of each volume that are kept. Defaults to 2."""


class GoneRetention(Model):
    """Retention of the backups of volumes that no longer exist."""

    after: LongDuration | None = None
    """Age of the last backup of such a volume above which all its backups are removed, for example 90d. Defaults to
    never."""


class Retention(Model):
    """Rules by which old backups are removed. A backup is kept if any rule keeps it.

    The rules are those of restic. Each goes through the backups of one volume from the newest to the oldest. It keeps
    the newest backup of each hour, day, week, month or year that has one. At least one keep rule is required. No backup
    is removed while it is held, in use, or the last complete one of a volume that exists.
    """

    time_zone: Annotated[str, Field(max_length=64)] = ""
    """Time zone in which days begin, for example Europe/Berlin. Defaults to the time zone of the schedule."""
    keep_last: Count = 0
    """Number of newest complete backups to keep. Defaults to 0."""
    keep_hourly: Count = 0
    """Number of hours for which the newest backup is kept. Defaults to 0."""
    keep_daily: Count = 0
    """Number of days for which the newest backup is kept. Defaults to 0."""
    keep_weekly: Count = 0
    """Number of ISO weeks for which the newest backup is kept. Defaults to 0."""
    keep_monthly: Count = 0
    """Number of months for which the newest backup is kept. Defaults to 0."""
    keep_yearly: Count = 0
    """Number of years for which the newest backup is kept. Defaults to 0."""
    keep_within: LongDuration | None = None
    """Time before the newest complete backup of the volume within which all backups are kept. Defaults to no such
    time."""
    min_age: LongDuration = "24h"
    """Age below which no backup is removed. Defaults to 24h."""
    max_age: LongDuration | None = None
    """Age above which a backup is removed even if a rule keeps it. Defaults to no such age."""
    failed: FailedRetention = FailedRetention()
    """Retention of VolumeBackups in the phase error."""
    gone: GoneRetention = GoneRetention()
    """Retention of the backups of volumes that no longer exist."""
    grace: LongDuration = "24h"
    """Time between the announcement of a removal and the removal. During this time, status.expiresAt of the
    VolumeBackup is set, and you can keep the backup with spec.hold. Defaults to 24h."""
    max_per_day: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Greatest number of backups of each volume that are removed in 24 hours; 0 means no limit. Defaults to 10, or to
    twice the number of backups that were made in the last 24 hours if that is more."""


class RetentionStatus(Model):
    """Numbers of backups that retention keeps and removes."""

    kept: Annotated[int, Field(ge=0)] = 0
    """Number of backups that are kept."""
    expiring: Annotated[int, Field(ge=0)] = 0
    """Number of backups with status.expiresAt."""
    frozen: Annotated[int, Field(ge=0)] = 0
    """Number of backups that are kept only because a newer backup is suspicious."""
    braked: Annotated[int, Field(ge=0)] = 0
    """Number of backups whose removal waits because of maxPerDay."""
    left_out: Annotated[int, Field(ge=0)] = 0
    """Number of backups that the rules would let expire, and that the last pass left alone. Their namespace cannot be
    read, refuses the writes or did not answer them, or comes in the next pass."""
    last_removal_time: datetime | None = None
    """Time at which a backup was last removed."""
    rules: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the rules that are applied."""
    effective_since: datetime | None = None
    """Time since which these rules are applied without a pause. No backup is removed before the grace has passed since
    then. So the grace begins again when the rules change, and after the operator was away for more than 3 hours."""
    last_applied_time: datetime | None = None
    """Time at which the rules were applied, updated once an hour."""
