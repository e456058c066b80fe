"""Since when the times of a schedule count, and which of them is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupScheduleStatus, Missed, RunStatus, VerificationTimes
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.cron import Cron, PastTimes, past_times
from cinderblock.lifecycle.schedule.settings import Settings

MAX_AHEAD: Final = timedelta(hours=1)
"""A recorded time that is later than this in the future comes from a wrong clock, and is not believed."""
LATE: Final = timedelta(minutes=5)
"""After so long, a time at which no run began counts as missed: another replica takes over within seconds."""


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a schedule at one moment.

    Attributes:
        observed: schedule, time zone and suspend that ``effective_since`` belongs to.
        effective_since: time from which runs are due.
        watermark: the newest time that was dealt with; None: none was.
        past: the times since then.
    """

    observed: str
    effective_since: datetime
    watermark: datetime | None
    past: PastTimes

    @property
    def base(self) -> datetime:
        """The instant after which times are due."""
        return max(self.effective_since, self.watermark or self.effective_since)

    @property
    def due(self) -> datetime | None:
        """The scheduled time that is due."""
        return self.past.newest


def observe(schedule: AnySchedule, settings: Settings, now: datetime) -> Times:
    """Return the times of a schedule. If they were changed, or a pause has ended, they count from now on."""
    spec, status = schedule.spec, schedule.status
    return observe_rule(
        spec.schedule, settings.cron, schedule, status, begin=schedule.metadata.creation_timestamp, now=now
    )


def observe_rule(
    expression: str,
    cron: Cron,
    schedule: AnySchedule,
    recorded: BackupScheduleStatus | VerificationTimes,
    *,
    begin: datetime | None,
    now: datetime,
) -> Times:
    """Return the times of one cron rule of a schedule.

    Args:
        expression: the rule as it was written.
        cron: the same, parsed.
        schedule: the schedule, with the time zone of the rule.
        recorded: what a status records about the rule.
        begin: when the rule began, if no status records it; None: now.
        now: the present.
    """
    suspend = schedule.spec.suspend
    observed = f"{expression} | {schedule.spec.time_zone} | {'suspended' if suspend else 'active'}"
    present = now.replace(microsecond=0)
    since = recorded.effective_since
    if since is None or recorded.observed_times is None:
        since = min(begin or present, present)
    elif recorded.observed_times != observed or not is_credible(since, now):
        since = present
    watermark = recorded.last_schedule_time
    if watermark is not None and not is_credible(watermark, now):
        watermark = present
    times = Times(observed, since, watermark, PastTimes())
    return times if suspend else Times(observed, since, watermark, past_times(cron, times.base, now))


def last_run_in_progress(schedule: AnySchedule) -> RunStatus | None:
    """Return the last run, if it has not ended."""
    return schedule.status.last_run if _is_in_progress(schedule.status) else None


def has_ended(schedule: AnySchedule, after: BackupScheduleStatus) -> bool:
    """Return whether the run in progress has ended in the next status."""
    return _is_in_progress(schedule.status) and not _is_in_progress(after)


def _is_in_progress(status: BackupScheduleStatus) -> bool:
    return any(c.type == ConditionType.LAST_RUN_SUCCEEDED and c.status == "Unknown" for c in status.conditions)


def has_begun(schedule: AnySchedule, time: datetime, now: datetime) -> bool:
    """Return whether the status shows that the run of a scheduled time, or a later one, has begun."""
    run = schedule.status.last_run
    if run is None or not is_credible(run.time, now):
        return False
    return run.name == names.of_time(time) or run.time > time


def is_credible(recorded: datetime, now: datetime) -> bool:
    """Return whether a recorded time may be right. One far in the future was recorded while the clock was ahead."""
    return recorded <= now + MAX_AHEAD


def last_completed(schedule: AnySchedule, now: datetime) -> datetime | None:
    """Return when a run was last complete; None: never, or that is not known."""
    recorded = schedule.status.last_completed_time
    return recorded if recorded is not None and is_credible(recorded, now) else None


def is_given_up(schedule: AnySchedule, time: datetime, now: datetime) -> bool:
    """Return whether a time is not made up for, because the operator did not run at it."""
    return schedule.spec.missed is Missed.SKIP and now > time + LATE and not has_begun(schedule, time, now)


def requested_run(schedule: AnySchedule) -> str | None:
    """Return the part of the names for the run that spec.runNow or spec.runOnCreate asks for; None: neither does."""
    spec, done = schedule.spec, schedule.status.last_run_now
    if spec.suspend or (done is not None and done == spec.run_now):
        return None
    if done is None and spec.run_on_create:
        return names.of_creation(schedule.uid)
    return names.of_token(spec.run_now) if spec.run_now else None
