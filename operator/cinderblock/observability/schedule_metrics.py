"""Metrics of schedules, from their statuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cinderblock.api.conditions import ConditionType
from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.schedule import AnySchedule, ClusterBackupScheduleSpec
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.schedule import cron

LABELS = ("schedule_namespace", "schedule")


@dataclass(frozen=True, slots=True)
class ScheduleMetrics:
    """A schedule that is not suspended. Times are in seconds since 1970, and durations in seconds.

    Attributes:
        namespace, name: its identity; the namespace of a ClusterBackupSchedule is empty.
        is_ready: whether it can work.
        selects: whether it selects volumes, or waits for owners to opt in.
        interval: the shortest time between two of its times; None: they are invalid.
        deadline: delay after which a time counts as missed.
        effective_since: the time from which its runs are due; None: not known yet.
        last_completed: when a run last ended with a backup of every volume; None: never.
        next_time: its next scheduled time; None: not known.
        failing_volumes: number of volumes without a backup of the last run.
        frozen: number of backups that are kept only because a newer one is suspicious.
        ready_since, selecting_since: when is_ready and selects last changed; None: not known yet.
        creates_verifications: whether it can create its verifications; None: it has none.
    """

    namespace: str
    name: str
    is_ready: bool
    selects: bool
    interval: float | None
    deadline: float
    effective_since: float | None
    last_completed: float | None
    next_time: float | None
    failing_volumes: int
    frozen: int
    ready_since: float | None = None
    selecting_since: float | None = None
    creates_verifications: bool | None = None


def metrics_of(schedule: AnySchedule) -> ScheduleMetrics | None:
    """Return the metrics of a schedule; None if it is suspended or being deleted."""
    spec, status = schedule.spec, schedule.status
    if spec.suspend or schedule.metadata.is_being_deleted:
        return None
    conditions = {c.type: c.status for c in status.conditions}
    changes = {c.type: c.last_transition_time.timestamp() for c in status.conditions}
    interval = _interval(schedule)
    deadline = parse_long_duration(spec.starting_deadline).total_seconds() if spec.starting_deadline else interval
    times = (status.effective_since, status.last_completed_time, status.next_schedule_time)
    effective_since, last_completed, next_time = (time.timestamp() if time is not None else None for time in times)
    return ScheduleMetrics(
        namespace=schedule.namespace,
        name=schedule.name,
        is_ready=conditions.get(ConditionType.READY) == "True",
        selects=conditions.get(ConditionType.SELECTING) != "False" or _is_left_to_owners(schedule),
        interval=interval,
        deadline=deadline or 0.0,
        effective_since=effective_since,
        last_completed=last_completed,
        next_time=next_time,
        failing_volumes=status.failing_volumes or 0,
        frozen=status.retention.frozen if status.retention is not None else 0,
        ready_since=changes.get(ConditionType.READY),
        selecting_since=changes.get(ConditionType.SELECTING),
        creates_verifications=(
            conditions.get(ConditionType.VERIFICATIONS_CREATED) != "False" if spec.verification is not None else None
        ),
    )


def _is_left_to_owners(schedule: AnySchedule) -> bool:
    """Return whether the schedule may select nothing, because owners decide about their volumes."""
    return isinstance(schedule.spec, ClusterBackupScheduleSpec) and schedule.spec.opt_in


def _interval(schedule: AnySchedule) -> float | None:
    try:
        return cron.parse(schedule.spec.schedule, schedule.spec.time_zone).interval().total_seconds()
    except InvalidInput:
        return None


def families(schedules: Sequence[ScheduleMetrics]) -> Iterator[Metric]:
    """Yield the metrics of schedules."""

    def family(name: str, text: str, values: Iterator[float | None]) -> Metric:
        gauge = GaugeMetricFamily(name, text, labels=LABELS)
        for schedule, value in zip(schedules, values, strict=True):
            if value is not None:
                gauge.add_metric([schedule.namespace, schedule.name], value)
        return gauge

    yield family(
        "cinderblock_schedule_ready",
        "1 if the schedule can work, otherwise 0.",
        (float(each.is_ready) for each in schedules),
    )
    yield family(
        "cinderblock_schedule_selecting",
        "1 if the schedule selects volumes or waits for owners to opt in, otherwise 0.",
        (float(each.selects) for each in schedules),
    )
    yield family(
        "cinderblock_schedule_expected_interval_seconds",
        "Shortest time between two times of the schedule.",
        (each.interval for each in schedules),
    )
    yield family(
        "cinderblock_schedule_starting_deadline_seconds",
        "Delay after which a time of the schedule counts as missed.",
        (each.deadline for each in schedules),
    )
    yield family(
        "cinderblock_schedule_effective_since_timestamp_seconds",
        "Time from which runs of the schedule are due.",
        (each.effective_since for each in schedules),
    )
    yield family(
        "cinderblock_schedule_last_completed_timestamp_seconds",
        "Time when a run last ended with a backup of every volume.",
        (each.last_completed for each in schedules),
    )
    yield family(
        "cinderblock_schedule_next_timestamp_seconds",
        "Next time of the schedule.",
        (each.next_time for each in schedules),
    )
    yield family(
        "cinderblock_schedule_failing_volumes",
        "Volumes whose last backup of the schedule failed, or could not be created.",
        (float(each.failing_volumes) for each in schedules),
    )
    yield family(
        "cinderblock_schedule_frozen_backups",
        "Backups that retention keeps only because a newer backup is suspicious.",
        (float(each.frozen) for each in schedules),
    )
    yield family(
        "cinderblock_schedule_creating_verifications",
        "1 if the schedule can create its verifications, otherwise 0; absent if it has none.",
        (float(value) if (value := each.creates_verifications) is not None else None for each in schedules),
    )
