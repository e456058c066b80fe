"""Conditions from an outcome: working, done, or failed (kstatus: Reconciling and Stalled only while they are true)."""

from __future__ import annotations

from datetime import datetime

from cinderblock.model.conditions import Condition, ConditionStatus, ConditionType


def working(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation goes on: Ready is False and Reconciling is True."""
    return [
        _condition(old, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(old, now, generation, kind=ConditionType.RECONCILING, status="True", reason=reason, message=message),
    ]


def ready(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation ended well: Ready is True."""
    return [_condition(old, now, generation, kind=ConditionType.READY, status="True", reason=reason, message=message)]


def stalled(old: list[Condition], now: datetime, generation: int, reason: str, message: str) -> list[Condition]:
    """The operation failed, or cannot go on without help: Ready is False and Stalled is True."""
    return [
        _condition(old, now, generation, kind=ConditionType.READY, status="False", reason=reason, message=message),
        _condition(old, now, generation, kind=ConditionType.STALLED, status="True", reason=reason, message=message),
    ]


def waiting_since(old: list[Condition], reason: str) -> datetime | None:
    """When ``reason`` was first reported as what is awaited, if it is what was reported last."""
    return next(
        (c.last_transition_time for c in old if c.type == ConditionType.RECONCILING and c.reason == reason), None
    )


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
