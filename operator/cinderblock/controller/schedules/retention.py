"""When the retention of a schedule is applied, and how its marks end with it. `retain` is one pass."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from typing import Final

from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.apply_retention import CONTINUE_SECONDS, apply_retention
from cinderblock.controller.schedules.continue_retention import Continuations, WholePass
from cinderblock.controller.schedules.gather import read_backups, read_marked
from cinderblock.controller.schedules.record_limit import RECORDS, RecordLimit
from cinderblock.controller.schedules.retain import retain
from cinderblock.controller.schedules.volume_parts import (
    MAX_PARTS,
    PART_RECORDS,
    VolumePart,
    parts_for,
    volume_parts,
)
from cinderblock.errors import CinderblockError, KubeUnavailable, NotLeading
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.actions import unmark_all
from cinderblock.lifecycle.retention.plan import MAX_REQUEUE_SECONDS
from cinderblock.lifecycle.schedule import times
from cinderblock.lifecycle.schedule.retained import Retained, RetentionProblem, combined
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

LEAST_SECONDS: Final = 60.0
"""Seconds between two plans of a schedule with few backups."""
BACKUPS_PER_SECOND: Final = 200.0
"""A schedule with very many backups is planned less often, so that it reads this many backups a second."""
RECORDS_PER_SECOND: Final = 2000.0
"""Backups that a schedule reads in a second, on average, if it reads namespaces again: a fifth of a processor."""
_OVERFULL: Final = (
    "Retention leaves namespace {namespace} alone: the schedule has about {count} VolumeBackups there, and at most"
    " {limit} can be judged. Find out who creates them, and delete those that nobody needs."
)
_OVERFULL_VOLUME: Final = (
    "Retention leaves volume {volume} of namespace {namespace} alone: the schedule has more than {limit} VolumeBackups"
    " of it. Find out who creates them, and delete those that nobody needs."
)
_UNREADABLE: Final = "Retention leaves namespace {namespace} alone: the operator may not read it. {why}"
UNMARK_ROUNDS: Final = 20
"""Rounds in which the marks of a deleted schedule are removed, at 50 marks each."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """When a schedule with this UID was planned, and from when it may be planned again."""

    uid: str
    at: datetime
    earliest: datetime

    def allows(self, now: datetime) -> bool:
        """Return whether the schedule may be planned. After a clock has gone back, it may."""
        return not self.at <= now < self.earliest


@dataclass(slots=True)
class RetentionReconciler:
    """Applies the retention of schedules. Its memory only saves work."""

    _planned: dict[ObjectKey, _Planned] = field(default_factory=dict)
    _continuations: Continuations = field(default_factory=Continuations)

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule, so that its next look makes a plan."""
        self._planned.pop(key, None)
        self._continuations.forget(key)

    def is_due(self, key: ObjectKey, schedule: AnySchedule, now: datetime) -> bool:
        """Return whether a plan must be made now."""
        planned = self._known_plan(key, schedule)
        if schedule.spec.retention is None:
            # An earlier schedule of this name may have left marks.
            return planned is None or schedule.status.retention is not None
        is_changed = schedule.status.observed_generation != schedule.metadata.generation
        return planned is None or is_changed or planned.allows(now)

    def _known_plan(self, key: ObjectKey, schedule: AnySchedule) -> _Planned | None:
        planned = self._planned.get(key)
        return planned if planned is not None and planned.uid == schedule.uid else None

    def wait(self, key: ObjectKey, schedule: AnySchedule, now: datetime) -> Retained:
        """Return the present state, too soon after a plan. A change may be the reason, so the next plan comes soon."""
        planned = self._known_plan(key, schedule)
        has_rules = schedule.spec.retention is not None
        seconds = (planned.earliest - now).total_seconds() if planned is not None and has_rules else None
        return Retained(schedule.status.retention, requeue_after=max(0.0, seconds) if seconds is not None else None)

    async def apply(
        self,
        context: Context,
        key: ObjectKey,
        schedule: AnySchedule,
        settings: Settings,
        read: RecordLimit[BackupRecord] | None,
    ) -> Retained:
        """Make a plan and execute it. A failure holds up no run: the condition shows it, and the plan is made again.

        Args:
            context: what to work with.
            key: the key of the schedule.
            schedule: the schedule.
            settings: its parsed spec.
            read: its backups, if they were read just now.

        Raises NotLeading.
        """
        try:
            return await self._apply(context, key, schedule, settings, read)
        except NotLeading:
            raise
        except CinderblockError as error:
            log.warning("Retention is repeated later: %s", error.message, extra={"reason": error.reason})
            now = context.clock()
            again = now + timedelta(seconds=LEAST_SECONDS)
            self._planned[key] = _Planned(schedule.uid, now, again)
            problem = RetentionProblem(Reason.RULES_NOT_APPLIED, error.message)
            return Retained(schedule.status.retention, requeue_after=LEAST_SECONDS, problem=problem)

    async def _apply(
        self,
        context: Context,
        key: ObjectKey,
        schedule: AnySchedule,
        settings: Settings,
        read: RecordLimit[BackupRecord] | None,
    ) -> Retained:
        if read is None and (continued := await self._continue(context, key, schedule, settings)) is not None:
            return continued
        read = read or await read_backups(context, key)
        now, cut, zone = context.clock(), sorted(read.overfull | read.reduced), settings.retention_zone
        backups, count = read.of_whole_namespaces(), sum(read.counts.values())
        if zone is None or schedule.spec.retention is None:
            return await self._end(context, key, schedule, await read_marked(context, key) if cut else backups)
        retained = [await _retain(context, schedule, zone, backups)]
        counts = {namespace: read.counts[namespace] for namespace in cut if retained[0].refused is not None}
        retained += [part async for part in _judge_parts(context, key, schedule, zone, counts)]
        count += sum((parts_for(found) or 0) * found for found in counts.values())
        made = combined(retained)
        seconds = made.requeue_after or 0.0
        least = min(max(LEAST_SECONDS, len(backups) / BACKUPS_PER_SECOND), seconds)
        # Namespaces that are read again cost time even if some of their actions are left.
        cost = min(count / RECORDS_PER_SECOND, MAX_REQUEUE_SECONDS) if cut else 0.0
        self._planned[key] = _Planned(schedule.uid, now, now + timedelta(seconds=max(least, cost)))
        unreadable = tuple(_UNREADABLE.format(namespace=name, why=why) for name, why in sorted(read.unreadable.items()))
        made = replace(made, refused=(*unreadable, *(made.refused or ())), requeue_after=max(seconds, cost))
        pause = timedelta(seconds=max(LEAST_SECONDS, len(backups) / BACKUPS_PER_SECOND, cost))
        if not self._continuations.remember(key, schedule, made, WholePass(now, count, pause)):
            return made
        self._planned[key] = _Planned(schedule.uid, now, now + timedelta(seconds=CONTINUE_SECONDS))
        return replace(made, requeue_after=CONTINUE_SECONDS)

    async def _continue(
        self, context: Context, key: ObjectKey, schedule: AnySchedule, settings: Settings
    ) -> Retained | None:
        """Execute what the last pass has left. Return None if everything must be read."""
        if settings.retention_zone is None or schedule.spec.retention is None:
            return None
        zone, runs = settings.retention_zone, _unfinished_runs(schedule)
        retained = await self._continuations.run(context, key, schedule, zone, runs)
        if retained is not None:
            now, seconds = context.clock(), retained.requeue_after or LEAST_SECONDS
            self._planned[key] = _Planned(schedule.uid, now, now + timedelta(seconds=seconds))
        return retained

    async def _end(
        self, context: Context, key: ObjectKey, schedule: AnySchedule, backups: Sequence[BackupRecord]
    ) -> Retained:
        """Remove all marks, because the schedule has no retention."""
        applied = await apply_retention(context.kube, unmark_all(backups))
        if applied.failed:
            raise KubeUnavailable(applied.failed[0])
        if not applied.is_complete:
            return Retained(schedule.status.retention, applied.refused, CONTINUE_SECONDS)
        now = context.clock()
        self._planned[key] = _Planned(schedule.uid, now, now)
        return Retained(None)


async def _retain(context: Context, schedule: AnySchedule, zone: tzinfo, backups: Sequence[BackupRecord]) -> Retained:
    """Judge whole namespaces, or whole volumes of one."""
    runs = _unfinished_runs(schedule)
    retained = await retain(context, schedule, zone, backups, context.clock(), unfinished_runs=runs)
    return retained or Retained(schedule.status.retention)


def _unfinished_runs(schedule: AnySchedule) -> frozenset[datetime]:
    run = times.last_run_in_progress(schedule)
    return frozenset([run.time]) if run is not None else frozenset()


async def _judge_parts(
    context: Context, key: ObjectKey, schedule: AnySchedule, zone: tzinfo, counts: Mapping[str, int]
) -> AsyncIterator[Retained]:
    """Judge namespaces of which not all backups were kept, some volumes at a time.

    Args:
        context: what to work with.
        key: the key of the schedule.
        schedule: the schedule.
        zone: the zone in which days begin.
        counts: how many backups each of these namespaces has.
    """
    for namespace, count in counts.items():
        parts = parts_for(count)
        if parts is None:
            refusal = _OVERFULL.format(namespace=namespace, count=count, limit=MAX_PARTS * PART_RECORDS)
            yield Retained(None, (refusal,))
            continue
        async for part in volume_parts(context, key, namespace, parts):
            yield _about(part, namespace, await _retain(context, schedule, zone, part.backups()))


def _about(part: VolumePart, namespace: str, retained: Retained) -> Retained:
    """Return the result of a part, which also names the volumes that were left out."""
    if retained.refused is None:
        return retained
    left_out = (
        _OVERFULL_VOLUME.format(volume=name or "(not known)", namespace=namespace, limit=RECORDS)
        for name in sorted(part.overfull.values())
    )
    return replace(retained, refused=(*left_out, *retained.refused))


async def unmark_backups(context: Context, schedule: ObjectKey) -> None:
    """Remove the marks of the backups of a schedule that no longer exists. The resync finds marks that are left.

    Raises what the API server raises.
    """
    for _ in range(UNMARK_ROUNDS):
        applied = await apply_retention(context.kube, unmark_all(await read_marked(context, schedule)))
        if applied.failed:
            raise KubeUnavailable(applied.failed[0])
        if applied.is_complete:
            return
