"""Whether the next backup of a volume is a full one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import data_time
from cinderblock.lifecycle.schedule.names import place

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def usable_parent(records: Iterable[BackupRecord], claim_uid: str, store: str, container: str) -> BackupRecord | None:
    """Return the backup that the next incremental backup of a volume would be based on; None: there is none.

    The acceptance of the VolumeBackup chooses the parent by the same rules (`backup.checks.latest_parent`). It also
    knows backups that no schedule made. Both compare what CSI drivers report, even if a driver reports 1970: the parent
    that is chosen here must be the one that the acceptance chooses.

    Args:
        records: backups of the volume.
        claim_uid: UID of the claim.
        store: name of the BackupStore that the next backup uses.
        container: its bucket; empty: that of the store.
    """
    candidates = [
        record
        for record in records
        if record.is_complete
        and not record.is_imported
        and not record.is_being_deleted
        and not record.is_damaged
        and record.volume_id == claim_uid
        and record.store_name == store
        and container in ("", record.container)
        and record.data_time is not None
    ]
    return max(candidates, key=lambda record: (record.data_time or _EPOCH, record.uid), default=None)


def full_time(parent: BackupRecord, records: Iterable[BackupRecord]) -> datetime:
    """Return the time of the full backup that the lineage of a parent began with.

    Retention may have removed that backup. The schedule notes its time at each incremental backup. If that is lost, the
    oldest known backup of the volume takes its place.
    """
    if not parent.is_incremental:
        return data_time(parent)
    noted = parent.full_time
    if noted is None:
        return min(map(data_time, records), default=data_time(parent))
    # Anybody can write the note into a VolumeBackup. A full backup is not newer than those that build on it.
    return min(noted, data_time(parent))


def is_full_due(claim_uid: str, since: datetime, now: datetime, every: timedelta) -> bool:
    """Return whether the newest full backup of a volume is too old.

    Time is divided into periods of ``every``, which begin at another moment for each volume. A full backup is due in
    each period. So no full backup becomes older than ``every``, and not all volumes make theirs in one night.

    Args:
        claim_uid: UID of the claim.
        since: time of the newest full backup.
        now: the present.
        every: the greatest age; 0: each backup is full.
    """
    if every <= timedelta():
        return True
    shift = timedelta(seconds=place("full", claim_uid) % max(1, int(every.total_seconds())))
    return (now - _EPOCH - shift) // every > (since - _EPOCH - shift) // every
