"""Reconcile one schedule: read, decide, create, and write the status and the Events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cinderblock.api.v1alpha1.schedule import (
    AnySchedule,
    BackupSchedule,
    BackupScheduleStatus,
    ClusterBackupSchedule,
)
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey, key_of
from cinderblock.controller.schedules.create import create_all
from cinderblock.controller.schedules.gather import gather, read_backups
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.controller.schedules.retention import RetentionReconciler
from cinderblock.controller.schedules.review import Reviewer
from cinderblock.controller.schedules.verify import VerificationReconciler
from cinderblock.errors import Conflict, InvalidInput, KubeUnavailable, NotFound
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.mover.refusals import is_refused_by_webhook
from cinderblock.lifecycle.schedule import settings as schedule_settings
from cinderblock.lifecycle.schedule import times
from cinderblock.lifecycle.schedule.conclude import Conclusion, conclude, idle, invalid
from cinderblock.lifecycle.schedule.decide import decide, needs_look
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.retained import with_retention
from cinderblock.lifecycle.schedule.review import NOTHING, with_review
from cinderblock.lifecycle.schedule.status_changes import is_urgent
from cinderblock.lifecycle.schedule.verification.conclude import with_verification

log = logging.getLogger(__name__)

READERS: Final = 2
"""Schedules whose claims and backups are read at the same time: each holds up to 40 MiB of records."""
COUNTS_SECONDS: Final = 30.0
"""Seconds between two writes of a status in which only counts have changed."""
SOONEST_SECONDS: Final = 0.1
"""The shortest delay before the next look."""

MODELS: Final[dict[str, tuple[Kind, type[BackupSchedule] | type[ClusterBackupSchedule]]]] = {
    kinds.BACKUP_SCHEDULE.kind: (kinds.BACKUP_SCHEDULE, BackupSchedule),
    kinds.CLUSTER_BACKUP_SCHEDULE.kind: (kinds.CLUSTER_BACKUP_SCHEDULE, ClusterBackupSchedule),
}


@dataclass(slots=True)
class ScheduleReconciler:
    """Reconciles schedules. Its memory only saves work."""

    _readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))
    _retention: RetentionReconciler = field(default_factory=RetentionReconciler)
    _verification: VerificationReconciler = field(default_factory=VerificationReconciler)
    _reviewer: Reviewer = field(default_factory=Reviewer)
    _written: dict[ObjectKey, float] = field(default_factory=dict)
    """When the status of a schedule was last written, by the clock of the event loop."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule that no longer exists."""
        self._written.pop(key, None)
        self._retention.forget(key)
        self._verification.forget(key)
        self._reviewer.forget(key)

    async def reconcile(self, context: Context, body: dict[str, Any]) -> float | None:
        """Move a schedule one step forward. Return the seconds until the next look; None: when it changes.

        Raises what the API server raises.
        """
        kind, model = MODELS[body["kind"]]
        schedule: AnySchedule = model.model_validate(body)
        if schedule.metadata.is_being_deleted:
            return None
        now = context.clock()
        conclusion = await self._conclude(context, key_of(body), schedule, now)
        status = conclusion.status
        is_worth_it = bool(conclusion.events) or self._may_write(key_of(body), schedule.status, status)
        # An operator that dies in between records these Events again, because the status does not show the changes yet.
        await _record_events(context, body, conclusion.events)
        if status != schedule.status and is_worth_it:
            await _write(context, kind, schedule, status)
            self._written[key_of(body)] = asyncio.get_running_loop().time()
        context.metrics.count_schedule(
            schedule.namespace, schedule.name, missed=conclusion.missed, skipped=conclusion.skipped
        )
        if conclusion.requeue_after is None:
            return None
        # A time may have come meanwhile.
        return max(SOONEST_SECONDS, conclusion.requeue_after - (context.clock() - now).total_seconds())

    async def _conclude(self, context: Context, key: ObjectKey, schedule: AnySchedule, now: datetime) -> Conclusion:
        try:
            settings = schedule_settings.parse(schedule)
        except InvalidInput as error:
            return invalid(schedule, error, now)
        observed, retention = ObservedSchedule(schedule, settings), self._retention
        is_run, is_due = needs_look(observed, now), retention.is_due(key, schedule, now)
        conclusion = idle(schedule, settings, times.observe(schedule, settings, now), now)
        if not is_run:
            found = await self._reviewer.find(context, key, observed, now, readers=self._readers)
            conclusion = with_review(conclusion, schedule, settings, found, now)
        backups: RecordLimit[BackupRecord] | None = None
        if not is_run and not is_due:
            retained = retention.wait(key, schedule, now)
            verified = await self._verification.verify(context, key, observed, now, readers=self._readers)
            return with_verification(with_retention(conclusion, schedule, retained, now), schedule, verified, now)
        async with self._readers:
            if is_run:
                backups = await read_backups(context, key)
                observed = await gather(context, observed, backups)
                plan = decide(observed, now)
                outcomes = await create_all(context, schedule, plan.creations)
                conclusion = with_review(conclude(observed, plan, outcomes, now), schedule, settings, NOTHING, now)
            if is_due or times.has_ended(schedule, conclusion.status):
                retained = await retention.apply(context, key, schedule, settings, backups)
            else:
                retained = retention.wait(key, schedule, now)
            # These slots are held already, so nothing waits for one here.
            readers = None if is_run else contextlib.nullcontext()
            verified = await self._verification.verify(context, key, observed, now, readers=readers)
        return with_verification(with_retention(conclusion, schedule, retained, now), schedule, verified, now)

    def _may_write(self, key: ObjectKey, before: BackupScheduleStatus, after: BackupScheduleStatus) -> bool:
        since = asyncio.get_running_loop().time() - self._written.get(key, float("-inf"))
        return since >= COUNTS_SECONDS or is_urgent(before, after)


async def _record_events(context: Context, body: dict[str, Any], events: Sequence[RecordEvent]) -> None:
    """Record Events. A webhook that does not answer must not keep the status from being written.

    Raises KubeUnavailable if the API server does not answer.
    """
    for event in events:
        log.log(logging.WARNING if event.type == "Warning" else logging.INFO, "%s", event.note)
        try:
            await event_recorder.record_event(
                context.kube, body, event.type, event.reason, event.note, action="Reconcile"
            )
        except KubeUnavailable as error:
            if not is_refused_by_webhook(error.message):
                raise
            log.warning("An Event was not recorded: %s", error.message)


async def _write(context: Context, kind: Kind, schedule: AnySchedule, status: BackupScheduleStatus) -> None:
    """Write the status over the version that was read; if the object has changed since, over its current version."""
    name, namespace, uid = schedule.name, schedule.namespace or None, schedule.uid
    try:
        with contextlib.suppress(Conflict):
            version = schedule.metadata.resource_version
            await context.kube.apply_status(kind, name, namespace, status.to_wire(), uid=uid, resource_version=version)
            return
        await context.kube.apply_status(kind, name, namespace, status.to_wire(), uid=uid)
    except NotFound:
        log.info("The schedule no longer exists")
