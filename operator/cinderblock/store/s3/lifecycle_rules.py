"""Read the lifecycle rules of a container from the answer of an S3 server (S3 API: GetBucketLifecycleConfiguration)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cinderblock.api.v1alpha1.store import ARCHIVE_STORAGE_CLASSES
from cinderblock.lifecycle.store.container_rules import LifecycleRule

_SHOWN_NAME: Final = 60
"""Characters of an id in a message."""


def parse_rules(rules: Iterable[Mapping[str, Any]]) -> tuple[LifecycleRule, ...]:
    """Return the rules that are switched on and may concern objects without tags. No object of Cinderblock has tags."""
    enabled = [rule for rule in rules if rule.get("Status") == "Enabled" and not _needs_tags(rule)]
    return tuple(_parse(rule) for rule in enabled)


def _parse(rule: Mapping[str, Any]) -> LifecycleRule:
    conditions = _conditions(rule)
    return LifecycleRule(
        name=str(rule.get("ID") or "without ID")[:_SHOWN_NAME],
        prefix=str(conditions.get("Prefix") or rule.get("Prefix") or ""),
        expires=_expires(rule.get("Expiration") or {}),
        archives=_archives(rule.get("Transitions") or ()),
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


def _archives(transitions: Iterable[Mapping[str, Any]]) -> str:
    """Return the first move to a class whose objects cannot be read at once."""
    found = [change for change in transitions if change.get("StorageClass") in ARCHIVE_STORAGE_CLASSES]
    return f"to {found[0]['StorageClass']} {_when(found[0])}" if found else ""


def _when(moment: Mapping[str, Any]) -> str:
    if "Date" in moment:
        return f"on {moment['Date']:%Y-%m-%d}"
    return f"{moment.get('Days', 0)} days after they were written"


def _version_days(expiration: Mapping[str, Any]) -> int | None:
    """Return the days that a noncurrent version stays; None if the newest ones stay without limit of time."""
    return None if expiration.get("NewerNoncurrentVersions") else expiration.get("NoncurrentDays")
