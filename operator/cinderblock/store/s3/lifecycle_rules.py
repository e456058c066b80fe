"""Read the lifecycle rules of a container from the answer of an S3 server (S3 API: GetBucketLifecycleConfiguration)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cinderblock.api.v1alpha1.store import ARCHIVE_STORAGE_CLASSES
from cinderblock.errors import PermanentError
from cinderblock.lifecycle.store.container_rules import LifecycleRule
from cinderblock.reasons import Reason

_STATUSES: Final = frozenset({"Enabled", "Disabled"})
_READABLE_CLASSES: Final = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"}
)
"""Classes of AWS whose objects can be read at once. Other vendors have archives under many other names."""
_SHOWN_NAME: Final = 60
"""Characters of an id in a message."""


def parse_rules(rules: Iterable[Mapping[str, Any]]) -> tuple[LifecycleRule, ...]:
    """Return the rules that are switched on and may concern objects without tags. No object of Cinderblock has tags.

    Raises PermanentError for a rule in another form than that of S3, such as Google's: what it does is unknown.
    """
    enabled = [rule for rule in rules if _is_enabled(rule) and not _needs_tags(rule)]
    return tuple(_parse(rule) for rule in enabled)


def _is_enabled(rule: Mapping[str, Any]) -> bool:
    status: object = rule.get("Status")
    if status not in _STATUSES:
        raise PermanentError(
            f"lifecycle rule {_name(rule)} is not in the form of S3: it has no known status. Check it with the tools"
            " of the provider.",
            reason=Reason.NOT_S3,
        )
    return status == "Enabled"


def _name(rule: Mapping[str, Any]) -> str:
    return str(rule.get("ID") or "without ID")[:_SHOWN_NAME]


def _parse(rule: Mapping[str, Any]) -> LifecycleRule:
    conditions = _conditions(rule)
    transitions = rule.get("Transitions") or ()
    return LifecycleRule(
        name=_name(rule),
        prefix=str(conditions.get("Prefix") or rule.get("Prefix") or ""),
        expires=_expires(rule.get("Expiration") or {}),
        archives=_first_move(transitions, lambda name: name in ARCHIVE_STORAGE_CLASSES),
        moves=_first_move(transitions, lambda name: name not in {*ARCHIVE_STORAGE_CLASSES, *_READABLE_CLASSES}),
        version_days=_version_days(rule.get("NoncurrentVersionExpiration") or {}),
        is_partial=not {"ObjectSizeGreaterThan", "ObjectSizeLessThan"}.isdisjoint(conditions),
    )


def _conditions(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a rule compares objects with: a filter has one condition, or several below And."""
    found: Mapping[str, Any] = rule.get("Filter") or {}
    return found.get("And") or found


def _needs_tags(rule: Mapping[str, Any]) -> bool:
    conditions = _conditions(rule)
    return bool(conditions.get("Tag") or conditions.get("Tags"))


def _expires(expiration: Mapping[str, Any]) -> str:
    """Return when current objects are removed. A rule about expired delete markers removes none."""
    return _when(expiration) if "Days" in expiration or "Date" in expiration else ""


def _first_move(transitions: Iterable[Mapping[str, Any]], counts: Callable[[str], bool]) -> str:
    """Return the first move to a class that counts."""
    found = [(str(change.get("StorageClass") or "without name"), change) for change in transitions]
    return next((f"to {name} {_when(change)}" for name, change in found if counts(name)), "")


def _when(moment: Mapping[str, Any]) -> str:
    if "Date" in moment:
        return f"on {moment['Date']:%Y-%m-%d}"
    return f"{moment.get('Days', 0)} days after they were written"


def _version_days(expiration: Mapping[str, Any]) -> int | None:
    """Return the days that a noncurrent version stays; None if the newest ones stay without limit of time."""
    return None if expiration.get("NewerNoncurrentVersions") else expiration.get("NoncurrentDays")
