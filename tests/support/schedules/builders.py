"""Schedules, claims and backups for the tests of decisions."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.schedule import BackupSchedule, ClusterBackupSchedule
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule import settings
from cinderblock.lifecycle.schedule.observed import BackupIndex, ObservedSchedule, StoreChoice
from cinderblock.lifecycle.schedule.volumes import ClaimRecord
from tests.support.retention.records import a_record

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NAMESPACE = "shop"
_UIDS = count(1)


def schedule(name: str = "daily", status: dict[str, Any] | None = None, **spec: Any) -> BackupSchedule:
    """Return a BackupSchedule that was created at START."""
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": 1, "creationTimestamp": START}
    body = {"metadata": metadata, "spec": {"schedule": "0 2 * * *", "spread": "0s", **spec}, "status": status or {}}
    return BackupSchedule.model_validate(body)


def cluster_schedule(name: str = "all", **spec: Any) -> ClusterBackupSchedule:
    """Return a ClusterBackupSchedule that was created at START."""
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 1, "creationTimestamp": START}
    spec = {"schedule": "0 2 * * *", "spread": "0s", "namespaceSelector": {}, **spec}
    return ClusterBackupSchedule.model_validate({"metadata": metadata, "spec": spec})


def claim(name: str = "data", namespace: str = NAMESPACE, **fields: Any) -> ClaimRecord:
    """Return a claim that is a day old at START."""
    return ClaimRecord(namespace, name, f"uid-of-{namespace}-{name}", START - timedelta(days=1), **fields)


def record(
    name: str, of: ClaimRecord, phase: BackupPhase | None = BackupPhase.AVAILABLE, **fields: Any
) -> BackupRecord:
    """Return a backup of a claim. If its name ends with a scheduled time, it was created then."""
    uid = f"backup-{next(_UIDS)}"
    scheduled = _time_in(name)
    own = {
        "namespace": of.namespace,
        "name": name,
        "resource_version": "1",
        "scheduled_for": scheduled,
        "created": scheduled or START,
        "volume_id": of.uid if phase is not None else "",
        "volume_name": of.name,
        "container": "bucket",
        "phase": phase,
        "data_time": START if phase is not None and phase.is_complete else None,
        "requested_volume": of.uid,
    }
    return a_record(uid, START, **(own | fields))


def _time_in(name: str) -> datetime | None:
    found = re.search(r"-(\d{12})(-r\d+)?$", name)
    return datetime.strptime(found[1], "%Y%m%d%H%M").replace(tzinfo=UTC) if found else None


def observed(
    of: BackupSchedule | ClusterBackupSchedule,
    *claims: ClaimRecord,
    backups: list[BackupRecord] | None = None,
    without_store: frozenset[str] = frozenset(),
    **fields: Any,
) -> ObservedSchedule:
    """Return an observed schedule. Each namespace has a store, except for some."""
    stores = {
        c.namespace: StoreChoice(missing="no store") if c.namespace in without_store else StoreChoice("default")
        for c in claims
    }
    found = ObservedSchedule(of, settings.parse(of), claims, BackupIndex(backups or []), stores)
    return replace(found, **fields)
