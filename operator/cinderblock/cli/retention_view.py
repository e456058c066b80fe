"""Plans of retention as the command line prints them."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.cli.output import format_time
from cinderblock.lifecycle.backup_times import data_time
from cinderblock.lifecycle.retention.verdict import Judgement, RetentionPlan, Step, Verdict

HEADINGS: Final = ("VOLUME", "BACKUP", "TIME", "VERDICT", "EXPIRES", "WHY")
"""Headings of `row`."""

_WHY: Final = {
    Judgement.IMPORTED: "imported",
    Judgement.RETAINED: "deletionPolicy Retain",
    Judgement.DELETING: "is being deleted",
    Judgement.LOCKED: "is being deleted, but locked in the store",
    Judgement.READ_ONLY: "its store is read-only",
    Judgement.UNFINISHED: "not finished",
    Judgement.FORGOTTEN: "its status was lost",
    Judgement.CLOCK_BEHIND: "the clock of this machine is behind",
    Judgement.HELD: "held",
    Judgement.OBJECT_LOCK: "locked in the store",
    Judgement.IN_USE: "in use",
    Judgement.LAST_WHOLE: "last complete",
    Judgement.LAST_INTACT: "last intact",
    Judgement.LAST_UNALARMED: "last before an alarm",
    Judgement.OPEN_ALARM: "open alarm",
    Judgement.LAST_VERIFIED: "last verified",
    Judgement.FUTURE: "from the future",
    Judgement.RETRYING: "its run retries",
    Judgement.MIN_AGE: "younger than minAge",
    Judgement.FROZEN: "frozen by an alarm",
    Judgement.RULES: "",
    Judgement.NO_RULES: "there are no rules",
    Judgement.FAILED_LAST: "failed.last",
    Judgement.GONE: "its volume is gone",
    Judgement.MAX_AGE: "older than maxAge",
    Judgement.FAILED: "failed",
    Judgement.EXPIRED: "no rule",
}


def why(verdict: Verdict) -> str:
    """Return the reasons of a verdict, the deciding one first, such as ``last complete, daily 1``."""
    first = _WHY[verdict.judgement]
    return ", ".join(filter(None, (first, *verdict.rules, "maxPerDay" if verdict.is_braked else "")))


def verdict_word(verdict: Verdict) -> str:
    """Return what happens to a backup in one word."""
    if verdict.judgement.keeps:
        return "keep"
    if verdict.step is Step.REMOVE:
        return "remove"
    return "expire" if verdict.expires_at is not None else "wait"


def row(verdict: Verdict, *, has_marks: bool) -> tuple[str, ...]:
    """Return a verdict as a row of a table.

    Args:
        verdict: the verdict.
        has_marks: whether an operator announces the removal.
    """
    backup = verdict.backup
    expires = format_time(verdict.expires_at) if has_marks and verdict.expires_at is not None else ""
    volume = "/".join(filter(None, (backup.namespace, backup.volume_name or backup.volume_id)))
    return volume, backup.name, format_time(data_time(backup)), verdict_word(verdict), expires, why(verdict)


def summary(plan: RetentionPlan) -> str:
    """Return the numbers of a plan in one line."""
    words = [verdict_word(verdict) for verdict in plan.verdicts]
    parts = [f"{words.count('keep')} to keep", f"{words.count('expire') + words.count('remove')} to remove"]
    if plan.status.braked:
        parts.append(f"{plan.status.braked} of all wait because of maxPerDay")
    if plan.status.frozen:
        parts.append(f"{plan.status.frozen} are kept only because of an alarm")
    return ", ".join(parts)


def to_wire(title: str, plan: RetentionPlan, *, has_marks: bool) -> dict[str, Any]:
    """Return a plan as JSON."""
    words = [verdict_word(verdict) for verdict in plan.verdicts]
    return {
        "of": title,
        "summary": {word: words.count(word) for word in ("keep", "expire", "wait", "remove")}
        | {"frozen": plan.status.frozen, "braked": plan.status.braked},
        "backups": [_verdict_to_wire(verdict, has_marks=has_marks) for verdict in plan.verdicts],
    }


def _verdict_to_wire(verdict: Verdict, *, has_marks: bool) -> dict[str, Any]:
    backup = verdict.backup
    wire: dict[str, Any] = {
        "namespace": backup.namespace,
        "name": backup.name,
        "id": backup.backup_id,
        "volumeId": backup.volume_id,
        "volumeName": backup.volume_name,
        "dataTimestamp": data_time(backup).isoformat(),
        "verdict": verdict_word(verdict),
        "judgement": verdict.judgement.value,
        "rules": list(verdict.rules),
        "why": why(verdict),
    }
    if has_marks and verdict.expires_at is not None:
        wire["expiresAt"] = verdict.expires_at.isoformat()
    return wire
