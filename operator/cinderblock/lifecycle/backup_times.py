"""Times of backups, and the order that they define, for schedules and retention alike."""

from __future__ import annotations

from datetime import UTC, datetime

from cinderblock.lifecycle.backup_record import BackupRecord


def data_time(record: BackupRecord) -> datetime:
    """Return the time of the data, which is never before the creation of the VolumeBackup.

    The API server's clock tells the time of creation. So a CSI driver that reports 1970, or a storage clock that was
    set back, makes no new backup old. Before the time of the data is known, the time of creation counts.
    """
    created = utc(record.created)
    return max(utc(record.data_time), created) if record.data_time is not None else created


def utc(time: datetime) -> datetime:
    """Return a time in UTC. A time without a zone is one in UTC."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time if time.tzinfo is UTC else _converted(time)


def order(record: BackupRecord) -> tuple[datetime, datetime, str]:
    """Return the sort key of a backup, from old to new. Backups with equal times have an order as well."""
    return data_time(record), utc(record.created), record.uid


def _converted(time: datetime) -> datetime:
    """Convert a time to UTC, except one in the first or the last hours of the calendar."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)
