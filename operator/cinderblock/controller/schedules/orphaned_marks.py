"""Remove the marks of retention that no schedule stands behind, at each resync."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupSchedule, ClusterBackupSchedule
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.schedules.apply_retention import Applied, apply_retention
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.orphaned_marks import ScheduleKey, orphaned_marks

log = logging.getLogger(__name__)


async def remove_orphaned_marks(context: Context, marked: Sequence[BackupRecord]) -> Applied:
    """Remove status.expiresAt from backups whose schedule does not exist or has no retention.

    Schedules of kinds that this operator does not work on may belong to another operator, so their marks stay. Marks
    also stay in namespaces whose schedules cannot be read.

    Args:
        context: what to work with.
        marked: backups with status.expiresAt, which were read before this call.

    Raises what the API server raises.
    """
    served = context.policy.schedule_kinds
    judged = [record for record in marked if record.schedule.partition("/")[0] in {"", *served}]
    found: set[ScheduleKey] = set()
    if judged and kinds.CLUSTER_BACKUP_SCHEDULE.kind in served:
        bodies = await context.kube.list(kinds.CLUSTER_BACKUP_SCHEDULE)
        found.update(_keys_with_retention(parse_all(ClusterBackupSchedule, bodies)))
    for namespace in sorted({record.namespace for record in judged}) if kinds.BACKUP_SCHEDULE.kind in served else ():
        try:
            bodies = await context.kube.list(kinds.BACKUP_SCHEDULE, namespace)
        except AccessDenied as error:
            log.warning("Cannot tell which marks are orphaned: %s", error.message, extra={"namespace": namespace})
            judged = [record for record in judged if record.namespace != namespace]
            continue
        found.update(_keys_with_retention(parse_all(BackupSchedule, bodies)))
    return await apply_retention(context.kube, orphaned_marks(judged, found))


def _keys_with_retention(schedules: Iterable[AnySchedule]) -> set[ScheduleKey]:
    """Return the keys of the schedules that have retention and are not being deleted."""
    return {
        (schedule.namespace, f"{schedule.kind}/{schedule.name}")
        for schedule in schedules
        if schedule.spec.retention is not None and not schedule.metadata.is_being_deleted
    }
