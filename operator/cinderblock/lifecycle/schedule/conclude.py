"""The status, the Events and the next reconciliation of a schedule, after its VolumeBackups were created or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType
from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupScheduleStatus, RunStatus
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.schedule import failing, messages, names, times
from cinderblock.lifecycle.schedule.creation import Creation
from cinderblock.lifecycle.schedule.decide import JudgedRun, Plan
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.runs import ACTIVE, WAITING, Result, State
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.lifecycle.schedule.times import Times
from cinderblock.reasons import AnyReason, Reason

MIN_PACE: Final = timedelta(seconds=5)
MAX_PACE: Final = timedelta(seconds=60)
READ_PER_SECOND: Final = 500
"""Claims and backups that delay the next reconciliation by one second. Reading 500 takes 0.05 s of processor time."""
WAITING_PACE: Final = 10
"""A run whose backups are only waited for is checked again after this part of its age."""
MAX_WAITING_PACE: Final = timedelta(minutes=5)
REFUSED_PACE: Final = timedelta(seconds=30)
"""Delay before a creation is repeated that the API server refused."""
IDLE_PACE: Final = timedelta(hours=1)
"""The longest delay: clocks may be set."""


_SKIPPED: Final = (State.SKIPPED, State.NO_STORE, State.NO_ACCESS, State.NAME_TAKEN)
"""States that a status counts as skipped."""


class OutcomeKind(StrEnum):
    """Result of a creation."""

    CREATED = "created"
    """The VolumeBackup exists: it was created now, or by a reconciliation whose result was lost."""
    NAME_TAKEN = "nameTaken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a creation.

    Attributes:
        kind: what came of it.
        reason, message: of a refusal.
    """

    kind: OutcomeKind
    reason: AnyReason | str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of reconciling a schedule.

    Attributes:
        status: the status to write.
        events: the Events to record.
        requeue_after: seconds until the next reconciliation; None: not before the schedule changes.
        missed: number of scheduled times of which volumes were missed.
        skipped: number of volumes that were skipped.
    """

    status: BackupScheduleStatus
    events: tuple[RecordEvent, ...] = ()
    requeue_after: float | None = None
    missed: int = 0
    skipped: int = 0


def invalid(schedule: AnySchedule, error: InvalidInput, now: datetime) -> Conclusion:
    """Return the conclusion about a schedule with an error in its spec. Its last run stays in its status."""
    status, generation = schedule.status, schedule.metadata.generation
    shown = conditions.stalled(status.conditions, now, generation, error.reason, error.message)
    is_known = any(c.type == ConditionType.READY and c.reason == error.reason for c in status.conditions)
    events = () if is_known else (RecordEvent("Warning", error.reason, error.message),)
    updated = status.model_copy(
        update={"observed_generation": generation, "conditions": shown, "next_schedule_time": None}
    )
    return Conclusion(updated, events)


def idle(schedule: AnySchedule, settings: Settings, at: Times, now: datetime) -> Conclusion:
    """Return the conclusion about a schedule that only waits for its next time."""
    following = _next_time(schedule, settings, at, now)
    status = schedule.status.model_copy(
        update={
            "observed_generation": schedule.metadata.generation,
            "conditions": _with_ready(schedule, now),
            "last_completed_time": times.last_completed(schedule, now),
            **_recorded(at),
            "next_schedule_time": following,
        }
    )
    return Conclusion(status, requeue_after=_seconds_until(following, now))


def conclude(observed: ObservedSchedule, plan: Plan, outcomes: Mapping[Creation, Outcome], now: datetime) -> Conclusion:
    """Return the conclusion about a schedule.

    Args:
        observed: what was observed.
        plan: the decision.
        outcomes: what came of the creations. One that was not tried is missing, and is repeated.
        now: the present.
    """
    return _Conclusion(observed, plan, _applied(plan, outcomes), now).make()


def _applied(plan: Plan, outcomes: Mapping[Creation, Outcome]) -> tuple[JudgedRun, ...]:
    """Return the runs with what came of the creations."""
    by_volume = {(creation.run, creation.claim.uid): (creation, outcome) for creation, outcome in outcomes.items()}
    applied: list[JudgedRun] = []
    for judged in plan.runs:
        results = [
            _after(result, *by_volume[judged.run.names.run, result.claim.uid])
            if result.state is State.DUE and (judged.run.names.run, result.claim.uid) in by_volume
            else result
            for result in judged.results
        ]
        applied.append(replace(judged, results=tuple(results)))
    return tuple(applied)


def _after(result: Result, creation: Creation, outcome: Outcome) -> Result:
    match outcome.kind:
        case OutcomeKind.CREATED:
            return replace(
                result, state=State.RUNNING, reason="", message="", backup=creation.name, attempts=result.attempts + 1
            )
        case OutcomeKind.NAME_TAKEN:
            return replace(result, state=State.NAME_TAKEN, reason=Reason.NAME_TAKEN, message=outcome.message)
        case OutcomeKind.REFUSED:
            return replace(result, state=State.REFUSED, reason=outcome.reason, message=outcome.message)


@dataclass(slots=True)
class _Conclusion:
    """Makes one conclusion."""

    observed: ObservedSchedule
    plan: Plan
    runs: tuple[JudgedRun, ...]
    now: datetime
    events: list[RecordEvent] = field(default_factory=list)
    missed: int = 0
    skipped: int = 0

    def make(self) -> Conclusion:
        """Return the conclusion."""
        schedule, at = self.observed.schedule, self.plan.times
        completed = times.last_completed(schedule, self.now)
        self._tell_missed_times()
        shown = next((judged for judged in self.runs if judged.run.names.run == self.plan.shown), None)
        watermark = self._watermark()
        following = _next_time(schedule, self.observed.settings, at, self.now)
        update: dict[str, object] = {
            "observed_generation": schedule.metadata.generation,
            "last_run_now": self._last_run_now(),
            "last_completed_time": completed,
            **_recorded(at),
            "last_schedule_time": watermark,
            "next_schedule_time": following,
        }
        conditions_shown = self._with_selecting(_with_ready(schedule, self.now))
        for ended in self._ended_unseen(watermark):
            completed = update["last_completed_time"] = self._end(ended, completed)
        if shown is not None:
            update |= self._show(shown)
            conditions_shown = self._with_last_run(conditions_shown, shown)
        else:
            update |= self._without_unselected()
        update["conditions"] = conditions_shown
        status = schedule.status.model_copy(update=update)
        return Conclusion(status, tuple(self.events), self._requeue_after(following), self.missed, self.skipped)

    # The watermark

    def _watermark(self) -> datetime | None:
        """Return the newest time that was dealt with: the due one, if each of its volumes was."""
        at = self.plan.times
        scheduled = self._of_time(at.due)
        if scheduled is None or self._is_creating(scheduled):
            return at.watermark
        return scheduled.run.time

    def _of_time(self, time: datetime | None) -> JudgedRun | None:
        name = names.of_time(time) if time is not None else None
        return next((judged for judged in self.runs if judged.run.names.run == name), None)

    def _is_creating(self, judged: JudgedRun) -> bool:
        """Return whether first backups of a run are still to be created."""
        run = judged.run
        if not run.creates or run.is_given_up:
            return False
        if run.is_scheduled and self.now < run.time + self.observed.settings.spread:
            return True
        return any(_waits_for_first(result) for result in judged.results)

    def _last_run_now(self) -> str | None:
        """Return the token whose backups were all created."""
        schedule = self.observed.schedule
        before, spec = schedule.status.last_run_now, schedule.spec
        if spec.suspend:
            return before
        requested = [judged for judged in self.runs if judged.run.creates and not judged.run.is_scheduled]
        if any(map(self._is_creating, requested)):
            return before
        return spec.run_now if requested or before is None else before

    # The run that the status shows

    def _show(self, shown: JudgedRun) -> dict[str, object]:
        before = self.observed.schedule.status
        counted = self._counted(shown)
        found, number = failing.update(before.failing, before.failing_volumes or 0, shown.results)
        part: dict[str, object] = {"last_run": counted, "failing": found, "failing_volumes": number}
        if before.last_run is None or before.last_run.name != counted.name:
            self.events.append(messages.begun(counted))
        self.events += messages.new_problems(before, counted, shown.results)
        if not self._goes_on(shown):
            self._count_end(shown, counted)
            self.events.append(messages.ended(counted, found, number))
            if self._is_complete(counted):
                part["last_completed_time"] = self.now.replace(microsecond=0)
        return part

    def _without_unselected(self) -> dict[str, object]:
        """Return the failing volumes without those that the schedule does not select now: its spec may have changed.

        Nothing is known of namespaces that were not read.
        """
        observed, status = self.observed, self.observed.schedule.status
        selects, not_read = observed.settings.selection.selects, observed.unreadable.keys() | observed.crowded
        selected = {(claim.namespace, claim.name) for claim in observed.claims if selects(claim, self.now)}
        kept = selected | {(namespace, "") for namespace, _ in selected}
        named = {(volume.namespace, volume.volume or "") for volume in status.failing}
        gone = {volume for volume in named - kept if volume[0] not in not_read}
        found, number = failing.without(status.failing, status.failing_volumes or 0, gone)
        if not not_read:
            number = min(number, max(len(found), len(selected)))
        return {"failing": found, "failing_volumes": number} if status.failing_volumes else {}

    def _ended_unseen(self, watermark: datetime | None) -> list[JudgedRun]:
        """Return the runs that end now, and that the status does not show: a later one has taken their place.

        A scheduled run that still created backups when another one was requested ends when all are created.
        """
        ended = [self.plan.overtaken] if self.plan.overtaken is not None else []
        due = self._of_time(self.plan.times.due)
        if due is not None and watermark == due.run.time and due.run.names.run != self.plan.shown:
            ended.append(due)
        return ended

    def _end(self, overtaken: JudgedRun, completed: datetime | None) -> datetime | None:
        """Tell how a run ended that another one replaces. Return the time at which a run was last complete."""
        counted = self._counted(overtaken)
        found, number = failing.update((), 0, overtaken.results)
        self._count_end(overtaken, counted)
        self.events.append(messages.ended(counted, found, number))
        return self.now.replace(microsecond=0) if self._is_complete(counted) else completed

    def _count_end(self, judged: JudgedRun, counted: RunStatus) -> None:
        self.missed += judged.run.is_scheduled and counted.missed > 0
        self.skipped += counted.skipped

    def _counted(self, judged: JudgedRun) -> RunStatus:
        """Return the counts of a run. Volumes of which nothing is known keep their earlier counts."""
        last = self.observed.schedule.status.last_run
        before = last if last is not None and last.name == judged.run.names.run else None
        states = Counter(result.state for result in judged.results)
        unknown = states[State.UNKNOWN]
        missed_before = min(unknown, before.missed) if before is not None else 0
        return RunStatus(
            time=judged.run.time,
            name=judged.run.names.run,
            volumes=len(judged.results),
            created=sum(result.attempts for result in judged.results),
            succeeded=states[State.SUCCEEDED],
            failed=states[State.FAILED],
            skipped=sum(states[state] for state in _SKIPPED) + unknown - missed_before,
            missed=states[State.MISSED] + missed_before,
        )

    def _is_complete(self, counted: RunStatus) -> bool:
        return messages.is_complete(counted, may_be_empty=self.observed.settings.selection.opt_in)

    def _goes_on(self, judged: JudgedRun) -> bool:
        return self._is_creating(judged) or any(result.state in ACTIVE for result in judged.results)

    def _with_last_run(self, shown: list[Condition], judged: JudgedRun) -> list[Condition]:
        counted = self._counted(judged)
        state: ConditionStatus
        if self._goes_on(judged):
            state, reason = "Unknown", Reason.RUN_IN_PROGRESS
        elif self._is_complete(counted):
            state, reason = "True", Reason.RUN_COMPLETED
        else:
            state, reason = "False", Reason.RUN_INCOMPLETE if counted.volumes else Reason.NO_VOLUMES
        message = messages.counts(counted)
        refused = next((r.message for r in judged.results if r.reason == Reason.STORE_READ_ONLY and r.message), None)
        if state == "False" and refused is not None:
            reason, message = Reason.STORE_READ_ONLY, f"{message} {refused}"
        return conditions.with_lasting(
            shown,
            self.now,
            self.observed.schedule.metadata.generation,
            kind=ConditionType.LAST_RUN_SUCCEEDED,
            status=state,
            reason=reason,
            message=message,
        )

    # Further conditions and Events

    def _with_selecting(self, shown: list[Condition]) -> list[Condition]:
        observed, settings = self.observed, self.observed.settings
        number = sum(settings.selection.selects(claim, self.now) for claim in observed.claims)
        before = next((c for c in shown if c.type == ConditionType.SELECTING), None)
        if not number and (before is None or before.status == "True"):
            severity: Literal["Normal", "Warning"] = "Normal" if settings.selection.opt_in else "Warning"
            self.events.append(RecordEvent(severity, Reason.NO_VOLUMES, _selected(settings, number)))
        return with_selecting(shown, observed.schedule, settings, number, self.now)

    def _tell_missed_times(self) -> None:
        """Tell once which times were missed entirely: when the run of a later time begins."""
        at = self.plan.times
        if at.due is None or self.plan.shown != names.of_time(at.due) or at.past.earlier is None:
            return
        last = self.observed.schedule.status.last_run
        if last is not None and last.name == self.plan.shown:
            return
        overtaken = self.plan.overtaken is not None and at.base < self.plan.overtaken.run.time
        number = at.past.count - overtaken
        if number > 0:
            self.missed += number
            self.events.append(messages.missed_times(number, at, is_counted=at.past.is_counted))

    # The next look

    def _requeue_after(self, following: datetime | None) -> float | None:
        now, instants = self.now, [following] if following is not None else []
        size = len(self.observed.claims) + self.observed.backups.count
        pace = min(MAX_PACE, max(MIN_PACE, timedelta(seconds=size / READ_PER_SECOND)))
        for judged in self.runs:
            states = {result.state for result in judged.results}
            if State.DUE in states and self.plan.creations:
                instants.append(now + pace)
            elif states & {State.DUE, State.RUNNING}:
                instants.append(now + min(MAX_WAITING_PACE, max(pace, (now - judged.run.time) / WAITING_PACE)))
            if State.REFUSED in states:
                instants.append(now + max(pace, REFUSED_PACE))
            later = [result.at for result in judged.results if result.at is not None]
            if later:
                instants.append(max(now + pace, min(later)))
            if self._is_creating(judged) and judged.run.is_scheduled:
                end = judged.run.time + self.observed.settings.spread
                instants.append(max(now + pace, end))
        return _seconds_until(min(instants, default=None), now)


def with_selecting(
    shown: list[Condition], schedule: AnySchedule, settings: Settings, number: int, now: datetime
) -> list[Condition]:
    """Add the condition that tells how many volumes a schedule selects."""
    return conditions.with_lasting(
        shown,
        now,
        schedule.metadata.generation,
        kind=ConditionType.SELECTING,
        status="True" if number else "False",
        reason=Reason.VOLUMES_SELECTED if number else Reason.NO_VOLUMES,
        message=_selected(settings, number),
    )


def _selected(settings: Settings, number: int) -> str:
    nothing = messages.NOBODY_OPTED_IN if settings.selection.opt_in else messages.NO_VOLUMES
    return f"The schedule selects {number} volume{'s' * (number != 1)}." if number else nothing


def _waits_for_first(result: Result) -> bool:
    return result.state in WAITING and not result.attempts


def _recorded(at: Times) -> dict[str, object]:
    return {
        "observed_times": at.observed,
        "effective_since": at.effective_since,
        "last_schedule_time": at.watermark,
    }


def _with_ready(schedule: AnySchedule, now: datetime) -> list[Condition]:
    before, generation = schedule.status.conditions, schedule.metadata.generation
    if schedule.spec.suspend:
        return conditions.ready(before, now, generation, Reason.SUSPENDED, messages.SUSPENDED)
    return conditions.ready(before, now, generation, Reason.SCHEDULED, messages.SCHEDULED)


def _next_time(schedule: AnySchedule, settings: Settings, at: Times, now: datetime) -> datetime | None:
    return None if schedule.spec.suspend else settings.cron.next_after(max(now, at.base))


def _seconds_until(instant: datetime | None, now: datetime) -> float | None:
    if instant is None:
        return None
    return min(IDLE_PACE, max(timedelta(milliseconds=100), instant - now)).total_seconds()
