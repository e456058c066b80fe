"""Metrics of schedules, from their statuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cinderblock.api.conditions import ConditionType
from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.schedule import AnySchedule, ClusterBackupScheduleSpec
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.schedule import cron as cron_times
from cinderblock.lifecycle.schedule.cron import Cron

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
        verifications_since: when creates_verifications last changed; None: not known yet.
        complete_due: until when a run must have been complete, or the schedule is late; None: not known.
        frozen_since: when the oldest alarm was raised that freezes backups; None: none is frozen, or that is not known.
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
    verifications_since: float | None = None
    complete_due: float | None = None
    frozen_since: float | None = None


def metrics_of(schedule: AnySchedule) -> ScheduleMetrics | None:
    """Return the metrics of a schedule; None if it is suspended or being deleted."""
    spec, status = schedule.spec, schedule.status
    if spec.suspend or schedule.metadata.is_being_deleted:
        return None
    conditions = {c.type: c.status for c in status.conditions}
    changes = {c.type: c.last_transition_time.timestamp() for c in status.conditions}
    cron = _cron(schedule)
    interval = cron.interval() if cron is not None else None
    deadline = parse_long_duration(spec.starting_deadline) if spec.starting_deadline else interval or timedelta()
    times = (status.effective_since, status.last_completed_time, status.next_schedule_time)
    effective_since, last_completed, next_time = (time.timestamp() if time is not None else None for time in times)
    return ScheduleMetrics(
        namespace=schedule.namespace,
        name=schedule.name,
        is_ready=conditions.get(ConditionType.READY) == "True",
        selects=conditions.get(ConditionType.SELECTING) != "False" or _is_left_to_owners(schedule),
        interval=interval.total_seconds() if interval is not None else None,
        deadline=deadline.total_seconds(),
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
        verifications_since=changes.get(ConditionType.VERIFICATIONS_CREATED),
        complete_due=_complete_due(schedule, cron, deadline) if cron is not None else None,
    )


def _is_left_to_owners(schedule: AnySchedule) -> bool:
    """Return whether the schedule may select nothing, because owners decide about their volumes."""
    return isinstance(schedule.spec, ClusterBackupScheduleSpec) and schedule.spec.opt_in


def _cron(schedule: AnySchedule) -> Cron | None:
    try:
        return cron_times.parse(schedule.spec.schedule, schedule.spec.time_zone)
    except InvalidInput:
        return None


def _complete_due(schedule: AnySchedule, cron: Cron, deadline: timedelta) -> float | None:
    """Return until when a run must have been complete: two intervals and the deadline after the last one.

    Two times must have passed in any case: from Friday evening to Monday, an hourly schedule of working hours is not
    late.
    """
    status = schedule.status
    since = max((time for time in (status.last_completed_time, status.effective_since) if time), default=None)
    if status.effective_since is None or since is None:
        return None
    second = _second_after(cron, since)
    due = since + 2 * cron.interval()
    return (max(due, second) if second is not None else due).timestamp() + deadline.total_seconds()


@lru_cache(maxsize=1024)
def _second_after(cron: Cron, instant: datetime) -> datetime | None:
    """Return the second time after an instant. It stays until a run is complete, and is computed once: it takes ms."""
    times = cron.after(instant)
    next(times, None)
    return next(times, None)


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
        "cinderblock_schedule_complete_run_due_timestamp_seconds",
        "Time until which a run of the schedule must have ended with a backup of every volume.",
        (each.complete_due for each in schedules),
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
        "cinderblock_schedule_frozen_since_timestamp_seconds",
        "Time of the oldest open alarm because of which retention keeps backups.",
        (each.frozen_since for each in schedules),
    )
    yield family(
        "cinderblock_schedule_creating_verifications",
        "1 if the schedule can create its verifications, otherwise 0; absent if it has none.",
        (float(value) if (value := each.creates_verifications) is not None else None for each in schedules),
    )


def counts(active: int, suspended: int) -> Metric:
    """Return the metric of the numbers of schedules. Suspended ones have no other metric."""
    gauge = GaugeMetricFamily("cinderblock_schedules", "Schedules: active or suspended.", labels=["state"])
    gauge.add_metric(["active"], active)
    gauge.add_metric(["suspended"], suspended)
    return gauge
