"""The part of a schedule's status that concerns its verifications, after they were created or refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.conditions import ConditionStatus, ConditionType
from cinderblock.api.v1alpha1.schedule import AnySchedule, ScheduleVerificationStatus, VerificationTimes
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.schedule.conclude import Conclusion
from cinderblock.lifecycle.schedule.verification.decide import LevelPlan, place_of, turn_of
from cinderblock.lifecycle.schedule.verification.rules import LevelRule
from cinderblock.lifecycle.schedule.volumes import ClaimRecord
from cinderblock.reasons import AnyReason, Reason

RETRY: Final = timedelta(seconds=60)
"""Delay before a verification is tried again that was refused, or that waits for others to end."""
CREATING: Final = "The schedule creates verifications"


@dataclass(frozen=True, slots=True)
class Verified:
    """The verifications of a schedule after one reconciliation.

    Attributes:
        status: status.verification of the schedule; None: it has no verification.
        problem: why some could not be created or removed, or why none is; None: nothing was tried.
        reason: the reason of a problem.
        requeue_after: seconds until the next reconciliation; None: none is needed.
    """

    status: ScheduleVerificationStatus | None
    problem: str | None = None
    reason: AnyReason = Reason.VERIFICATIONS_REFUSED
    requeue_after: float | None = None


def invalid(schedule: AnySchedule, error: InvalidInput) -> Verified:
    """Return the result for rules with an error. Backups and retention continue."""
    status = schedule.status.verification or ScheduleVerificationStatus()
    return Verified(status, error.message, error.reason)


def overfull_problem(namespaces: Collection[str]) -> str:
    """Return what is wrong if namespaces have too many BackupVerifications to be read; empty: none has."""
    if not namespaces:
        return ""
    others = f" and {len(namespaces) - 1} others" if len(namespaces) > 1 else ""
    return (
        f"No verification is created in namespace {min(namespaces)}{others}: the schedule has too many"
        " BackupVerifications to be read, and most of them are there. Find out who creates them, or use several"
        " schedules"
    )


def idle(schedule: AnySchedule, rules: Sequence[LevelRule], now: datetime) -> Verified:
    """Return the result if no time is due. A refusal is shown until the next attempt."""
    result = conclude(schedule, [LevelPlan(rule, rule.times(schedule, now)) for rule in rules], {}, "", now)
    shown = schedule.status.conditions
    is_refused = any(
        c.type == ConditionType.VERIFICATIONS_CREATED and c.reason == Reason.VERIFICATIONS_REFUSED for c in shown
    )
    return replace(result, problem=None) if is_refused else result


def conclude(
    schedule: AnySchedule,
    plans: Sequence[LevelPlan],
    created: Mapping[VerificationLevel, Collection[ClaimRecord]],
    problem: str,
    now: datetime,
) -> Verified:
    """Return the result of one reconciliation.

    Args:
        schedule: the schedule.
        plans: the decision about each level.
        created: the volumes of each level whose verifications exist now.
        problem: the first refusal, or why namespaces are left out; empty: neither.
        now: the present.
    """
    if schedule.spec.verification is None:
        return Verified(None)
    levels, instants = dict[str, VerificationTimes](), list[datetime]()
    for plan in plans:
        made = created.get(plan.rule.level, ())
        levels[plan.rule.field], at = _level(schedule, plan, made, now)
        instants += [at] if at is not None else []
    following = min(instants, default=None)
    seconds = max(0.1, (following - now).total_seconds()) if following is not None else None
    return Verified(ScheduleVerificationStatus.model_validate(levels), problem, requeue_after=seconds)


def _level(
    schedule: AnySchedule, plan: LevelPlan, made: Collection[ClaimRecord], now: datetime
) -> tuple[VerificationTimes, datetime | None]:
    """Return the status of a level, and when to reconcile it again."""
    rule, at = plan.rule, plan.times
    has_all = plan.is_dealt_with and len(made) >= plan.wanted
    is_done = at.due is not None and has_all
    following = None if schedule.spec.suspend else rule.cron.next_after(max(now, at.base))
    status = VerificationTimes(
        observed_times=at.observed,
        effective_since=at.effective_since,
        last_schedule_time=at.due if is_done else at.watermark,
        next_schedule_time=following,
        last_place=rule.recorded(schedule).last_place,
    )
    chosen = (*plan.made, *made)
    if is_done and rule.volumes is not None and chosen:
        last = max(chosen, key=lambda claim: turn_of(claim, rule, schedule))
        status = status.model_copy(update={"last_place": place_of(last, schedule)})
    if at.due is None or is_done:
        return status, following
    # A full share of unfinished verifications, or a refusal, changes without an event.
    is_held_up = plan.later is None or len(made) < plan.wanted
    return status, now + RETRY if is_held_up or plan.later is None else plan.later


def with_verification(conclusion: Conclusion, schedule: AnySchedule, verified: Verified, now: datetime) -> Conclusion:
    """Return a conclusion with the result of verifications."""
    shown, events = conclusion.status.conditions, conclusion.events
    if verified.status is None:
        shown = conditions.without(shown, ConditionType.VERIFICATIONS_CREATED)
    elif verified.problem is not None:
        state: ConditionStatus = "False" if verified.problem else "True"
        reason = verified.reason if verified.problem else Reason.VERIFICATIONS_CREATED
        message = verified.problem or CREATING
        before = next((c for c in schedule.status.conditions if c.type == ConditionType.VERIFICATIONS_CREATED), None)
        if verified.problem and (before is None or before.reason != reason):
            events = (*events, RecordEvent("Warning", reason, message))
        shown = conditions.with_lasting(
            shown,
            now,
            schedule.metadata.generation,
            kind=ConditionType.VERIFICATIONS_CREATED,
            status=state,
            reason=reason,
            message=message,
        )
    delays = [seconds for seconds in (conclusion.requeue_after, verified.requeue_after) if seconds is not None]
    status = conclusion.status.model_copy(update={"verification": verified.status, "conditions": shown})
    return replace(conclusion, status=status, events=events, requeue_after=min(delays, default=None))
