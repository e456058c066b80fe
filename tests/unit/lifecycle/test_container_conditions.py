"""The conditions of a BackupStore about versioning, Object Lock and lifecycle rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cinderblock.api.v1alpha1.store import BackupStoreStatus
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle import events
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import decide as store_decide
from cinderblock.lifecycle.store.container_conditions import conditions_of
from cinderblock.lifecycle.store.container_rules import (
    ContainerRules,
    LifecycleRule,
    ObjectLockRule,
    UnknownRule,
    Versioning,
)
from cinderblock.reasons import Reason
from tests.support.simulation.observed_builders import NOW
from tests.unit.lifecycle.test_rules_of_stores import a_store

PLAIN = ContainerRules(Versioning.OFF, None, ())
VERSIONED = replace(PLAIN, versioning=Versioning.ENABLED)
DENIED = UnknownRule(Reason.ACCESS_DENIED, "the credentials lack a permission. Allow s3:GetSomething")
UNKNOWN = ContainerRules(DENIED, DENIED, DENIED)


def shown(rules: ContainerRules, prefix: str = "") -> list[tuple[str, str, str]]:
    return [(found.kind, found.status, found.reason) for found in conditions_of(rules, prefix)]


def message(rules: ContainerRules, kind: str, prefix: str = "") -> str:
    (found,) = (found.message for found in conditions_of(rules, prefix) if found.kind == kind)
    return found


def with_rules(*rules: LifecycleRule, versioning: Versioning = Versioning.OFF) -> ContainerRules:
    return ContainerRules(versioning, None, rules)


def test_plain_container_has_three_quiet_conditions() -> None:
    assert shown(PLAIN) == [
        ("Versioned", "False", "Unversioned"),
        ("ObjectLock", "False", "NoObjectLock"),
        ("HarmfulLifecycle", "False", "NoHarmfulRule"),
    ]


def test_unknown_rules_say_which_permission_is_missing() -> None:
    assert [row[1:] for row in shown(UNKNOWN)] == [("Unknown", "AccessDenied")] * 3
    assert all(found.message.endswith("Allow s3:GetSomething") for found in conditions_of(UNKNOWN, ""))


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ((), "VersionsKept"),
        ((LifecycleRule("all", version_days=7),), "VersionsExpire"),
        ((LifecycleRule("prefix", "shop/", version_days=7),), "VersionsExpire"),
        ((LifecycleRule("packs", "shop/packs/", version_days=7),), "VersionsKept"),
        (
            (
                LifecycleRule("packs", "shop/packs/", version_days=7),
                LifecycleRule("rest", "shop/backups", version_days=9),
            ),
            "VersionsExpire",
        ),
        ((LifecycleRule("another", "other/", version_days=7),), "VersionsKept"),
        ((LifecycleRule("large", version_days=7, is_partial=True),), "VersionsKept"),
        ((LifecycleRule("none"),), "VersionsKept"),
    ],
)
def test_versions_expire_only_if_rules_remove_all_of_them(rules: tuple[LifecycleRule, ...], reason: str) -> None:
    found = with_rules(*rules, versioning=Versioning.ENABLED)
    assert shown(found, "shop")[0] == ("Versioned", "True", reason)


def test_longest_way_of_a_version_counts() -> None:
    rules = (
        LifecycleRule("packs", "packs/", version_days=7),
        LifecycleRule("more packs", "packs/", version_days=3),
        LifecycleRule("manifests", "backups/", version_days=30),
    )
    assert "after 30 days" in message(with_rules(*rules, versioning=Versioning.ENABLED), "Versioned")
    assert "after 3 days" in message(
        with_rules(*rules[:2], LifecycleRule("b", "backups/", version_days=1), versioning=Versioning.ENABLED),
        "Versioned",
    )


def test_versions_that_nobody_removes_are_said_to_cost() -> None:
    assert message(VERSIONED, "Versioned", "shop") == (
        "A deletion only hides the data: it remains as noncurrent versions. Such versions cost money, and no lifecycle"
        " rule removes all of them. Add a rule with NoncurrentVersionExpiration for shop/backups/ and shop/packs/"
    )
    assert "unknown" in message(replace(VERSIONED, lifecycle=DENIED), "Versioned")
    assert "suspended" in message(replace(VERSIONED, versioning=Versioning.SUSPENDED), "Versioned")


def test_default_retention_says_that_deletions_wait() -> None:
    rules = replace(VERSIONED, object_lock=ObjectLockRule("COMPLIANCE", "30 days"))
    assert shown(rules)[1] == ("ObjectLock", "True", "DefaultRetention")
    default = "Object Lock keeps each new object for 30 days (default retention, mode COMPLIANCE)"
    hides = "Until then, a deletion only hides the data, and nobody can remove its versions"
    assert message(rules, "ObjectLock") == f"{default}. {hides}"
    assert message(replace(rules, versioning=Versioning.OFF), "ObjectLock").endswith("Until then, a deletion waits")
    assert "if the container keeps versions" in message(replace(rules, versioning=DENIED), "ObjectLock")
    governance = replace(rules, object_lock=ObjectLockRule("GOVERNANCE", "30 days"))
    assert message(governance, "ObjectLock").endswith(
        "a deletion only hides the data, and only credentials with s3:BypassGovernanceRetention can remove its versions"
    )
    unset = message(replace(rules, object_lock=ObjectLockRule()), "ObjectLock")
    assert unset.endswith("a deletion only hides the data, and its versions stay")
    assert shown(replace(rules, object_lock=ObjectLockRule()))[1] == ("ObjectLock", "True", "ObjectLockEnabled")


def test_lifecycle_rules_remove_no_locked_version() -> None:
    """The two conditions say the same about the end of a version."""
    rules = replace(with_rules(LifecycleRule("all", version_days=7)), versioning=Versioning.ENABLED)
    removed = "Lifecycle rules remove them after 7 days"
    assert message(rules, "Versioned").endswith(removed)
    for lock, end in (
        (DENIED, ""),
        (
            ObjectLockRule("GOVERNANCE", "365 days"),
            ", or 365 days after they were written (Object Lock), whichever is later",
        ),
        (ObjectLockRule(), ", or when a lock of theirs has ended, if that is later"),
    ):
        found = replace(rules, object_lock=lock)
        assert message(found, "Versioned").endswith(f"{removed}{end}")
        assert "nobody" not in message(found, "ObjectLock")


def test_unknown_storage_class_is_named_and_no_claim_is_made() -> None:
    rule = LifecycleRule("cold", "shop/", moves="to ColdArchive 9 days after they were written")
    found = with_rules(rule)
    assert shown(found, "shop")[2] == ("HarmfulLifecycle", "Unknown", "StorageClassUnknown")
    assert message(found, "HarmfulLifecycle", "shop") == (
        "Lifecycle rule cold moves objects below shop/ to ColdArchive 9 days after they were written. Cinderblock does"
        " not know this storage class. If objects there cannot be read at once, restores fail: exclude shop/backups/"
        " and shop/packs/ from such rules then"
    )
    assert shown(found, "other")[2] == ("HarmfulLifecycle", "False", "NoHarmfulRule")
    harmful = with_rules(rule, LifecycleRule("old", expires="on 2027-01-01"))
    assert shown(harmful, "shop")[2][2] == "BackupsExpire"


@pytest.mark.parametrize(
    ("prefix", "is_harmful"),
    [
        ("", True),
        ("shop", True),
        ("shop/packs/", True),
        ("shop/packs/c-1/", True),
        ("shop/backups/c-1/b-1", True),
        ("shop/pack", True),
        ("shop/others/", False),
        ("shop2/", False),
        ("packs/", False),
    ],
)
def test_rule_harms_only_objects_of_the_store(prefix: str, is_harmful: bool) -> None:
    rules = with_rules(LifecycleRule("old", prefix, expires="90 days after they were written"))
    assert shown(rules, "shop")[2][1] == str(is_harmful)


def test_expiring_rule_is_named_with_its_consequence() -> None:
    old = LifecycleRule("old", "shop", expires="90 days after they were written")
    cold = LifecycleRule("cold", archives="to GLACIER 30 days after they were written")
    assert message(with_rules(cold, old), "HarmfulLifecycle", "shop") == (
        "Lifecycle rule old removes objects below shop 90 days after they were written. Newer incremental backups still"
        " need old objects and are destroyed with them. Exclude shop/backups/ and shop/packs/ from such rules"
    )
    assert shown(with_rules(cold))[2] == ("HarmfulLifecycle", "True", "BackupsArchived")
    assert "moves objects of the whole container to GLACIER 30 days" in message(with_rules(cold), "HarmfulLifecycle")


def test_many_rules_make_no_long_message() -> None:
    rules = [LifecycleRule(f"rule-{number}", expires="on 2027-01-01") for number in range(1000)]
    found = message(with_rules(*rules), "HarmfulLifecycle")
    assert "and 997 more rules do the same" in found
    assert len(found) < 500


def test_long_texts_of_a_server_make_no_long_message() -> None:
    long = "x" * 1_000_000
    harmful = with_rules(LifecycleRule("old", expires=long), LifecycleRule("older", f"backups/{long}", expires="soon"))
    locked = replace(VERSIONED, object_lock=ObjectLockRule(long, long))
    for rules in (harmful, locked):
        assert all(len(found.message) < 2000 for found in conditions_of(rules, ""))


def observed(rules: ContainerRules | None, status: BackupStoreStatus | None = None) -> ObservedStore:
    store = a_store()
    store = store.model_copy(update={"status": status}) if status is not None else store
    return ObservedStore(store, StoreLookup(store), rules=rules)


def status_of(found: ObservedStore, minutes: int = 0) -> BackupStoreStatus:
    status = store_decide.decide(found, NOW + timedelta(minutes=minutes)).status
    assert isinstance(status, BackupStoreStatus)
    return status


def test_unknown_rules_leave_the_store_ready() -> None:
    status = status_of(observed(UNKNOWN))
    assert [(c.type, c.status) for c in status.conditions] == [
        ("Ready", "True"),
        ("Versioned", "Unknown"),
        ("ObjectLock", "Unknown"),
        ("HarmfulLifecycle", "Unknown"),
    ]


def test_conditions_stay_while_the_store_is_silent() -> None:
    first = status_of(observed(VERSIONED))
    silent = observed(None, first)
    silent = replace(silent, lookup=replace(silent.lookup, error=StoreUnreachable("no answer")))
    kept = {c.type: c for c in status_of(silent, 5).conditions}
    assert kept["Ready"].status == "False"
    assert kept["Versioned"] == next(c for c in first.conditions if c.type == "Versioned")


def test_repeated_answer_changes_no_status() -> None:
    first = status_of(observed(VERSIONED))
    assert status_of(observed(VERSIONED, first), 60) == first


def test_warning_is_recorded_when_a_rule_begins_to_harm() -> None:
    harmful = with_rules(LifecycleRule("old", expires="on 2027-01-01"))
    quiet, harmed = status_of(observed(PLAIN)), status_of(observed(harmful))
    recorded = events.on_transition(quiet, harmed)
    assert [(event.type, event.reason) for event in recorded] == [("Warning", "BackupsExpire")]
    assert events.on_transition(harmed, harmed) == ()
    assert events.on_transition(harmed, quiet) == ()
