"""Times of backups, and the order that they define, for schedules and retention alike."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.utc import utc
from cinderblock.lifecycle.backup_record import BackupRecord


def data_time(record: BackupRecord) -> datetime:
    """Return the time of the data, which is never before the creation of the VolumeBackup.

    The API server's clock tells the time of creation. So a CSI driver that reports 1970, or a storage clock that was
    set back, makes no new backup old. Before the time of the data is known, the time of creation counts.
    """
    created = utc(record.created)
    return max(utc(record.data_time), created) if record.data_time is not None else created


def order(record: BackupRecord) -> tuple[datetime, datetime, str]:
    """Return the sort key of a backup, from old to new. Backups with equal times have an order as well."""
    return data_time(record), utc(record.created), record.uid
