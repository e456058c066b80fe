"""One run of a schedule: what became of each volume, and which backups are to be created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cinderblock.api.v1alpha1.schedule import Overlap
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.schedule.names import BackupNames, is_too_early
from cinderblock.lifecycle.schedule.observed import ObservedSchedule, is_unfinished
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.lifecycle.schedule.volumes import ClaimRecord
from cinderblock.reasons import AnyReason, Reason, parse_reason

PARENT_REASONS: Final = frozenset(
    {Reason.NO_PARENT, Reason.PARENT_GONE, Reason.KEY_UNAVAILABLE, Reason.INTEGRITY_ERROR}
)
"""Failures that a parent may have caused. The backup is repeated once as a full one, which needs no parent."""


ACCESS_RETRY: Final = timedelta(minutes=30)
"""For so long, a run tries again to read a namespace that the operator may not read."""


class State(StrEnum):
    """Result for a volume in a run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RUNNING = "running"
    """A backup of the run is being made."""
    DUE = "due"
    """A backup is to be created now."""
    LATER = "later"
    """The volume's place in the run has not come yet."""
    RETRYING = "retrying"
    """The last backup failed, and another one follows."""
    REFUSED = "refused"
    """The API server refused the last creation, which is repeated."""
    SKIPPED = "skipped"
    MISSED = "missed"
    NO_STORE = "noStore"
    """Its namespace has no store, or one that is read-only."""
    NO_ACCESS = "noAccess"
    """The operator may not read the namespace."""
    NAME_TAKEN = "nameTaken"
    UNKNOWN = "unknown"
    """The run creates no more backups, and there is none of this volume: an earlier look told why."""


WAITING: Final = frozenset({State.DUE, State.LATER, State.REFUSED})
"""States in which the first backup of the run is still to be created."""
ACTIVE: Final = WAITING | {State.RUNNING, State.RETRYING}
"""States in which the run continues."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run.

    Attributes:
        names: the names of its backups.
        time: the scheduled time, or when it began.
        is_scheduled: whether it has a scheduled time, so that each volume has a place in it.
        creates: whether backups of volumes without one are created.
        retries: whether failed backups are repeated.
        following: the scheduled time after it began.
        is_given_up: whether no backup is created, because the operator did not run at the time.
        ended: when another run took its place; None: none did.
    """

    names: BackupNames
    time: datetime
    is_scheduled: bool
    creates: bool
    retries: bool
    following: datetime | None
    is_given_up: bool = False
    ended: datetime | None = None

    def is_late(self, settings: Settings, due: datetime, now: datetime) -> bool:
        """Return whether no backup of a volume that was due at an instant is created any more."""
        deadline = self.ended or settings.deadline(due, self.following)
        return self.is_given_up or (deadline is not None and now >= deadline)


@dataclass(frozen=True, slots=True)
class Result:
    """Result for a volume in a run.

    Attributes:
        claim: the volume.
        state: its state.
        reason: why there is no backup; empty if there is one, or will be.
        message: the same for a person; empty if the reason says enough.
        backup: name of the newest backup of the run; empty: there is none.
        attempts: number of backups of the run.
        retry: number of the retry to create; 0: the first backup.
        is_full: whether the backup to create must be full.
        at: when the state may change by time alone; None: not so.
    """

    claim: ClaimRecord
    state: State
    reason: AnyReason | str = ""
    message: str = ""
    backup: str = ""
    attempts: int = 0
    retry: int = 0
    is_full: bool = False
    at: datetime | None = None


def judge(observed: ObservedSchedule, run: Run, now: datetime) -> list[Result]:
    """Return the result of each volume that the run selects."""
    uid, settings = observed.schedule.uid, observed.settings
    results: list[Result] = []
    for claim in observed.claims:
        due = settings.due(claim, uid, run.time) if run.is_scheduled else run.time
        if settings.selection.selects(claim, due):
            results.append(_judge_volume(observed, run, claim, due, now))
    results += [_judge_unreadable(run, *entry, now) for entry in sorted(observed.unreadable.items())]
    results += [_judge_crowded(run, namespace) for namespace in sorted(observed.crowded)]
    return results


def _judge_crowded(run: Run, namespace: str) -> Result:
    """Return the one result of a namespace with too many claims, none of which is backed up."""
    claim = ClaimRecord(namespace, "", "", run.time)
    if not run.creates:
        return Result(claim, State.UNKNOWN)
    return Result(claim, State.SKIPPED, Reason.TOO_MANY_OBJECTS)


def _judge_unreadable(run: Run, namespace: str, why: str, now: datetime) -> Result:
    """Return the one result of a namespace that cannot be read, whose volumes are unknown.

    Rights may come back soon, for example in the middle of an upgrade of the chart.
    """
    claim = ClaimRecord(namespace, "", "", run.time)
    if not run.creates:
        return Result(claim, State.UNKNOWN)
    is_over = run.is_given_up or run.ended is not None or now >= run.time + ACCESS_RETRY
    return Result(claim, State.NO_ACCESS if is_over else State.REFUSED, Reason.ACCESS_DENIED, why)


def _judge_volume(observed: ObservedSchedule, run: Run, claim: ClaimRecord, due: datetime, now: datetime) -> Result:
    records = observed.backups.of(claim)
    attempts = attempts_of(run, claim, records)
    own = {attempt.name for attempt in attempts.values()}
    others = [record for record in records if is_unfinished(record) and record.name not in own]
    may_overlap = observed.schedule.spec.overlap is Overlap.QUEUE or not others
    if attempts:
        result = _of_attempts(claim, attempts)
        may_retry = run.retries and not run.is_late(observed.settings, due, now) and not _read_only(observed, claim)
        if result.state is not State.FAILED or not may_retry:
            return result
        return _with_retry(observed.settings, result, attempts, now, may_create=may_overlap)
    unable = _unable(observed, claim)
    if unable is not None or not run.creates:
        return unable or Result(claim, State.UNKNOWN)
    if run.is_late(observed.settings, due, now):
        return Result(claim, State.MISSED, Reason.MISSED)
    if due > now:
        return Result(claim, State.LATER, at=due)
    return Result(claim, State.DUE) if may_overlap else _skipped(observed.settings, run, claim, others)


def _skipped(settings: Settings, run: Run, claim: ClaimRecord, others: Sequence[BackupRecord]) -> Result:
    """Return the result of a volume that still waits for an earlier backup, which has a reason from the second time on.

    Such a backup may wait without a time limit, for example for its key.
    """
    oldest = min(others, key=lambda record: record.created)
    since = settings.cron.next_after(oldest.created)
    if since is None or since >= run.time:
        return Result(claim, State.SKIPPED)
    return Result(claim, State.SKIPPED, Reason.VOLUME_BUSY, backup=oldest.name)


def _unable(observed: ObservedSchedule, claim: ClaimRecord) -> Result | None:
    """Return the result of a volume whose namespace allows no backup; None: it does."""
    if claim.namespace in observed.overfull:
        return Result(claim, State.SKIPPED, Reason.TOO_MANY_OBJECTS)
    store = observed.stores.get(claim.namespace)
    if store is None or not store.name:
        return Result(claim, State.NO_STORE, Reason.NO_STORE, store.missing if store else "")
    if store.read_only:
        return Result(claim, State.NO_STORE, Reason.STORE_READ_ONLY, store.read_only)
    return None


def _read_only(observed: ObservedSchedule, claim: ClaimRecord) -> bool:
    """Return whether the store of a volume takes no new backups."""
    store = observed.stores.get(claim.namespace)
    return store is not None and bool(store.read_only)


def attempts_of(run: Run, claim: ClaimRecord, records: list[BackupRecord]) -> dict[int, BackupRecord]:
    """Return the backups of a volume in a run, by the number of their retry."""
    if not records:
        return {}
    first = run.names.name(claim.name)
    found: dict[int, BackupRecord] = {}
    for record in records:
        if not is_made_for(record, run.time if run.is_scheduled else None):
            continue
        if record.name == first:
            found[0] = record
        elif record.name.startswith(f"{first}-r") and record.name[len(first) + 2 :].isdecimal():
            found[int(record.name[len(first) + 2 :])] = record
    return found


def is_made_for(record: BackupRecord, scheduled: datetime | None) -> bool:
    """Return whether a backup with the name of an attempt is one. Anybody can compute the names of future runs.

    Args:
        record: the backup.
        scheduled: the scheduled time of the run; None: it was requested, with a word that may be used again.
    """
    if scheduled is None:
        return True
    return record.scheduled_for == scheduled and not is_too_early(record, scheduled)


def _of_attempts(claim: ClaimRecord, attempts: dict[int, BackupRecord]) -> Result:
    """Return what became of the backups of a volume in a run."""
    last = attempts[max(attempts)]
    result = Result(claim, State.FAILED, backup=last.name, attempts=len(attempts))
    if any(attempt.is_complete for attempt in attempts.values()):
        return replace(result, state=State.SUCCEEDED)
    if last.is_being_deleted:
        return replace(result, reason=Reason.DELETED)
    if not last.has_ended:
        return replace(result, state=State.RUNNING)
    return replace(result, reason=parse_reason(last.fail_reason or Reason.UNEXPECTED))


def _with_retry(
    settings: Settings, result: Result, attempts: dict[int, BackupRecord], now: datetime, *, may_create: bool
) -> Result:
    """Return the result of a volume whose last backup failed, with the next one if there is one.

    Whether the parent was the cause shows only a full backup. It is made at once, and is not one of the retries.
    """
    number = max(attempts)
    last, by_parent = attempts[number], [attempt.fail_reason in PARENT_REASONS for attempt in attempts.values()]
    if last.is_being_deleted or number >= settings.retries + any(by_parent):
        return result
    is_first_of_parent = last.fail_reason in PARENT_REASONS and sum(by_parent) == 1
    at = now if is_first_of_parent else (last.ended or last.created) + settings.backoff
    result = replace(result, retry=number + 1, is_full=any(by_parent))
    if now >= at and may_create:
        return replace(result, state=State.DUE)
    return replace(result, state=State.RETRYING, at=at)
