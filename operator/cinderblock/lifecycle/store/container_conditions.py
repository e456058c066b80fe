"""The conditions of a BackupStore about the rules of its container."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cinderblock.api import layout
from cinderblock.api.conditions import ConditionStatus, ConditionType
from cinderblock.lifecycle.store.container_rules import (
    ContainerRules,
    LifecycleRule,
    ObjectLockRule,
    UnknownRule,
    Versioning,
)
from cinderblock.reasons import AnyReason, Reason

NAMED_RULES: Final = 3
"""Lifecycle rules that a message names at most."""
SHOWN_CHARACTERS: Final = 200
"""Characters of a text of the server in a message at most."""


_LOCK_EFFECT: Final = "a deletion waits, or only hides the data if the container keeps versions"
_LOCK_EFFECTS: Final[Mapping[Versioning | UnknownRule, str]] = {
    Versioning.OFF: "a deletion waits",
    Versioning.ENABLED: "a deletion only hides the data",
}
"""The effect of a lock on a deletion, by versioning."""
_REMOVERS: Final = {
    "COMPLIANCE": "nobody can remove its versions",
    "GOVERNANCE": "only credentials with s3:BypassGovernanceRetention can remove its versions",
}
"""The accounts that can remove a locked version, by the mode of its lock (S3 User Guide, "Retention modes")."""

_HARMS: Final[tuple[tuple[str, ConditionStatus, Reason, str, Callable[[LifecycleRule], str]], ...]] = (
    (
        "removes",
        "True",
        Reason.BACKUPS_EXPIRE,
        "Newer incremental backups still need old objects and are destroyed with them. Exclude {roots} from such rules",
        lambda rule: rule.expires,
    ),
    (
        "moves",
        "True",
        Reason.BACKUPS_ARCHIVED,
        "Objects there cannot be read at once, so restores fail. Exclude {roots} from such rules",
        lambda rule: rule.archives,
    ),
    (
        "moves",
        "Unknown",
        Reason.STORAGE_CLASS_UNKNOWN,
        (
            "Cinderblock does not know this storage class. If objects there cannot be read at once, restores fail:"
            " exclude {roots} from such rules then"
        ),
        lambda rule: rule.moves,
    ),
)
"""Effects of lifecycle rules on backups, the worst first: verb, status and reason of the condition, advice, effect."""


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """A condition without times."""

    kind: ConditionType
    status: ConditionStatus
    reason: AnyReason
    message: str


def conditions_of(rules: ContainerRules, prefix: str) -> tuple[RuleCondition, ...]:
    """Return the conditions Versioned, ObjectLock and HarmfulLifecycle.

    Args:
        rules: the rules of the container.
        prefix: the prefix of the store.
    """
    roots = (layout.backup_prefix(prefix), layout.pack_root(prefix))
    return _versioned(rules, roots), _object_lock(rules), _harmful_lifecycle(rules.lifecycle, roots)


def _versioned(rules: ContainerRules, roots: tuple[str, ...]) -> RuleCondition:
    kind, versioning = ConditionType.VERSIONED, rules.versioning
    if isinstance(versioning, UnknownRule):
        return _unknown(kind, "Cannot tell whether deleted data remains as noncurrent versions", versioning)
    if versioning is Versioning.OFF:
        return RuleCondition(kind, "False", Reason.UNVERSIONED, "A deletion removes the data at once")
    effect = "A deletion only hides the data: it remains as noncurrent versions"
    if versioning is Versioning.SUSPENDED:
        effect = "Versioning is suspended: a deletion only hides older data, which remains as noncurrent versions"
    days = _version_days(rules.lifecycle, roots)
    if days is not None:
        message = f"{effect}. Lifecycle rules remove them after {days} days{_retention_end(rules.object_lock)}"
        return RuleCondition(kind, "True", Reason.VERSIONS_EXPIRE, message)
    cause = "no lifecycle rule removes all of them"
    if isinstance(rules.lifecycle, UnknownRule):
        cause = "whether lifecycle rules remove them is unknown"
    advice = f"Add a rule with NoncurrentVersionExpiration for {' and '.join(roots)}"
    message = f"{effect}. Such versions cost money, and {cause}. {advice}"
    return RuleCondition(kind, "True", Reason.VERSIONS_KEPT, message)


def _retention_end(rule: ObjectLockRule | UnknownRule | None) -> str:
    """Return what delays the removal of a noncurrent version. No lifecycle rule removes a locked one."""
    if isinstance(rule, UnknownRule) or rule is None:
        return ""
    if not (rule.mode and rule.period):
        return ", or when a lock of theirs has ended, if that is later"
    return f", or {_shown(rule.period)} after they were written (Object Lock), whichever is later"


def _version_days(lifecycle: tuple[LifecycleRule, ...] | UnknownRule, roots: tuple[str, ...]) -> int | None:
    """Return the days after which every noncurrent version of a backup is removed; None if some may remain."""
    if isinstance(lifecycle, UnknownRule):
        return None
    by_root = [
        [rule.version_days for rule in lifecycle if rule.version_days is not None and rule.covers(root)]
        for root in roots
    ]
    return max(map(min, by_root)) if all(by_root) else None


def _object_lock(rules: ContainerRules) -> RuleCondition:
    kind, rule = ConditionType.OBJECT_LOCK, rules.object_lock
    if isinstance(rule, UnknownRule):
        return _unknown(kind, "Cannot tell whether the container has Object Lock", rule)
    if rule is None:
        return RuleCondition(kind, "False", Reason.NO_OBJECT_LOCK, "The container has no Object Lock")
    effect = _lock_effect(rules.versioning, rule.mode)
    if not rule.mode:
        message = f"The container has Object Lock without a default retention. While an object is locked, {effect}"
        return RuleCondition(kind, "True", Reason.OBJECT_LOCK_ENABLED, message)
    default = f"{_shown(rule.period)} (default retention, mode {_shown(rule.mode)})"
    message = f"Object Lock keeps each new object for {default}. Until then, {effect}"
    return RuleCondition(kind, "True", Reason.DEFAULT_RETENTION, message)


def _lock_effect(versioning: Versioning | UnknownRule, mode: str) -> str:
    effect = _LOCK_EFFECTS.get(versioning, _LOCK_EFFECT)
    if versioning is not Versioning.ENABLED:
        return effect
    return f"{effect}, and {_REMOVERS.get(mode, 'its versions stay')}"


def _harmful_lifecycle(lifecycle: tuple[LifecycleRule, ...] | UnknownRule, roots: tuple[str, ...]) -> RuleCondition:
    kind = ConditionType.HARMFUL_LIFECYCLE
    if isinstance(lifecycle, UnknownRule):
        return _unknown(kind, "Cannot tell whether a lifecycle rule removes or archives objects of backups", lifecycle)
    ours = [rule for rule in lifecycle if any(rule.touches(root) for root in roots)]
    for verb, status, reason, advice, effect_of in _HARMS:
        found = [(rule, effect) for rule in ours if (effect := effect_of(rule))]
        if found:
            message = f"{_listed(verb, found)}. {advice.format(roots=' and '.join(roots))}"
            return RuleCondition(kind, status, reason, message)
    message = "No lifecycle rule removes or archives objects of backups"
    return RuleCondition(kind, "False", Reason.NO_HARMFUL_RULE, message)


def _listed(verb: str, rules: Iterable[tuple[LifecycleRule, str]]) -> str:
    """Return a sentence about lifecycle rules and what each does to objects."""
    found = list(rules)
    named = [
        f"lifecycle rule {rule.name} {verb} {_objects(rule)} {_shown(effect)}" for rule, effect in found[:NAMED_RULES]
    ]
    more = f", and {len(found) - NAMED_RULES} more rules do the same" if len(found) > NAMED_RULES else ""
    text = ", ".join(named) + more
    return text[0].upper() + text[1:]


def _objects(rule: LifecycleRule) -> str:
    return f"objects below {_shown(rule.prefix)}" if rule.prefix else "objects of the whole container"


def _shown(text: str) -> str:
    """Return a text of the server, shortened: the API server refuses conditions with very long messages."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _unknown(kind: ConditionType, what: str, rule: UnknownRule) -> RuleCondition:
    return RuleCondition(kind, "Unknown", rule.reason, f"{what}: {rule.message}")
