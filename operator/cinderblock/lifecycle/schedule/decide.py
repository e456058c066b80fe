"""``decide`` for a schedule: which VolumeBackups to create now. `conclude` makes the status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cinderblock.api.v1alpha1.schedule import RunStatus
from cinderblock.lifecycle.schedule import names, times
from cinderblock.lifecycle.schedule.creation import Creation, choose
from cinderblock.lifecycle.schedule.names import BackupNames
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.runs import Result, Run, judge
from cinderblock.lifecycle.schedule.times import Times


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run and what became of its volumes."""

    run: Run
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Decision about a schedule.

    Attributes:
        times: its times.
        runs: the runs that may create backups: of the time that is due, of spec.runNow, and the last one until it has
            ended.
        shown: the run that the status shows, one of these; None: none.
        overtaken: an unfinished run that the shown one replaces.
        creations: the VolumeBackups to create, in this order.
    """

    times: Times
    runs: tuple[JudgedRun, ...] = ()
    shown: str | None = None
    overtaken: JudgedRun | None = None
    creations: tuple[Creation, ...] = ()


def needs_look(observed: ObservedSchedule, now: datetime) -> bool:
    """Return whether claims and backups must be read. Otherwise the schedule waits for its next time."""
    schedule = observed.schedule
    return (
        schedule.status.observed_generation != schedule.metadata.generation
        or times.last_run_in_progress(schedule) is not None
        or times.requested_run(schedule) is not None
        or times.observe(schedule, observed.settings, now).due is not None
    )


def decide(observed: ObservedSchedule, now: datetime) -> Plan:
    """Return what to do about a schedule whose settings are valid."""
    schedule, settings = observed.schedule, observed.settings
    at = times.observe(schedule, settings, now)
    runs: list[Run] = []
    if at.due is not None:
        runs.append(_scheduled(observed, at.due, now))
    requested = times.requested_run(schedule)
    if requested is not None:
        runs.append(_requested(observed, requested, now))
    shown = _shown(observed, at.due, requested, now)
    last = times.last_run_in_progress(schedule)
    overtaken: Run | None = None
    if last is not None and all(run.names.run != last.name for run in runs):
        if shown is None or shown == last.name:
            runs.append(_continued(observed, last))
        elif times.is_credible(last.time, now):
            overtaken = _overtaken(observed, last, at, now)
    judged = tuple(JudgedRun(run, tuple(judge(observed, run, now))) for run in runs)
    return Plan(
        at,
        judged,
        shown if shown is not None or last is None else last.name,
        JudgedRun(overtaken, tuple(judge(observed, overtaken, now))) if overtaken is not None else None,
        choose(observed, [(entry.run, list(entry.results)) for entry in judged], now),
    )


def _shown(observed: ObservedSchedule, due: datetime | None, requested: str | None, now: datetime) -> str | None:
    """Return the run that the status shows: one that begins now, or else the one that it has shown until now."""
    schedule = observed.schedule
    last = schedule.status.last_run
    if due is not None and not times.has_begun(schedule, due, now):
        return names.of_time(due)
    if requested is not None and (last is None or last.name != requested):
        return requested
    return last.name if last is not None and times.last_run_in_progress(schedule) is not None else None


def _scheduled(observed: ObservedSchedule, time: datetime, now: datetime) -> Run:
    return Run(
        BackupNames(observed.schedule, names.of_time(time)),
        time,
        is_scheduled=True,
        creates=True,
        retries=True,
        following=observed.settings.cron.next_after(time),
        is_given_up=times.is_given_up(observed.schedule, time, now),
    )


def _requested(observed: ObservedSchedule, name: str, now: datetime) -> Run:
    """Return the run that was requested. Until all its backups are created, it keeps the time at which it began."""
    last = observed.schedule.status.last_run
    is_known = last is not None and last.name == name and times.is_credible(last.time, now)
    began = last.time if last is not None and is_known else now.replace(microsecond=0)
    return Run(
        BackupNames(observed.schedule, name),
        began,
        is_scheduled=False,
        creates=True,
        retries=True,
        following=observed.settings.cron.next_after(began),
    )


def _continued(observed: ObservedSchedule, last: RunStatus) -> Run:
    """Return a run whose backups were all created, and are being made or repeated."""
    return Run(
        BackupNames(observed.schedule, last.name),
        last.time,
        is_scheduled=last.name == names.of_time(last.time),
        creates=False,
        retries=not observed.schedule.spec.suspend,
        following=observed.settings.cron.next_after(last.time),
    )


def _overtaken(observed: ObservedSchedule, last: RunStatus, at: Times, now: datetime) -> Run:
    """Return a run that ends now, because another one begins. Backups that it has not created are missed."""
    is_scheduled = last.name == names.of_time(last.time)
    return Run(
        BackupNames(observed.schedule, last.name),
        last.time,
        is_scheduled=is_scheduled,
        creates=is_scheduled and at.base < last.time,
        retries=False,
        following=now,
        ended=now,
    )
