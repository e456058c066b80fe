"""Marks that no schedule stands behind: of deleted schedules, and of schedules without retention.

Nothing would ever remove these backups, so a status.expiresAt would announce what does not happen. A schedule has no
finalizer that could remove the marks before it goes, so they are looked for at each resync.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.actions import UnmarkExpiring, version_of

CLUSTER_SCHEDULE_PREFIX = "ClusterBackupSchedule/"

ScheduleKey = tuple[str, str]
"""Namespace of a schedule, and its kind and name, as in ``("shop", "BackupSchedule/daily")``."""


def schedule_key(record: BackupRecord) -> ScheduleKey:
    """Return which schedule made a backup. The namespace of a ClusterBackupSchedule is empty."""
    is_of_cluster = record.schedule.startswith(CLUSTER_SCHEDULE_PREFIX)
    return "" if is_of_cluster else record.namespace, record.schedule


def orphaned_marks(backups: Iterable[BackupRecord], schedules: Collection[ScheduleKey]) -> tuple[UnmarkExpiring, ...]:
    """Return the removals of the marks that no schedule stands behind.

    Args:
        backups: VolumeBackups of any schedules.
        schedules: the schedules that exist and have retention. The caller must have read them after the backups, or
            the mark of a schedule that was created in between is removed. It is then only set again.
    """
    return tuple(
        UnmarkExpiring(version_of(record))
        for record in backups
        if record.expires_at is not None and not record.is_being_deleted and schedule_key(record) not in schedules
    )
