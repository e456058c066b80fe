"""When the retention of a schedule is applied, and how its marks end with it. `retain` is one pass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.apply_retention import CONTINUE_SECONDS, apply_retention
from cinderblock.controller.schedules.gather import read_backups, read_marked
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.controller.schedules.retain import retain
from cinderblock.errors import CinderblockError, KubeUnavailable, NotLeading
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.actions import unmark_all
from cinderblock.lifecycle.schedule import times
from cinderblock.lifecycle.schedule.retained import Retained, RetentionProblem
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

LEAST_SECONDS: Final = 60.0
"""Seconds between two plans of a schedule with few backups."""
BACKUPS_PER_SECOND: Final = 200.0
"""A schedule with very many backups is planned less often, so that it reads this many backups a second."""
_OVERFULL: Final = (
    "Retention leaves namespace {namespace} alone: the schedule has too many VolumeBackups to be read, and this"
    " namespace has the most. Shorten the retention of other namespaces, use several schedules, or find out who creates"
    " these VolumeBackups."
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

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule, so that its next look makes a plan."""
        self._planned.pop(key, None)

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
        read = read or await read_backups(context, key)
        backups = read.of_whole_namespaces()
        now, run = context.clock(), times.last_run_in_progress(schedule)
        unfinished = frozenset([run.time]) if run is not None else frozenset()
        zone = settings.retention_zone
        retained = await retain(context, schedule, zone, backups, now, unfinished_runs=unfinished) if zone else None
        if retained is None:
            is_cut = bool(read.overfull or read.reduced)
            return await self._end(context, key, schedule, await read_marked(context, key) if is_cut else backups)
        seconds = retained.requeue_after or 0.0
        least = max(LEAST_SECONDS, len(backups) / BACKUPS_PER_SECOND)
        self._planned[key] = _Planned(schedule.uid, now, now + timedelta(seconds=min(least, seconds)))
        overfull = tuple(_OVERFULL.format(namespace=namespace) for namespace in sorted(read.overfull | read.reduced))
        unreadable = tuple(_UNREADABLE.format(namespace=name, why=why) for name, why in sorted(read.unreadable.items()))
        return replace(retained, refused=(*overfull, *unreadable, *(retained.refused or ())))

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
