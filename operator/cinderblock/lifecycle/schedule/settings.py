"""The spec of a schedule, checked and parsed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from cinderblock.api.duration import from_timedelta, parse_long_duration, to_timedelta
from cinderblock.api.v1alpha1.schedule import AnySchedule, ClusterBackupScheduleSpec
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import selector
from cinderblock.lifecycle.retention.plan import zone_name
from cinderblock.lifecycle.schedule import cron as cron_times
from cinderblock.lifecycle.schedule.cron import Cron
from cinderblock.lifecycle.schedule.volumes import ClaimRecord, Selection, offset
from cinderblock.lifecycle.selector import LabelSelector
from cinderblock.reasons import Reason

DEFAULT_SPREAD: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Settings:
    """The requests of a schedule.

    Attributes:
        cron: its times.
        spread: time over which the backups of one run begin.
        starting_deadline: delay after which a time counts as missed; None: until the next time.
        claims: labels of the claims.
        namespaces: labels of the namespaces; None: the schedule has a namespace of its own.
        selection: the other rules for claims.
        full_every: age of the newest full backup from which the next one is full.
        retries: number of further backups after one that failed.
        backoff: delay before each of them.
        retention_zone: time zone in which the days of retention begin; None: there is no retention.
    """

    cron: Cron
    spread: timedelta
    starting_deadline: timedelta | None
    claims: LabelSelector
    namespaces: LabelSelector | None
    selection: Selection
    full_every: timedelta
    retries: int
    backoff: timedelta
    retention_zone: tzinfo | None

    def due(self, claim: ClaimRecord, schedule_uid: str, time: datetime) -> datetime:
        """Return when a claim is due in the run of a scheduled time."""
        return time + offset(claim.uid, schedule_uid, self.spread)

    def deadline(self, due: datetime, following: datetime | None) -> datetime | None:
        """Return until when the backup of a volume may be created; None: without end.

        Args:
            due: when the volume is due in a run.
            following: the scheduled time after the run began.
        """
        return due + self.starting_deadline if self.starting_deadline is not None else following


def parse(schedule: AnySchedule) -> Settings:
    """Return the settings of a schedule.

    Raises:
        InvalidInput: they are wrong, with the reason InvalidSchedule, InvalidTimeZone or InvalidSelector.
    """
    spec = schedule.spec
    cron = cron_times.parse(spec.schedule, spec.time_zone)
    return Settings(
        cron=cron,
        spread=_spread(cron, spec.spread),
        starting_deadline=_starting_deadline(spec.starting_deadline),
        claims=selector.parse(spec.volumes.selector, "spec.volumes.selector"),
        namespaces=selector.parse(spec.namespace_selector, "spec.namespaceSelector")
        if isinstance(spec, ClusterBackupScheduleSpec)
        else None,
        selection=Selection(
            storage_classes=frozenset(spec.volumes.storage_classes),
            min_age=parse_long_duration(spec.volumes.min_age),
            opt_in=isinstance(spec, ClusterBackupScheduleSpec) and spec.opt_in,
        ),
        full_every=parse_long_duration(spec.full.every),
        retries=spec.retries.count,
        backoff=to_timedelta(spec.retries.backoff),
        retention_zone=cron_times.find_zone(zone_name(spec.retention, spec.time_zone), "spec.retention.timeZone")
        if spec.retention is not None
        else None,
    )


def _starting_deadline(given: str | None) -> timedelta | None:
    if given is None:
        return None
    deadline = parse_long_duration(given)
    if deadline <= timedelta():
        message = f"spec.startingDeadline {given} leaves no time to create a backup. Choose a longer one, or omit it."
        raise InvalidInput(message, reason=Reason.INVALID_SCHEDULE)
    return deadline


def _spread(cron: Cron, given: str | None) -> timedelta:
    interval = cron.interval()
    if given is None:
        return min(DEFAULT_SPREAD, interval / 2)
    spread = to_timedelta(given)
    if spread >= interval:
        message = (
            f"spec.spread {given} is not shorter than the interval of the schedule, which is"
            f" {from_timedelta(interval)}. Choose a shorter spread, so that a run ends before the next one begins."
        )
        raise InvalidInput(message, reason=Reason.INVALID_SCHEDULE)
    return spread
