"""The result of retention, as part of the status of its schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.retention import RetentionStatus
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import RecordEvent
from cinderblock.lifecycle.schedule.conclude import Conclusion
from cinderblock.reasons import Reason

_FROZEN = (
    " Kept only because a newer backup is suspicious: {count}. Inspect the suspicious backup. If all is well, accept it"
    " with the annotation cinderblock.io/accept."
)


@dataclass(frozen=True, slots=True)
class RetentionProblem:
    """Why retention is not applied, or not in all namespaces."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Retained:
    """The result of one pass of retention.

    Attributes:
        status: status.retention of the schedule; None: it has none.
        refused: refusals by the API server; None: nothing was tried.
        problem: what matters more than these; None: there is nothing.
        requeue_after: seconds until the next pass; None: none is needed.
        left: namespace and UID of the volume of each action that the pass had no time for. Volumes that are gone are
            left out.
    """

    status: RetentionStatus | None
    refused: tuple[str, ...] | None = None
    requeue_after: float | None = None
    problem: RetentionProblem | None = None
    left: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> RetentionProblem | None:
        """The problem that the condition RetentionApplied shows."""
        return self.problem or (RetentionProblem(Reason.RULES_REFUSED, self.refused[0]) if self.refused else None)


def combined(parts: Sequence[Retained]) -> Retained:
    """Return the result of one pass that judged its backups in several parts. At least one is required.

    A part that judged nothing, for example because clocks differ, stands for all: the numbers of the others are not
    those of the schedule.
    """
    unjudged = next((part for part in parts if part.refused is None), None)
    if unjudged is not None:
        return unjudged
    found = [part.status for part in parts if part.status is not None]
    numbers = {name: sum(getattr(status, name) for status in found) for name in _NUMBERS}
    removals = [status.last_removal_time for status in found if status.last_removal_time is not None]
    update = numbers | {"last_removal_time": max(removals, default=None)}
    delays = [part.requeue_after for part in parts if part.requeue_after is not None]
    return Retained(
        found[0].model_copy(update=update) if found else None,
        tuple(refusal for part in parts for refusal in part.refused or ()),
        min(delays, default=None),
        next((part.problem for part in parts if part.problem is not None), None),
        tuple(volume for part in parts for volume in part.left),
    )


_NUMBERS = ("kept", "expiring", "frozen", "braked", "left_out")


def with_retention(conclusion: Conclusion, schedule: AnySchedule, retained: Retained, now: datetime) -> Conclusion:
    """Return a conclusion with the result of retention."""
    shown = conclusion.status.conditions
    events = conclusion.events
    problem = retained.shown
    if retained.status is None and problem is None:
        shown = conditions.without(shown, ConditionType.RETENTION_APPLIED)
    elif retained.refused is not None or problem is not None:
        reason = problem.reason if problem is not None else Reason.RULES_APPLIED
        message = problem.message if problem is not None else _counts(retained.status)
        if problem is not None and not _is_shown(schedule, reason):
            events = (*events, RecordEvent("Warning", reason, message))
        shown = conditions.with_lasting(
            shown,
            now,
            schedule.metadata.generation,
            kind=ConditionType.RETENTION_APPLIED,
            status="True" if problem is None else "False",
            reason=reason,
            message=message,
        )
    delays = [seconds for seconds in (conclusion.requeue_after, retained.requeue_after) if seconds is not None]
    status = conclusion.status.model_copy(update={"retention": retained.status, "conditions": shown})
    return replace(conclusion, status=status, events=events, requeue_after=min(delays, default=None))


def _counts(status: RetentionStatus | None) -> str:
    if status is None:
        return ""
    frozen = _FROZEN.format(count=status.frozen) if status.frozen else ""
    left_out = f" Left for the next pass: {status.left_out}." if status.left_out else ""
    return f"Backups kept: {status.kept}. Backups that expire: {status.expiring}.{left_out}{frozen}"


def _is_shown(schedule: AnySchedule, reason: Reason) -> bool:
    shown = schedule.status.conditions
    return any(c.type == ConditionType.RETENTION_APPLIED and c.reason == reason for c in shown)
