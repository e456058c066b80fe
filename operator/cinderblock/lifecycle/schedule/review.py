"""The failing volumes and the empty selection of a schedule between its runs: their causes may end before the next one.

A weekly schedule would otherwise report for days that a volume has no new backup, although somebody has made one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupScheduleStatus, FailingVolume
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule import failing
from cinderblock.lifecycle.schedule.conclude import Conclusion, with_selecting
from cinderblock.lifecycle.schedule.settings import Settings

REVIEW: Final = timedelta(minutes=5)
"""Time between two reviews. Each costs two requests for each failing volume that the status names: at most 40."""
OBJECTS_PER_SECOND: Final = 40.0
"""Claims and backups that the search for other failing volumes reads in a second, on average. With up to 12,000, it is
part of each review, and costs about 24 pages."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a review.

    Attributes:
        settled: failing volumes, by namespace and name, that have a newer good backup, or are not selected any more.
        lacking: number of selected volumes that have none, and that the status does not name; None: not counted.
        selected: number of volumes that the schedule selects; None: not counted.
        seconds: seconds until the next review.
    """

    settled: frozenset[failing.VolumeName] = frozenset()
    lacking: int | None = None
    selected: int | None = None
    seconds: float = REVIEW.total_seconds()


NOTHING: Final = Findings()
"""The findings during a run, which judges the volumes itself."""


def failing_volumes(status: BackupScheduleStatus) -> list[FailingVolume]:
    """Return the failing volumes that a review reads."""
    return [volume for volume in status.failing if volume.volume]


def has_unnamed(status: BackupScheduleStatus) -> bool:
    """Return whether more volumes are failing than the status names."""
    return (status.failing_volumes or 0) > len(status.failing)


def search_interval(count: int) -> timedelta:
    """Return the time between two searches for failing volumes without a name that read so many objects."""
    return max(REVIEW, timedelta(seconds=count / OBJECTS_PER_SECOND))


def selects_nothing(status: BackupScheduleStatus, settings: Settings) -> bool:
    """Return whether a schedule shows that it selects nothing, and should select something."""
    is_empty = any(c.type == ConditionType.SELECTING and c.status == "False" for c in status.conditions)
    return is_empty and not settings.selection.opt_in


def is_needed(schedule: AnySchedule, status: BackupScheduleStatus, settings: Settings) -> bool:
    """Return whether a status shows something that can end before the next run. A suspended schedule has no alerts."""
    is_failing = bool(failing_volumes(status)) or has_unnamed(status)
    return not schedule.spec.suspend and (is_failing or selects_nothing(status, settings))


def is_newer(record: BackupRecord, run: datetime) -> bool:
    """Return whether a backup is complete, and its data is not older than the time of the last run."""
    is_good = record.is_complete and not record.is_being_deleted and not record.is_imported
    return is_good and (record.data_time or record.created) >= run


def with_review(
    conclusion: Conclusion, schedule: AnySchedule, settings: Settings, findings: Findings, now: datetime
) -> Conclusion:
    """Return the conclusion about a schedule with what a review has found, and with the time of the next one.

    Args:
        conclusion: the conclusion without it.
        schedule: the schedule.
        settings: its parsed spec.
        findings: what was found.
        now: the present.
    """
    status = conclusion.status
    if findings.settled:
        named, number = failing.without(status.failing, status.failing_volumes or 0, findings.settled)
        status = status.model_copy(update={"failing": named, "failing_volumes": number})
    if findings.lacking is not None:
        number = min(status.failing_volumes or 0, len(status.failing) + findings.lacking)
        status = status.model_copy(update={"failing_volumes": number})
    if findings.selected:
        shown = with_selecting(status.conditions, schedule, settings, findings.selected, now)
        status = status.model_copy(update={"conditions": shown})
    conclusion = replace(conclusion, status=status)
    if not is_needed(schedule, status, settings):
        return conclusion
    after = conclusion.requeue_after
    return replace(conclusion, requeue_after=findings.seconds if after is None else min(after, findings.seconds))
