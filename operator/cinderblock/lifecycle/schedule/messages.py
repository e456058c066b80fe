"""The sentences about a schedule for people: Events, and messages of conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cinderblock.api.v1alpha1.schedule import BackupScheduleStatus, FailingVolume, RunStatus
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.schedule.runs import Result, State
from cinderblock.lifecycle.schedule.times import Times
from cinderblock.reasons import Reason

NAMED: Final = 5
"""Volumes that an Event names."""
SCHEDULED: Final = "The schedule makes backups"
SUSPENDED: Final = "The schedule is suspended and makes no backups"
NO_VOLUMES: Final = (
    "The schedule selects no volume. Check its selectors, its storage classes, and the annotations of the claims."
)


_WITHOUT_BACKUP: Final = frozenset({State.NO_STORE, State.NAME_TAKEN})
NOBODY_OPTED_IN: Final = 'The schedule selects no volume: no claim has the annotation cinderblock.io/backup: "true".'


def is_complete(run: RunStatus, *, may_be_empty: bool = False) -> bool:
    """Return whether a run has made a backup of every volume.

    A run without volumes is complete only if owners decide about their volumes, and none has asked (spec.optIn).
    """
    return run.succeeded == run.volumes and (run.volumes > 0 or may_be_empty)


def counts(run: RunStatus) -> str:
    """Return the counts of a run in one sentence."""
    unfinished = run.volumes - run.succeeded - run.failed - run.skipped - run.missed
    parts = [(run.failed, "failed"), (run.skipped, "skipped"), (run.missed, "missed"), (unfinished, "unfinished")]
    rest = "".join(f", {number} {word}" for number, word in parts if number)
    return f"The run {run.name} has backed up {run.succeeded} of {_volumes(run.volumes)}{rest}."


def begun(run: RunStatus) -> RecordEvent:
    """Return the Event of a run that begins."""
    return RecordEvent("Normal", Reason.RUN_IN_PROGRESS, f"The run {run.name} has begun for {_volumes(run.volumes)}.")


def ended(run: RunStatus, failing: Sequence[FailingVolume], number: int) -> RecordEvent:
    """Return the Event of a run that ends."""
    if is_complete(run) or not run.volumes:
        return RecordEvent("Normal", Reason.RUN_COMPLETED, counts(run))
    named = ", ".join(f"{volume.namespace}/{volume.volume or '*'} ({volume.reason})" for volume in failing[:NAMED])
    among = f" {'Among them' if number > NAMED else 'Failing'}: {named}." if named else ""
    return RecordEvent("Warning", Reason.RUN_INCOMPLETE, counts(run) + among)


def missed_times(number: int, at: Times, *, is_counted: bool) -> RecordEvent:
    """Return the Event about times at which no run began."""
    count = f"{'' if is_counted else 'at least '}{number} scheduled time{'s' * (number != 1)}"
    since = f"{at.past.earlier:%Y-%m-%dT%H:%MZ}"
    note = f"No backups were made for {count} since {since}, because the operator did not run."
    return RecordEvent("Warning", Reason.MISSED, note)


def new_problems(before: BackupScheduleStatus, run: RunStatus, results: Sequence[Result]) -> list[RecordEvent]:
    """Return an Event for each problem of volumes that the status does not show for this run yet."""
    same_run = before.last_run is not None and before.last_run.name == run.name
    known = {volume.reason for volume in before.failing} if same_run else set[str]()
    events: list[RecordEvent] = []
    for reason in (Reason.NO_STORE, Reason.STORE_READ_ONLY, Reason.NAME_TAKEN):
        lacking = [result for result in results if result.state in _WITHOUT_BACKUP and result.reason == reason]
        found = lacking if reason not in known else []
        if found:
            named = ", ".join(f"{result.claim.namespace}/{result.claim.name}" for result in found[:NAMED])
            why = found[0].message
            note = f"{_volumes(len(found))} cannot be backed up: {named}. {why}".rstrip()
            events.append(RecordEvent("Warning", reason, note))
    unreadable = [result for result in results if not result.claim.name and result.message]
    if unreadable and Reason.ACCESS_DENIED not in known:
        namespaces = ", ".join(result.claim.namespace for result in unreadable[:NAMED])
        note = f"No volume of these namespaces is backed up, because the operator may not read them: {namespaces}."
        remedy = "Create its RoleBinding there again with helm upgrade, or remove them from watchNamespaces."
        events.append(RecordEvent("Warning", Reason.ACCESS_DENIED, f"{note} {remedy} {unreadable[0].message}"))
    return events


def _volumes(number: int) -> str:
    return f"{number} volume{'s' * (number != 1)}"
