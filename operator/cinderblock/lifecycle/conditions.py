"""Conditions from an outcome: working, done, or failed (kstatus: Reconciling and Stalled only while they are true)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType

LASTING: Final = frozenset(
    {ConditionType.COMPLETE, ConditionType.PIN_REGAINED, ConditionType.PINNED, ConditionType.UNSEALED_BACKUPS}
)
"""Conditions that describe stored data, not an operation. `working`, `ready` and `stalled` keep them from ``old``:
a look that has not read the manifest cannot find them again."""


def reconciling(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation goes on: Ready is False and Reconciling is True."""
    return [
        _condition(old, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(old, now, generation, kind=ConditionType.RECONCILING, status="True", reason=reason, message=message),
        *_lasting(old),
    ]


def ready(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation ended well: Ready is True."""
    shown = _condition(old, now, generation, kind=ConditionType.READY, status="True", reason=reason, message=message)
    return [shown, *_lasting(old)]


def stalled(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation failed, or cannot go on without help: Ready is False and Stalled is True."""
    return [
        _condition(old, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(old, now, generation, kind=ConditionType.STALLED, status="True", reason=reason, message=message),
        *_lasting(old),
    ]


def with_lasting(
    shown: list[Condition],
    now: datetime,
    generation: int,
    *,
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
) -> list[Condition]:
    """Return ``shown`` with one LASTING condition added, or set to what it says now.

    Args:
        shown: what `working`, `ready` or `stalled` returned.
        now: the instant of the decision.
        generation: the generation that the condition is about.
        kind: one of LASTING.
        status: whether the condition holds.
        reason: a stable CamelCase word.
        message: the same for a person.
    """
    added = _condition(shown, now, generation, kind=kind, status=status, reason=reason, message=message)
    return [*(condition for condition in shown if condition.type != kind), added]


def without(shown: list[Condition], kind: ConditionType) -> list[Condition]:
    """Return ``shown`` without the condition of a type, which no longer holds."""
    return [condition for condition in shown if condition.type != kind]


def waiting_since(old: list[Condition], reason: str) -> datetime | None:
    """When ``reason`` was first reported as what is awaited, if it is what was reported last."""
    return next(
        (c.last_transition_time for c in old if c.type == ConditionType.RECONCILING and c.reason == reason), None
    )


def _lasting(old: list[Condition]) -> list[Condition]:
    return [condition for condition in old if condition.type in LASTING]


def _condition(
    old: list[Condition],
    now: datetime,
    generation: int,
    *,
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
) -> Condition:
    """A condition that keeps its transition time as long as it says the same.

    Reconciling moves its transition time with its reason as well: it is since when *this* has been awaited.
    """
    before = next((c for c in old if c.type == kind), None)
    same = (
        before is not None
        and before.status == status
        and (kind != ConditionType.RECONCILING or before.reason == reason)
    )
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=before.last_transition_time if before is not None and same else now.replace(microsecond=0),
        observed_generation=generation,
    )
