"""Changes of the status of a BackupStore by one step of its copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cinderblock.api.conditions import ConditionType
from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus, CopyMover, CopyRule, CopyStatus
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Decision
from cinderblock.lifecycle.conditions import UntimedCondition
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """Changes of the status of a BackupStore by one step of its copies.

    Attributes:
        copies: status.copyTargets.
        mover: status.copyMover.
        condition: the condition Copied; None: as before.
        is_off: whether nothing is copied, so that there is no condition.
        requeue_after: seconds until the next step; None: not before the BackupStore changes.
    """

    copies: Sequence[CopyStatus] = ()
    mover: CopyMover | None = None
    condition: UntimedCondition | None = None
    is_off: bool = False
    requeue_after: float | None = None


def status_of(store: BackupStore, name: str) -> CopyStatus:
    """Return what is known about the copies in a store of spec.copies."""
    return next(
        (known for known in store.status.copy_targets or () if known.store_name == name), CopyStatus(store_name=name)
    )


def replaced(copies: Sequence[CopyStatus], known: CopyStatus) -> list[CopyStatus]:
    """Return status.copyTargets with what is known about one store in place of what was."""
    return [known if status.store_name == known.store_name else status for status in copies]


def is_late(rule: CopyRule, status: CopyStatus, now: datetime) -> bool:
    """Return whether a backup has waited for its copy for too long."""
    return status.oldest_pending is not None and now - status.oldest_pending > _late_after(rule)


def _late_after(rule: CopyRule) -> timedelta:
    return parse_long_duration(rule.late_after)


def condition_of(
    rules: Sequence[CopyRule], copies: Sequence[CopyStatus], refusals: dict[str, Fail], now: datetime
) -> UntimedCondition:
    """Return the condition Copied. The worst that is known about any store decides.

    Args:
        rules: spec.copies.
        copies: status.copyTargets.
        refusals: why stores cannot get copies, by name.
        now: the instant of the decision.
    """
    by_name = {status.store_name: status for status in copies}
    known = [(rule, by_name.get(rule.store_name, CopyStatus(store_name=rule.store_name))) for rule in rules]
    for rule in rules:
        refused = refusals.get(rule.store_name)
        if refused is not None:
            return UntimedCondition("False", refused.reason, refused.message)
    for rule, status in known:
        if is_late(rule, status, now):
            message = f"{_waiting(status)} The first one has waited for longer than {rule.late_after}."
            return UntimedCondition("False", Reason.COPIES_LATE, message + _cause(status))
    for _, status in known:
        if status.pending:
            return UntimedCondition("False", Reason.COPYING, _waiting(status) + _cause(status))
    names = ", ".join(rule.store_name for rule in rules)
    return UntimedCondition("True", Reason.COPIED, f"Each available backup has a verified copy in {names}")


def _waiting(status: CopyStatus) -> str:
    total, name = status.copied + status.pending, status.store_name
    unlocked = f" It has not locked {status.unlocked} more copies." if status.unlocked else ""
    return f"BackupStore {name} has copies of {status.copied} of {total} available backups.{unlocked}"


def _cause(status: CopyStatus) -> str:
    failed = f" The copies of {status.failed} backups failed: see their status.copies." if status.failed else ""
    return f"{failed} Last failure: {status.fail_reason}" if status.fail_reason else failed


def with_copies(decision: Decision, outcome: CopyOutcome, generation: int, now: datetime) -> Decision:
    """Return the decision about a BackupStore with what its copies change."""
    status = decision.status
    if not isinstance(status, BackupStoreStatus):
        return decision
    shown = status.conditions
    if outcome.is_off:
        shown = conditions.without(shown, ConditionType.COPIED)
    elif outcome.condition is not None:
        condition = outcome.condition
        shown = conditions.with_lasting(
            shown,
            now,
            generation,
            kind=ConditionType.COPIED,
            status=condition.status,
            reason=condition.reason,
            message=condition.message,
        )
    else:
        # Always at the end, so that its place alone never changes the status.
        kept = [condition for condition in shown if condition.type == ConditionType.COPIED]
        shown = [*conditions.without(shown, ConditionType.COPIED), *kept]
    update = {"conditions": shown, "copy_targets": list(outcome.copies) or None, "copy_mover": outcome.mover}
    delays = [delay for delay in (decision.requeue_after, outcome.requeue_after) if delay is not None]
    return replace(decision, status=status.model_copy(update=update), requeue_after=min(delays, default=None))
