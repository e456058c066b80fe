"""A volume is protected if any schedule that works will back it up."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.schedule import BackupSchedule, BackupScheduleStatus, ClusterBackupSchedule
from cinderblock.lifecycle.alarms.protection import MAX_SCHEDULES, Protection, ProtectionIndex

NOW = "2026-05-04T12:00:00Z"
SHOP = {"team": "shop"}


def ready(status: str = "True") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "reason": "Any", "message": "", "lastTransitionTime": NOW}
    return {"conditions": [condition]}


def a_schedule(*, namespace: str = "shop", is_ready: str = "True", **spec: Any) -> BackupSchedule:
    metadata = {"name": "daily", "namespace": namespace, "uid": "s-1"}
    body = {"metadata": metadata, "spec": {"schedule": "@daily"} | spec, "status": ready(is_ready)}
    return BackupSchedule.model_validate(body)


def of_cluster(**spec: Any) -> ClusterBackupSchedule:
    fields = {"schedule": "@daily", "namespaceSelector": {}} | spec
    return ClusterBackupSchedule.model_validate(
        {"metadata": {"name": "all", "uid": "s-2"}, "spec": fields, "status": ready()}
    )


def a_claim(*, wish: str = "", phase: str = "Bound", deleting: bool = False, **found: str) -> PersistentVolumeClaim:
    """Return a claim; further keywords are its labels."""
    metadata = {
        "name": "data",
        "namespace": "shop",
        "uid": "c-1",
        "creationTimestamp": NOW,
        "deletionTimestamp": NOW if deleting else None,
        "labels": found,
        "annotations": {labels.BACKUP_ANNOTATION: wish} if wish else {},
    }
    spec = {"storageClassName": "fast", "volumeName": "pv"}
    return PersistentVolumeClaim.model_validate({"metadata": metadata, "spec": spec, "status": {"phase": phase}})


def protection(claim: PersistentVolumeClaim, *schedules: BackupSchedule | ClusterBackupSchedule) -> Protection | None:
    index = ProtectionIndex()
    for schedule in schedules:
        index.add_schedule(schedule)
    index.add_namespace("shop", SHOP)
    index.add_namespace("other", {})
    return index.protection_of(claim)


def test_volume_of_a_schedule_is_protected() -> None:
    assert protection(a_claim(), a_schedule()) is Protection.PROTECTED
    assert protection(a_claim()) is Protection.UNPROTECTED


@pytest.mark.parametrize(
    "schedule",
    [
        a_schedule(namespace="other"),
        a_schedule(suspend=True),
        a_schedule(is_ready="False"),
        a_schedule(volumes={"selector": {"matchLabels": {"app": "web"}}}),
        a_schedule(volumes={"storageClasses": ["slow"]}),
        a_schedule(volumes={"selector": {"matchExpressions": [{"key": "app", "operator": "Wrong"}]}}),
        of_cluster(namespaceSelector={"matchLabels": {"team": "web"}}),
        of_cluster(namespaceSelector={"matchLabels": {"team": "web"}}, optIn=True),
        of_cluster(volumes={"storageClasses": ["slow"]}, optIn=True),
        of_cluster(volumes={"selector": {"matchLabels": {"app": "web"}}}, optIn=True),
        of_cluster(suspend=True, optIn=True),
    ],
    ids=[
        *("elsewhere", "suspended", "not ready", "labels", "class", "wrong selector", "other namespaces"),
        *("opt-in elsewhere", "opt-in of a class", "opt-in of labels", "suspended opt-in"),
    ],
)
def test_schedule_that_does_not_select_a_volume_protects_nothing(
    schedule: BackupSchedule | ClusterBackupSchedule,
) -> None:
    assert protection(a_claim(app="shop"), schedule) is Protection.UNPROTECTED


@pytest.mark.parametrize(
    "schedule",
    [
        a_schedule(volumes={"selector": {"matchLabels": {"app": "shop"}}, "storageClasses": ["fast"]}),
        a_schedule(volumes={"minAge": "30d"}),
        of_cluster(namespaceSelector={"matchLabels": SHOP}),
        of_cluster(optIn=True),
    ],
    ids=["labels and class", "young", "namespaces", "opt-in"],
)
def test_schedule_that_will_select_a_volume_protects_it(schedule: BackupSchedule | ClusterBackupSchedule) -> None:
    assert protection(a_claim(wish="true", app="shop"), schedule) is Protection.PROTECTED


def test_volume_whose_owner_did_not_opt_in_is_counted_apart() -> None:
    assert protection(a_claim(), of_cluster(optIn=True)) is Protection.NOT_OPTED_IN
    assert protection(a_claim(), of_cluster(optIn=True), a_schedule()) is Protection.PROTECTED
    assert protection(a_claim(wish="false"), of_cluster(optIn=True)) is Protection.OPTED_OUT


@pytest.mark.parametrize("wish", ["True", "TRUE"])
def test_owner_may_opt_in_with_capital_letters(wish: str) -> None:
    assert protection(a_claim(wish=wish), of_cluster(optIn=True)) is Protection.PROTECTED


@pytest.mark.parametrize("wish", ["yes", "1", "False", "true "])
def test_volume_with_a_wish_that_nobody_fulfills_is_unprotected(wish: str) -> None:
    assert protection(a_claim(wish=wish), of_cluster(optIn=True)) is Protection.UNPROTECTED
    assert protection(a_claim(wish=wish), of_cluster(optIn=True), a_schedule()) is Protection.PROTECTED


def test_volume_is_selected_since_both_exist() -> None:
    def since(*created: str | None) -> datetime | None:
        index = ProtectionIndex()
        for time in created:
            schedule = a_schedule()
            metadata = schedule.metadata.model_copy(
                update={"creation_timestamp": datetime.fromisoformat(time) if time else None}
            )
            index.add_schedule(schedule.model_copy(update={"metadata": metadata}))
        return index.selected_since(a_claim())

    claimed = datetime.fromisoformat(NOW)
    assert since() is None
    assert since("2026-01-01T00:00:00Z") == since(None) == claimed
    assert since("2026-06-01T00:00:00Z") == datetime.fromisoformat("2026-06-01T00:00:00Z")
    assert since("2026-06-01T00:00:00Z", "2026-01-01T00:00:00Z") == claimed


def test_volume_that_is_left_out_is_counted_apart() -> None:
    assert protection(a_claim(wish="false"), a_schedule()) is Protection.OPTED_OUT


@pytest.mark.parametrize(
    "claim",
    [
        a_claim(phase="Pending"),
        a_claim(deleting=True),
        a_claim(**{labels.OWNER_UID_LABEL: "b-1"}),
    ],
    ids=["unbound", "being deleted", "of an operation"],
)
def test_unusable_and_temporary_claims_do_not_count(claim: PersistentVolumeClaim) -> None:
    assert protection(claim, a_schedule()) is None


def test_only_the_first_schedules_of_a_namespace_are_compared() -> None:
    elsewhere = [a_schedule(volumes={"storageClasses": ["slow"]})] * MAX_SCHEDULES
    assert protection(a_claim(), *elsewhere[1:], a_schedule()) is Protection.PROTECTED
    assert protection(a_claim(), *elsewhere, a_schedule()) is Protection.UNPROTECTED


KEYS, VALUES = st.sampled_from("ab"), st.sampled_from("xy")
LABELS = st.dictionaries(KEYS, VALUES)


@settings(max_examples=50)
@given(LABELS, LABELS, st.lists(st.tuples(LABELS, LABELS), max_size=3))
def test_protection_agrees_with_a_plain_search(
    of_claim: dict[str, str], of_namespace: dict[str, str], wanted: list[tuple[dict[str, str], dict[str, str]]]
) -> None:
    index = ProtectionIndex()
    for namespaces, claims in wanted:
        index.add_schedule(
            of_cluster(namespaceSelector={"matchLabels": namespaces}, volumes={"selector": {"matchLabels": claims}})
        )
    index.add_namespace("shop", of_namespace)
    found = any(n.items() <= of_namespace.items() and c.items() <= of_claim.items() for n, c in wanted)
    expected = Protection.PROTECTED if found else Protection.UNPROTECTED
    assert index.protection_of(a_claim(**of_claim)) is expected


def test_drills_of_a_volume_are_due_since_a_schedule_has_them() -> None:
    def since(*schedules: BackupSchedule) -> datetime | None:
        index = ProtectionIndex()
        for schedule in schedules:
            index.add_schedule(schedule)
        return index.drills_since(a_claim())

    def with_drills(begun: str, **spec: Any) -> BackupSchedule:
        schedule = a_schedule(verification={"restore": {"schedule": "@weekly"}}, **spec)
        shown = {"restore": {"effectiveSince": begun}}
        status = BackupScheduleStatus.model_validate(schedule.status.to_wire() | {"verification": shown})
        return schedule.model_copy(update={"status": status})

    june = with_drills("2026-06-01T00:00:00Z")
    assert since(a_schedule()) is None
    assert since(june) == since(a_schedule(), june) == datetime.fromisoformat("2026-06-01T00:00:00Z")
    assert since(june, with_drills("2026-01-01T00:00:00Z")) == datetime.fromisoformat(NOW), "creation of the claim"
    assert since(with_drills("2026-06-01T00:00:00Z", volumes={"storageClasses": ["other"]})) is None
