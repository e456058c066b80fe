"""Conditions of an operation in progress, done, or failed (kstatus: Reconciling and Stalled only while true)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType
from cinderblock.reasons import AnyReason

LASTING: Final = frozenset(
    {
        ConditionType.COMPLETE,
        ConditionType.PIN_REGAINED,
        ConditionType.PINNED,
        ConditionType.SUSPICIOUS,
        ConditionType.STORES_CREATED,
        ConditionType.UNSEALED_BACKUPS,
        ConditionType.VERIFIED,
        ConditionType.VERSIONED,
        ConditionType.OBJECT_LOCK,
        ConditionType.HARMFUL_LIFECYCLE,
        ConditionType.IMPORTED,
        ConditionType.COPIED,
        ConditionType.MANIFEST_MISSING,
        ConditionType.NAMESPACES_ABSENT,
        ConditionType.FOREIGN_OWNER,
        ConditionType.LAST_RUN_SUCCEEDED,
        ConditionType.SELECTING,
        ConditionType.RETENTION_APPLIED,
        ConditionType.VERIFICATIONS_CREATED,
    }
)
"""Conditions that describe stored data and its container, or the runs of a schedule, not an operation. `reconciling`,
`ready` and `stalled` keep them from ``before``, because only a reconciliation that reads the manifest, the rules or the
volumes can determine them again."""


@dataclass(frozen=True, slots=True)
class UntimedCondition:
    """A condition without its type and its times, which depend on the condition before it."""

    status: ConditionStatus
    reason: AnyReason
    message: str


def reconciling(
    before: list[Condition], now: datetime, generation: int, reason: AnyReason, message: str
) -> list[Condition]:
    """Return the conditions of an operation in progress: Ready is False and Reconciling is True."""
    return [
        _condition(before, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(
            before, now, generation, kind=ConditionType.RECONCILING, status="True", reason=reason, message=message
        ),
        *_lasting(before),
    ]


def ready(before: list[Condition], now: datetime, generation: int, reason: AnyReason, message: str) -> list[Condition]:
    """Return the conditions of an operation that succeeded: Ready is True."""
    shown = _condition(before, now, generation, kind=ConditionType.READY, status="True", reason=reason, message=message)
    return [shown, *_lasting(before)]


def stalled(
    before: list[Condition], now: datetime, generation: int, reason: AnyReason, message: str
) -> list[Condition]:
    """Return the conditions of an operation that failed or needs help: Ready is False and Stalled is True."""
    return [
        _condition(before, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(before, now, generation, kind=ConditionType.STALLED, status="True", reason=reason, message=message),
        *_lasting(before),
    ]


def with_lasting(
    shown: list[Condition],
    now: datetime,
    generation: int,
    *,
    kind: ConditionType,
    status: ConditionStatus,
    reason: AnyReason,
    message: str,
) -> list[Condition]:
    """Return ``shown`` with one LASTING condition added or replaced.

    Args:
        shown: the conditions that `reconciling`, `ready` or `stalled` returned.
        now: the instant of the decision.
        generation: the generation that the condition is about.
        kind: one of LASTING.
        status: whether the condition holds.
        reason: the reason of the condition.
        message: its message for a person.
    """
    added = _condition(shown, now, generation, kind=kind, status=status, reason=reason, message=message)
    return [*(condition for condition in shown if condition.type != kind), added]


def without(shown: list[Condition], kind: ConditionType) -> list[Condition]:
    """Return ``shown`` without the conditions of this type."""
    return [condition for condition in shown if condition.type != kind]


def waiting_since(before: list[Condition], reason: str) -> datetime | None:
    """Return since when condition Reconciling has had this reason; None if it has another one."""
    return next(
        (c.last_transition_time for c in before if c.type == ConditionType.RECONCILING and c.reason == reason), None
    )


def ended_at(before: list[Condition]) -> datetime | None:
    """Return since when an operation has been stalled, or else ready; None if it is neither."""
    ends = {c.type: c.last_transition_time for c in before if c.status == "True"}
    return ends.get(ConditionType.STALLED) or ends.get(ConditionType.READY)


def _lasting(before: list[Condition]) -> list[Condition]:
    return [condition for condition in before if condition.type in LASTING]


def _condition(
    before: list[Condition],
    now: datetime,
    generation: int,
    *,
    kind: ConditionType,
    status: ConditionStatus,
    reason: AnyReason,
    message: str,
) -> Condition:
    """Return a condition that keeps its transition time while its status does not change.

    The transition time of Reconciling changes with its reason as well: it is the start of the present wait.
    """
    previous = next((c for c in before if c.type == kind), None)
    is_unchanged = (
        previous is not None
        and previous.status == status
        and (kind != ConditionType.RECONCILING or previous.reason == reason)
    )
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=previous.last_transition_time
        if previous is not None and is_unchanged
        else now.replace(microsecond=0),
        observed_generation=generation,
    )
