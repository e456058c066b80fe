"""Retention of one schedule: plan, read what protects the backups that would go, plan again, and execute the plan.

Restores, claims and other backups of the volumes are read only in the namespaces where the first plan would write. In
a namespace where they cannot be read, nothing is marked and nothing is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any, Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.schedules.apply_retention import (
    CONTINUE_SECONDS,
    MAX_FAILURES,
    MAX_WRITES,
    Applied,
    apply_retention,
    in_turns,
)
from cinderblock.controller.schedules.gather import parsed_pages
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.errors import AccessDenied, KubeUnavailable
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.retention import clocks
from cinderblock.lifecycle.retention.actions import RetentionAction, UnmarkExpiring, actions_of
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.judge import Volume, volume_of
from cinderblock.lifecycle.retention.open_alarms import relevant_to_others
from cinderblock.lifecycle.retention.plan import plan, without_unread
from cinderblock.lifecycle.retention.uses import BackupName, names_used_by, used_ids, verified_at
from cinderblock.lifecycle.retention.verdict import Judgement, RetentionPlan
from cinderblock.lifecycle.schedule.names import is_made_by, place, reference_to
from cinderblock.lifecycle.schedule.retained import Retained, RetentionProblem
from cinderblock.reasons import Reason

MAX_NAMESPACES: Final = 200
"""Most namespaces that one pass reads, with three lists each. The others follow in the next pass."""
OVERFULL: Final = (
    "Retention leaves namespace {namespace} alone: it has too many VolumeBackups to be read. Find out who creates them."
)
NEXT_NAMESPACES_SECONDS: Final = 60.0
"""Seconds after which a plan is made again that may have to write in namespaces that were not read. It is longer than
CONTINUE_SECONDS: a plan can leave namespaces again and again in which an alarm of another schedule keeps everything."""
RETRY_SECONDS: Final = 60.0
"""Seconds after which a plan is made again that failed, or that a wrong clock prevented."""
RECORDS_PER_THREAD: Final = 1000
"""Backups from which on a plan is made in a thread. 8,760 backups take half a second."""


@dataclass(slots=True)
class _Facts:
    """The facts about some namespaces.

    Attributes:
        namespaces: those that could be read.
        names: names of the backups that restores read.
        others: backups that the schedule did not make, and unfinished ones.
        volumes: the claims that exist.
        read_only: the read-only BackupStores.
        refused: refusals of the API server.
        failed: requests that failed.
    """

    namespaces: set[str] = field(default_factory=set)
    names: set[BackupName] = field(default_factory=set)
    others: list[BackupRecord] = field(default_factory=list)
    volumes: set[Volume] = field(default_factory=set)
    read_only: set[tuple[str, str]] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def retain(
    context: Context,
    schedule: AnySchedule,
    zone: tzinfo,
    backups: Sequence[BackupRecord],
    now: datetime,
    *,
    unfinished_runs: frozenset[datetime] = frozenset(),
    others: Sequence[BackupRecord] | None = None,
) -> Retained | None:
    """Mark, unmark and remove backups of a schedule. Return None if it has no retention.

    Args:
        context: what to work with.
        schedule: the schedule.
        zone: the zone in which days begin: see `zone_name`.
        backups: all VolumeBackups that the schedule made, as they were read just now. Each volume may be judged for
            itself, with all of its backups.
        now: the instant of the plan.
        unfinished_runs: scheduled times of runs that still retry.
        others: all other backups of these volumes, and unfinished ones, if they were read with them. Then no volume
            counts as gone. None: the other backups of their namespaces are read, and the claims.

    Raises what the API server raises.
    """
    retention = schedule.spec.retention
    if retention is None:
        return None
    backups = [record for record in backups if is_made_by(schedule, record)]
    differs = clocks.difference(now, context.kube.server_time)
    if differs:
        problem = RetentionProblem(Reason.CLOCK_DIFFERS, differs)
        return Retained(schedule.status.retention, requeue_after=RETRY_SECONDS, problem=problem)
    judges_gone = others is None and retention.gone.after is not None
    # Without claims, every volume counts as gone, so that the first plan has all that may have to go.
    volumes = frozenset[Volume]() if judges_gone else None
    assumed = RetentionContext(schedule.status.retention, volumes=volumes, unfinished_runs=unfinished_runs)
    first = await _plan(retention, zone, backups, assumed, now)
    namespaces = _namespaces_to_read(first, now)
    facts = await _read(context, namespaces, schedule, others, needs_claims=judges_gone)
    known = replace(
        assumed,
        used_ids=used_ids((*backups, *facts.others), facts.names),
        others=tuple(facts.others),
        verified_at=verified_at(backups),
        read_only=frozenset(facts.read_only),
        volumes=_known_volumes(facts, backups) if judges_gone else None,
    )
    made = await _plan(retention, zone, backups, known, now)
    applied = await apply_retention(context.kube, _permitted(_mixed(made, now), actions_of(first), facts.namespaces))
    failed = (*facts.failed, *applied.failed)
    requeue_after = made.requeue_after if applied.is_complete else CONTINUE_SECONDS
    if _leaves_namespaces(first, namespaces):
        requeue_after = min(requeue_after, NEXT_NAMESPACES_SECONDS)
    return Retained(
        applied.record(without_unread(made, _unread(made, facts.namespaces), applied.unwritten), now),
        (*facts.refused, *applied.refused),
        RETRY_SECONDS if failed else requeue_after,
        _problem(made, failed),
        _left(made, applied),
    )


def _known_volumes(facts: _Facts, backups: Sequence[BackupRecord]) -> frozenset[Volume]:
    """Return the volumes that exist. Those of namespaces that were not read count as such."""
    return frozenset(facts.volumes | {volume_of(b) for b in backups if b.namespace not in facts.namespaces})


def _left(made: RetentionPlan, applied: Applied) -> tuple[Volume, ...]:
    """Return the volume of each action that is left, except those of volumes that are gone.

    Whether a volume is gone depends on the other backups of its namespace, so only a whole pass can tell.
    """
    gone = {volume_of(verdict.backup) for verdict in made.verdicts if verdict.judgement is Judgement.GONE}
    uids = {action.backup.uid for action in applied.left}
    volumes = (volume_of(verdict.backup) for verdict in made.verdicts if verdict.backup.uid in uids)
    return tuple(volume for volume in volumes if volume not in gone)


def _problem(made: RetentionPlan, failed: Sequence[str]) -> RetentionProblem | None:
    """Return why nothing was judged, or what failed; None: nothing did."""
    later = clocks.created_later(made.verdicts)
    if later:
        return RetentionProblem(Reason.CLOCK_DIFFERS, later)
    return RetentionProblem(Reason.RULES_NOT_APPLIED, failed[0]) if failed else None


async def _plan(
    retention: Retention, zone: tzinfo, backups: Sequence[BackupRecord], context: RetentionContext, now: datetime
) -> RetentionPlan:
    if len(backups) < RECORDS_PER_THREAD:
        return plan(retention, zone, backups, context, now)
    return await asyncio.to_thread(plan, retention, zone, backups, context, now)


def _mixed(made: RetentionPlan, now: datetime) -> list[RetentionAction]:
    """Return the actions of a plan, with the namespaces in another order each time.

    Namespaces that refuse everything must not use up the writes of the others.
    """
    return sorted(actions_of(made), key=lambda action: place(action.backup.namespace, now.isoformat()))


def _namespaces_to_read(first: RetentionPlan, now: datetime) -> list[str]:
    """Return the namespaces of the next writes, and of volumes that may be gone."""
    written = [action.backup.namespace for action in in_turns(_mixed(first, now))[:MAX_WRITES]]
    gone = [verdict.backup.namespace for verdict in first.verdicts if verdict.judgement is Judgement.GONE]
    return list(dict.fromkeys((*written, *gone)))[:MAX_NAMESPACES]


def _leaves_namespaces(first: RetentionPlan, read: Collection[str]) -> bool:
    """Return whether the first plan would write in namespaces that this pass does not read."""
    needs_facts = (action for action in actions_of(first) if not isinstance(action, UnmarkExpiring))
    return any(action.backup.namespace not in read for action in needs_facts)


def _unread(made: RetentionPlan, read: Collection[str]) -> frozenset[str]:
    """Return the namespaces in which a plan would write, and that this pass has not read."""
    return frozenset(action.backup.namespace for action in actions_of(made)) - frozenset(read)


def _permitted(
    actions: Sequence[RetentionAction], first: Collection[RetentionAction], namespaces: Collection[str]
) -> list[RetentionAction]:
    """Return the actions in namespaces that were read, and the removals of marks that need no facts."""
    unmarked = {action for action in first if isinstance(action, UnmarkExpiring)}
    return [action for action in actions if action.backup.namespace in namespaces or action in unmarked]


async def _read(
    context: Context,
    namespaces: Sequence[str],
    schedule: AnySchedule,
    known: Sequence[BackupRecord] | None,
    *,
    needs_claims: bool,
) -> _Facts:
    """Read restores and unfinished backups that need others, other backups with alarms, stores, and perhaps the claims.

    An alarm counts for all backups of the volume. Claims are read if their absence counts.

    Each namespace is read for itself: a list of all namespaces may leave out those that may not be read, and one that
    cannot be read must not stop the others.
    """
    facts = _Facts()
    for namespace in namespaces:
        try:
            restores = _bodies(context, kinds.VOLUME_RESTORE, namespace)
            names = {name async for body in restores for name in names_used_by(body)}
            others = (
                await _read_others(context, namespace, schedule) if known is None else _of_namespace(known, namespace)
            )
            stores = [store async for page in _store_pages(context, namespace) for store in page]
            claims = _bodies(context, kinds.PVC, namespace)
            uids = {body["metadata"]["uid"] async for body in claims} if needs_claims else set()
        except AccessDenied as error:
            facts.refused.append(error.message)
            continue
        except KubeUnavailable as error:
            facts.failed.append(error.message)
            if len(facts.failed) >= MAX_FAILURES:
                break
            continue
        if others.overfull:
            facts.refused.append(OVERFULL.format(namespace=namespace))
            continue
        facts.namespaces.add(namespace)
        facts.names |= names
        facts.read_only |= {(namespace, store.name) for store in stores if store.is_read_only}
        facts.others += relevant_to_others(others.records())
        facts.volumes |= {(namespace, uid) for uid in uids}
    return facts


def _of_namespace(records: Sequence[BackupRecord], namespace: str) -> RecordLimit[BackupRecord]:
    found: RecordLimit[BackupRecord] = RecordLimit()
    for record in records:
        if record.namespace == namespace:
            found.add(record)
    return found


async def _read_others(context: Context, namespace: str, schedule: AnySchedule) -> RecordLimit[BackupRecord]:
    """Return the backups of a namespace that are unfinished, or that the schedule did not make."""
    found: RecordLimit[BackupRecord] = RecordLimit()
    reference = reference_to(schedule)
    async for page in parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, namespace):
        for record in map(record_of, page):
            if is_other(schedule, reference, record):
                found.add(record)
    return found


def is_other(schedule: AnySchedule, reference: str, record: BackupRecord) -> bool:
    """Return whether a backup is unfinished, or the schedule with this reference did not make it."""
    is_own = record.schedule == reference and is_made_by(schedule, record)
    return not is_own or not record.has_ended


def _store_pages(context: Context, namespace: str) -> AsyncIterator[list[BackupStore]]:
    return parsed_pages(context, BackupStore, kinds.BACKUP_STORE, namespace)


async def _bodies(context: Context, kind: Kind, namespace: str) -> AsyncIterator[dict[str, Any]]:
    """Yield objects page by page. After a list has expired, some come again."""
    async for page in context.kube.pages(kind, namespace):
        for body in page or ():
            yield body
        await asyncio.sleep(0)
