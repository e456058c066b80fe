"""Builders of backup records and of rules for tests of retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.plan import plan
from cinderblock.lifecycle.retention.verdict import RetentionPlan, Step

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def a_record(uid: str = "b-1", time: datetime = NOW - 30 * DAY, **fields: Any) -> BackupRecord:
    """Return a complete backup of claim ``c-1`` with data of this time."""
    record = BackupRecord(
        namespace="shop",
        name=f"daily-{uid}",
        uid=uid,
        resource_version="7",
        backup_id=uid,
        schedule="BackupSchedule/daily",
        scheduled_for=time,
        volume_id="c-1",
        volume_name="data",
        store_name="default",
        container="backups",
        phase=BackupPhase.AVAILABLE,
        created=time,
        data_time=time,
        is_incremental=False,
        parent_id="",
        is_held=False,
        keeps_data=False,
        is_imported=False,
        is_being_deleted=False,
        expires_at=None,
        logical_bytes=None,
        transferred_bytes=None,
        stored_bytes=None,
        fail_reason="",
        is_suspicious=False,
    )
    return replace(record, **fields)


def dailies(count: int, newest: datetime = NOW - HOUR, **fields: Any) -> list[BackupRecord]:
    """Return backups of consecutive days, from new to old; ``b-0`` is the newest."""
    return [a_record(f"b-{number}", newest - number * DAY, **fields) for number in range(count)]


def rules(**fields: Any) -> Retention:
    """Return rules without a minimum age, grace or brake, unless they are given."""
    return Retention(**({"min_age": "0s", "grace": "0s", "max_per_day": 0} | fields))


def planned(
    retention: Retention,
    backups: Sequence[BackupRecord],
    now: datetime = NOW,
    context: RetentionContext | None = None,
    zone: tzinfo = UTC,
) -> RetentionPlan:
    """Return the plan, in UTC unless a zone is given."""
    return plan(retention, zone, backups, context or RetentionContext(), now)


def kept_ids(planned_: RetentionPlan) -> set[str]:
    """Return the UIDs of the backups that no appointment removes."""
    return {verdict.backup.uid for verdict in planned_.verdicts if verdict.judgement.keeps}


def applied(plan_: RetentionPlan) -> list[BackupRecord]:
    """Return the backups after the steps of a plan, with their deletions finished."""
    changed = {Step.MARK, Step.UNMARK}
    return [
        replace(verdict.backup, expires_at=verdict.expires_at) if verdict.step in changed else verdict.backup
        for verdict in plan_.verdicts
        if verdict.step is not Step.REMOVE
    ]


class Retaining:
    """The backups of one schedule over time. Deletions finish at once.

    Attributes:
        backups: those that exist.
        removed: the UIDs of those that retention removed, with the time, in order.
        context: what the next plan depends on.
    """

    def __init__(self, retention: Retention, backups: Sequence[BackupRecord] = (), *, zone: tzinfo = UTC) -> None:
        self.retention = retention
        self._zone = zone
        self.backups = list(backups)
        self.removed: list[tuple[datetime, str]] = []
        self.context = RetentionContext()

    def apply(self, now: datetime) -> RetentionPlan:
        """Make a plan and apply all of it."""
        made = planned(self.retention, self.backups, now, self.context, self._zone)
        self.removed += [(now, v.backup.uid) for v in made.verdicts if v.step is Step.REMOVE]
        self.backups = applied(made)
        self.context = replace(self.context, previous=made.status)
        return made
