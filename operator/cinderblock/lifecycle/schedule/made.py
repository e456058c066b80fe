"""Which backups a schedule has made, among those that carry its marks."""

from __future__ import annotations

from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import utc
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE
from cinderblock.lifecycle.schedule import names


def is_made_by(schedule: AnySchedule, record: BackupRecord) -> bool:
    """Return whether a backup with the marks of a schedule is one of its own, and not a copy.

    The names of its backups follow from volume and time, and none is made before its time. Until the volume of a backup
    is known, the marks count.
    """
    if record.scheduled_for is not None and utc(record.created) < record.scheduled_for - CLOCK_TOLERANCE:
        return False
    if not record.volume_name:
        return True
    return names.is_given_by(schedule, record.name, record.volume_name, record.scheduled_for)
