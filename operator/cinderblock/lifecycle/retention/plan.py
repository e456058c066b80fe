"""The plan of retention: a verdict on each backup of a schedule, from its rules, the backups and ``now``.

The plan is deterministic: neither the order of the backups nor an earlier plan changes it, except for the grace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo

from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.retention import Retention, RetentionStatus
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.brake import Appointment, appoint, limit_of
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.grace import REMOVAL_MARGIN, Grace, grace_of
from cinderblock.lifecycle.retention.judge import Judged, Volume, judge, volume_of
from cinderblock.lifecycle.retention.verdict import GOING, Judgement, RetentionPlan, Step, Verdict

MAX_REQUEUE_SECONDS = 3600.0
"""Most seconds between two plans. It must be shorter than `grace.PAUSE`, or the grace would never end."""


def plan(
    retention: Retention, zone: tzinfo, backups: Sequence[BackupRecord], context: RetentionContext, now: datetime
) -> RetentionPlan:
    """Return what retention does about the backups of one schedule.

    Args:
        retention: spec.retention of the schedule.
        zone: the zone of ``retention.time_zone``, or else that of the schedule.
        backups: all VolumeBackups that the schedule made, whatever their phase.
        context: what else must be known.
        now: the instant of the plan, with time zone.
    """
    grace = grace_of(retention, zone, context.previous, now)
    judged = judge(retention, zone, backups, context, now)
    appointments = _appointments(retention, judged, grace)
    verdicts = tuple(_verdict(item, appointments.get(item.backup.uid)) for item in judged)
    status = grace.record(_counted(verdicts, context.previous), context.previous)
    return RetentionPlan(verdicts, status, _requeue_after(verdicts, now))


def without_unread(made: RetentionPlan, unread: Collection[str], unwritten: Collection[str] = ()) -> RetentionStatus:
    """Return the status of a plan of which some marks and removals are left out.

    The numbers say what was done. A backup that would be marked or removed counts as left out, and as expiring only if
    it is marked already.

    Args:
        made: the plan.
        unread: namespaces that were not read.
        unwritten: UIDs of backups whose writes were refused or failed.
    """
    announced = [verdict.backup for verdict in made.verdicts if verdict.step in (Step.MARK, Step.REMOVE)]
    out = {backup.uid for backup in announced if backup.namespace in unread or backup.uid in unwritten}
    numbers = _counted(tuple(_left_out(v) if v.backup.uid in out else v for v in made.verdicts), None)
    update = {"kept": numbers.kept, "expiring": numbers.expiring, "left_out": len(out)}
    return made.status.model_copy(update=update)


def _left_out(verdict: Verdict) -> Verdict:
    """Return a verdict whose step is not done."""
    expires_at = verdict.backup.expires_at
    return replace(verdict, step=Step.EXPIRING if expires_at is not None else Step.KEEP, expires_at=expires_at)


def zone_name(retention: Retention, schedule_zone: str) -> str:
    """Return the name of the zone in which days begin, given that of the schedule."""
    return retention.time_zone or schedule_zone


def _appointments(retention: Retention, judged: Sequence[Judged], grace: Grace) -> dict[str, Appointment]:
    """Return the appointments of all backups that are not kept, by UID."""
    volumes: dict[Volume, list[Judged]] = defaultdict(list)
    for item in judged:
        volumes[volume_of(item.backup)].append(item)
    appointments: dict[str, Appointment] = {}
    for items in volumes.values():
        expiring = [item.backup for item in items if not item.judgement.keeps]
        if not expiring:
            continue
        going = [item.backup for item in items if item.backup.is_being_deleted]
        limit = limit_of(retention, [item.backup for item in items], grace.now)
        appointments |= appoint(expiring, going, limit, grace)
    return appointments


def _verdict(item: Judged, appointment: Appointment | None) -> Verdict:
    if appointment is not None:
        step, expires_at, is_braked = appointment.step, appointment.expires_at, appointment.is_braked
        return Verdict(item.backup, step, item.judgement, item.rules, expires_at, is_braked, item.witness)
    expires_at = item.backup.expires_at
    if expires_at is None:
        return Verdict(item.backup, Step.KEEP, item.judgement, item.rules)
    if item.judgement in GOING or item.judgement is Judgement.CLOCK_BEHIND:
        return Verdict(item.backup, Step.EXPIRING, item.judgement, item.rules, expires_at)
    return Verdict(item.backup, Step.UNMARK, item.judgement, item.rules)


def _counted(verdicts: Sequence[Verdict], previous: RetentionStatus | None) -> RetentionStatus:
    """Return the numbers of the status, after the steps. Backups that are being deleted count no more."""
    counted = [verdict for verdict in verdicts if verdict.judgement not in GOING]
    waiting = [v for v in counted if not v.judgement.keeps and v.expires_at is None]
    return RetentionStatus(
        kept=sum(verdict.expires_at is None for verdict in counted) - len(waiting),
        expiring=sum(v.expires_at is not None and v.step is not Step.REMOVE for v in counted),
        frozen=sum(verdict.judgement is Judgement.FROZEN and not verdict.rules for verdict in counted),
        braked=sum(verdict.is_braked for verdict in counted),
        last_removal_time=previous.last_removal_time if previous is not None else None,
    )


def _requeue_after(verdicts: Sequence[Verdict], now: datetime) -> float:
    """Return the seconds until the next backup is due, and at most an hour: ages and periods change all the time."""
    ends = (utc(v.expires_at) + REMOVAL_MARGIN for v in verdicts if v.expires_at is not None and _waits(v))
    seconds = min(((end - now).total_seconds() for end in ends), default=MAX_REQUEUE_SECONDS)
    return min(max(seconds, MIN_REQUEUE_SECONDS), MAX_REQUEUE_SECONDS)


def _waits(verdict: Verdict) -> bool:
    return verdict.step in (Step.MARK, Step.EXPIRING) and not verdict.judgement.keeps
