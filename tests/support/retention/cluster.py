"""VolumeBackups of a schedule on an API server, and the operator's loop of retention."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.controller.schedules.apply_retention import Applied, apply_retention
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.retention.actions import actions_of
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.verdict import RetentionPlan
from tests.support.retention.records import planned

SCHEDULE = {labels.SCHEDULE_ANNOTATION: "BackupSchedule/daily"}


@dataclass
class RetentionLoop:
    """Reads the backups, plans and applies, as the reconciliation of a schedule does.

    Attributes:
        kube: the operator's client.
        retention: the rules.
        namespace: of the backups; None: all.
        context: what the next plan depends on.
    """

    kube: KubeClient
    retention: Retention
    namespace: str | None = None
    context: RetentionContext = field(default_factory=RetentionContext)

    @property
    def last_removal(self) -> datetime | None:
        """The time of the last removal, as the status records it."""
        return self.context.previous.last_removal_time if self.context.previous is not None else None

    async def records(self) -> list[BackupRecord]:
        """Read the backups."""
        bodies = await self.kube.list(kinds.VOLUME_BACKUP, self.namespace)
        return [record_of(VolumeBackup.model_validate(body)) for body in bodies]

    async def plan(self, now: datetime) -> RetentionPlan:
        """Return the plan, without applying it."""
        return planned(self.retention, await self.records(), now, self.context)

    async def apply(self, now: datetime) -> Applied:
        """Make a plan and apply it. Its status is recorded even if the operator dies while it applies the plan."""
        made = await self.plan(now)
        self.context = replace(self.context, previous=made.status)
        applied = await apply_retention(self.kube, actions_of(made))
        self.context = replace(self.context, previous=applied.record(made.status, now))
        return applied


async def make_backup(kube: KubeClient, namespace: str, name: str, time: datetime, **spec: Any) -> VolumeBackup:
    """Create an available backup of a schedule, and return it as it was read."""
    metadata = {"name": name, "namespace": namespace, "annotations": SCHEDULE}
    made = await kube.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"} | spec})
    uid = made["metadata"]["uid"]
    status = available(uid, time)
    return VolumeBackup.model_validate(await kube.apply_status(kinds.VOLUME_BACKUP, name, namespace, status, uid=uid))


def available(uid: str, time: datetime) -> dict[str, Any]:
    """Return the status of an available backup."""
    return {
        "phase": "available",
        "id": uid,
        "volumeId": "c-1",
        "storeName": "default",
        "container": "backups",
        "dataTimestamp": time.isoformat().replace("+00:00", "Z"),
    }


async def read(kube: KubeClient, namespace: str, name: str) -> VolumeBackup | None:
    """Read a backup; None if it does not exist."""
    body = await kube.get(kinds.VOLUME_BACKUP, name, namespace)
    return VolumeBackup.model_validate(body) if body is not None else None


MINUTE = timedelta(minutes=1)
