"""When the retention of each schedule is due. It is remembered in memory only: after a start, it is due at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.v1alpha1.retention import RetentionStatus
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.retain import retain
from cinderblock.errors import CinderblockError, NotLeading
from cinderblock.lifecycle.retention.plan import MAX_REQUEUE_SECONDS
from cinderblock.lifecycle.schedule.decide import Plan
from cinderblock.lifecycle.schedule.observed import ObservedSchedule

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 60.0
"""Seconds before retention is tried again that failed."""


@dataclass(slots=True)
class RetentionTurns:
    """Remembers when the retention of each schedule is due."""

    _due: dict[ObjectKey, datetime] = field(default_factory=dict)

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule that no longer exists, or whose rules may have changed."""
        self._due.pop(key, None)

    def delay(self, schedule: AnySchedule, now: datetime) -> float | None:
        """Return the seconds until retention is due; None: the schedule has none."""
        if schedule.spec.retention is None:
            return None
        seconds = (self._due.get(key_of_schedule(schedule), now) - now).total_seconds()
        # A longer delay comes from a clock that was set back.
        return seconds if 0.0 < seconds <= MAX_REQUEUE_SECONDS else 0.0

    async def take(
        self, context: Context, observed: ObservedSchedule, plan: Plan, now: datetime
    ) -> RetentionStatus | None:
        """Apply retention if it is due. Return its status.

        A failure holds up no run, and is repeated later. Raises NotLeading.
        """
        schedule, zone = observed.schedule, observed.settings.retention_zone
        if zone is None or self.delay(schedule, now) != 0.0:
            return schedule.status.retention if zone is not None else None
        delay, status = RETRY_SECONDS, schedule.status.retention
        unfinished = frozenset(judged.run.time for judged in plan.runs)
        try:
            found = await retain(context, schedule, zone, observed.backups.all(), now, unfinished_runs=unfinished)
        except NotLeading:
            raise
        except CinderblockError as error:
            log.warning("Retention is repeated later: %s", error.message, extra={"reason": error.reason})
        else:
            if found is not None:
                delay, status = found.requeue_after, found.status
        self._due[key_of_schedule(schedule)] = now + timedelta(seconds=delay)
        return status


def key_of_schedule(schedule: AnySchedule) -> ObjectKey:
    """Return the key of a schedule."""
    return ObjectKey(schedule.kind, schedule.namespace, schedule.name)
