"""Alerts become true by the state of the cluster, and are sent after their delay, once for each cause."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.schedule import BackupSchedule
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.lifecycle.alarms.protection import Protection
from cinderblock.observability.alert import DAY, HOUR, AlertLimits, AlertName, Subject
from cinderblock.observability.alerts import MAX_ALERTS, MAX_SUBJECTS, true_alerts
from cinderblock.observability.cloud_event import encode, event_id
from cinderblock.observability.cluster_state import (
    ClusterState,
    ClusterStateBuilder,
    Failure,
    OperationKind,
    Period,
    StoreMetrics,
)
from cinderblock.observability.notifications import AlertState, Notification, NotificationTracker
from cinderblock.observability.schedule_metrics import ScheduleMetrics
from cinderblock.observability.volume_metrics import VolumeMetrics
from tests.support.alarms.states import random_state
from tests.support.simulation.simulation import Simulation

NOW = 5 * DAY
EMPTY_SCHEDULE = ScheduleMetrics(
    namespace="shop",
    name="daily",
    is_ready=False,
    selects=False,
    interval=None,
    deadline=0.0,
    effective_since=None,
    last_completed=None,
    next_time=None,
    failing_volumes=0,
    frozen=0,
)


def failed(number: int, failed_at: float = NOW - 60) -> VolumeMetrics:
    return VolumeMetrics("shop", f"data-{number:03}", last_failure=failed_at + number, failed_backup="b")


def names(notifications: list[Notification]) -> list[tuple[AlertName, AlertState, str]]:
    return [(n.alert.name, n.state, str(n.alert.subject)) for n in notifications]


def test_outage_of_a_store_is_told_in_few_events() -> None:
    state = ClusterState(volumes=[failed(number) for number in range(500)])
    found = true_alerts(state, NOW)
    assert len(found) == MAX_SUBJECTS + 1
    [rest] = [alert for alert in found if alert.subject.kind == "Namespace"]
    assert (rest.value, rest.subject.name) == (480, "shop")
    assert rest.summary == "The last backups of volumes failed: 480 more in namespace shop."


def test_later_failures_displace_no_earlier_ones() -> None:
    tracker, state = NotificationTracker(), ClusterState(volumes=[failed(number) for number in range(MAX_SUBJECTS)])
    for notification in tracker.update(true_alerts(state, NOW), NOW):
        tracker.delivered(notification)
    state.volumes += [failed(number, NOW) for number in range(100, 130)]
    later = tracker.update(true_alerts(state, NOW + 200), NOW + 200)
    assert names(later) == [(AlertName.VOLUME_BACKUP_FAILED, AlertState.FIRING, "shop")]


def stores(namespace: str, count: int, since: float = NOW - DAY) -> list[StoreMetrics]:
    """Return stores that do not answer."""
    return [StoreMetrics(namespace, f"s-{number:04}", is_ready=False, ready_since=since) for number in range(count)]


def test_namespace_with_many_objects_has_a_bounded_number_of_alerts() -> None:
    broken = [replace(EMPTY_SCHEDULE, name=f"s-{n}", failing_volumes=1, frozen=1, interval=HOUR) for n in range(50)]
    broken = [replace(schedule, complete_due=1.0, frozen_since=1.0) for schedule in broken]
    volumes = [failed(number) for number in range(50)]
    found = true_alerts(ClusterState(stores=stores("shop", 5000), schedules=broken, volumes=volumes), NOW)
    assert set(Counter(alert.name for alert in found).values()) == {MAX_SUBJECTS + 1}
    rest = {alert.name: alert.value for alert in found if alert.subject == Subject("Namespace", "", "shop")}
    assert rest.pop(AlertName.STORE_NOT_READY) == 4980
    assert rest == dict.fromkeys({alert.name for alert in found} - {AlertName.STORE_NOT_READY}, 30)
    assert len(rest) == 6


def test_administrators_schedules_have_alerts_of_their_own() -> None:
    schedules = [replace(EMPTY_SCHEDULE, namespace="", name=f"s-{number}", selects=True) for number in range(30)]
    assert len(true_alerts(ClusterState(schedules=schedules), NOW)) == 30


def test_namespaces_with_older_alerts_do_not_silence_another_one() -> None:
    others = [store for number in range(100) for store in stores(f"other-{number}", 1000)]
    state = ClusterState(stores=others, volumes=[failed(1, NOW - 60)])
    told = NotificationTracker().update(true_alerts(state, NOW), NOW)
    assert len(told) == MAX_ALERTS
    assert (AlertName.VOLUME_BACKUP_FAILED, AlertState.FIRING, "shop/data-001") in names(told)


def test_alert_that_gives_way_to_another_one_has_not_ended() -> None:
    others = [store for number in range(100) for store in stores(f"other-{number}", 1000)]
    tracker = NotificationTracker()
    first = tracker.update(true_alerts(ClusterState(stores=others), NOW), NOW)
    for notification in first:
        tracker.delivered(notification)
    [later] = tracker.update(true_alerts(ClusterState(stores=others, volumes=[failed(1)]), NOW), NOW)
    assert later.alert.name is AlertName.VOLUME_BACKUP_FAILED
    tracker.delivered(later)
    end, again = tracker.update(true_alerts(ClusterState(stores=others), NOW), NOW)
    assert (end.state, end.alert.name) == (AlertState.RESOLVED, AlertName.VOLUME_BACKUP_FAILED)
    assert again.identity in {notification.identity for notification in first}


def test_volume_that_had_a_good_backup_later_has_no_alert() -> None:
    volume = failed(1)
    volume.last_success = NOW
    assert true_alerts(ClusterState(volumes=[volume]), NOW) == []


def test_event_of_any_alert_is_small_and_has_its_own_id() -> None:
    for seed in range(20):
        tracker, state = NotificationTracker(), random_state(seed, 5)
        tracker.update(true_alerts(state, 0), 0)
        told = tracker.update(true_alerts(state, NOW), NOW)
        assert len({event_id(notification, "a") for notification in told}) == len(told)
        assert {event_id(n, "a") for n in told}.isdisjoint(event_id(n, "b") for n in told)
        assert all(len(encode(notification, "/clusters/c/cinderblock/r")) < 4096 for notification in told)


def test_alert_without_a_known_beginning_waits_from_when_it_was_seen() -> None:
    tracker, state = NotificationTracker(), unprotected()
    told = [tracker.update(true_alerts(state, NOW + at), NOW + at) for at in (0, HOUR - 1, HOUR)]
    assert [len(found) for found in told] == [0, 0, 1]
    assert told[2][0].alert.value == 2


def test_end_is_told_only_if_the_beginning_was(subtests: pytest.Subtests) -> None:
    for is_delivered in (False, True):
        with subtests.test(is_delivered=is_delivered):
            tracker = NotificationTracker()
            [begun] = tracker.update(true_alerts(ClusterState(volumes=[failed(1)]), NOW), NOW)
            if is_delivered:
                tracker.delivered(begun)
            assert len(tracker.update([], NOW + 60)) == is_delivered


def test_end_that_was_not_delivered_is_told_again_until_the_alert_returns() -> None:
    tracker, alerts = NotificationTracker(), true_alerts(ClusterState(volumes=[failed(1)]), NOW)
    [begun] = tracker.update(alerts, NOW)
    tracker.delivered(begun)
    for at in (60, 120):
        assert names(tracker.update([], NOW + at))[0][1] is AlertState.RESOLVED
    [again] = tracker.update(alerts, NOW + 180)
    assert again.state is AlertState.FIRING
    assert again.identity != begun.identity


def unprotected() -> ClusterState:
    """Return a state with a schedule that works, and two volumes that it does not select."""
    schedule = replace(EMPTY_SCHEDULE, is_ready=True, selects=True)
    protection = {"shop": Counter({Protection.UNPROTECTED: 2})}
    return ClusterState(
        schedules=[schedule], protection=protection, unprotected_since={"shop": Period(NOW - 9 * DAY, NOW - DAY)}
    )


def test_cluster_without_schedules_has_no_unprotected_volumes() -> None:
    state = unprotected()
    state.schedules = []
    assert true_alerts(state, NOW) == []


def test_failed_backup_is_told_with_its_name_and_cause() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.pod("user", "data")
        simulation.backup("refused", "data")
        simulation.settle()
        status = simulation.get("VolumeBackup", "refused")["status"]
        [alert] = true_alerts(simulation.cluster_state(), simulation.now.timestamp())
    assert alert.summary == f"The last backup of volume shop/data failed: {status['failReason']}"
    assert alert.action == "kubectl -n shop describe volumebackup refused"
    assert datetime.fromtimestamp(alert.anchor, UTC).isoformat().startswith(status["updatedAt"].rstrip("Z")[:19])


def test_damage_is_told_with_the_time_when_it_was_found() -> None:
    builder = ClusterStateBuilder()
    for number, deletion in enumerate([None, None, "1970-01-06T00:00:00Z"]):
        found = {"recordedFor": f"u-{number}", "result": "Damaged", "damagedAt": f"1970-01-04T00:00:0{number}Z"}
        metadata = {"name": f"b-{number}", "namespace": "shop", "uid": f"u-{number}", "deletionTimestamp": deletion}
        status = {"id": f"u-{number}", "phase": "available", "verification": found}
        builder.add_backup(VolumeBackup.model_validate({"metadata": metadata, "spec": {}, "status": status}))
    [alert] = true_alerts(builder.result(0), NOW)
    assert (alert.name, alert.severity, alert.value) == (AlertName.BACKUP_DAMAGED, "critical", 2)
    assert (alert.subject, alert.anchor, alert.since) == (Subject("Namespace", "", "shop"), 3 * DAY + 1, 3 * DAY + 1)


def test_store_is_told_from_when_it_stopped_to_answer() -> None:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "StoreUnreachable",
        "lastTransitionTime": "1970-01-05T00:00:00Z",
    }
    body = {
        "metadata": {"name": "main", "namespace": "shop", "uid": "u"},
        "spec": {"credentialsSecretRef": {"name": "s"}},
        "status": {"conditions": [condition]},
    }
    builder = ClusterStateBuilder()
    builder.add_store(BackupStore.model_validate(body))
    [alert] = true_alerts(builder.result(0), NOW)
    assert (alert.name, str(alert.subject), alert.since) == (AlertName.STORE_NOT_READY, "shop/main", 4 * DAY)


def test_suspicious_backups_and_unselected_claims_give_the_times_of_their_alerts() -> None:
    builder = ClusterStateBuilder()
    for day in (2, 4, 3):
        time = f"1970-01-0{day}T00:00:00Z"
        condition = {"type": "Suspicious", "status": "True", "reason": "Empty", "lastTransitionTime": time}
        metadata = {"name": f"b-{day}", "namespace": "shop", "uid": f"u-{day}", "creationTimestamp": time}
        status = {"id": f"u-{day}", "phase": "available", "conditions": [condition]}
        builder.add_backup(VolumeBackup.model_validate({"metadata": metadata, "spec": {}, "status": status}))
        builder.count_protection(PersistentVolumeClaim.model_validate({"metadata": metadata}), Protection.UNPROTECTED)
    state = builder.result(0)
    assert state.suspicious_since == state.unprotected_since == {"shop": Period(DAY, 3 * DAY)}
    [alert] = true_alerts(state, NOW)
    assert (alert.name, alert.value, alert.since) == (AlertName.BACKUP_SUSPICIOUS, 3, 3 * DAY)


def test_freeze_counts_from_its_alarm_and_not_from_when_it_was_seen() -> None:
    """A restart of the operator, or a pass of retention that read nothing, leaves a gap in the number only."""
    builder = ClusterStateBuilder()
    condition = {
        "type": "Suspicious",
        "status": "True",
        "reason": "Empty",
        "lastTransitionTime": "1970-01-02T00:00:00Z",
    }
    status = {"id": "u", "phase": "available", "conditions": [condition]}
    metadata = {"name": "b", "namespace": "shop", "uid": "u"}
    builder.add_backup(VolumeBackup.model_validate({"metadata": metadata, "spec": {}, "status": status}))
    for namespace, frozen in (("shop", 4), ("bank", 4), ("shop", 0)):
        shown = {"retention": {"frozen": frozen}}
        body = {"metadata": {"name": f"s-{frozen}", "namespace": namespace}, "spec": {"schedule": "@daily"}}
        builder.add_schedule(BackupSchedule.model_validate(body | {"status": shown}))
    state = builder.result(0)
    assert [schedule.frozen_since for schedule in state.schedules] == [DAY, None, None]
    for now, since in ((4 * DAY, []), (NOW, [4 * DAY])):
        told = [alert for alert in true_alerts(state, now) if alert.name is AlertName.RETENTION_FROZEN]
        assert [alert.since for alert in told] == since


def test_suspended_schedule_leaves_volumes_unprotected() -> None:
    """The only schedule was suspended, and forgotten."""
    state = unprotected()
    state.schedules, state.suspended_schedules = [], 1
    [alert] = true_alerts(state, NOW)
    assert alert.name is AlertName.VOLUMES_UNPROTECTED


LIMITS = AlertLimits(verification_age=2 * DAY, requires_verification=True, drill_age=DAY)


@pytest.mark.parametrize(
    ("times", "name", "since"),
    [
        ({"first_request": NOW - 2 * DAY}, AlertName.VOLUME_BACKUP_STALE, NOW - 2 * DAY + 26 * HOUR),
        (
            {"first_request": NOW - 4 * DAY, "last_success": NOW - 27 * HOUR},
            AlertName.VOLUME_BACKUP_STALE,
            NOW - HOUR,
        ),
        ({"last_success": 1.0 + NOW - DAY, "last_incomplete": NOW}, AlertName.VOLUME_BACKUP_INCOMPLETE, NOW),
        ({"last_verified": NOW - 3 * DAY}, AlertName.VOLUME_VERIFICATION_STALE, NOW - DAY),
        ({"protected_since": NOW - 3 * DAY}, AlertName.VOLUME_NEVER_VERIFIED, NOW - DAY),
        ({"last_levels": {VerificationLevel.RESTORE: NOW - 3 * DAY}}, AlertName.VOLUME_DRILL_STALE, NOW - 2 * DAY),
        ({"drills_since": NOW - 3 * DAY}, AlertName.VOLUME_DRILL_STALE, NOW - 2 * DAY),
    ],
)
def test_volume_is_told_from_when_a_limit_was_passed(times: dict[str, Any], name: AlertName, since: float) -> None:
    [alert] = true_alerts(ClusterState(volumes=[VolumeMetrics("shop", "data", **times)]), NOW, LIMITS)
    assert (alert.name, alert.since, alert.anchor) == (name, since, since)
    assert "shop/data" in alert.summary
    assert "kubectl -n shop" in alert.action


def test_volume_within_all_limits_has_no_alert() -> None:
    fine = VolumeMetrics("shop", "data", first_request=NOW, last_success=NOW - HOUR, last_verified=NOW - DAY)
    fine.last_levels, fine.protected_since = {VerificationLevel.RESTORE: NOW - HOUR}, NOW - 9 * DAY
    never = VolumeMetrics("shop", "new", first_request=NOW, protected_since=NOW - 9 * DAY)
    assert true_alerts(ClusterState(volumes=[fine]), NOW, LIMITS) == []
    assert true_alerts(ClusterState(volumes=[never]), NOW) == []


def test_drill_that_ends_in_error_is_told_for_an_hour() -> None:
    failure = Failure(NOW - 60, "shop", "daily-data-1", "The check has no CronJob.")
    state = ClusterState(last_failures={OperationKind.VERIFICATION: failure, OperationKind.BACKUP: failure})
    [alert] = true_alerts(state, NOW)
    assert (alert.name, str(alert.subject)) == (AlertName.VERIFICATION_FAILED, "shop/daily-data-1")
    assert alert.summary.endswith("has proven nothing: The check has no CronJob.")
    assert alert.action == "kubectl -n shop describe backupverification daily-data-1"
    assert true_alerts(state, NOW + HOUR) == []


def test_schedule_that_cannot_create_verifications_is_told_from_the_refusal() -> None:
    schedule = replace(EMPTY_SCHEDULE, is_ready=True, selects=True, creates_verifications=False)
    [alert] = true_alerts(ClusterState(schedules=[replace(schedule, verifications_since=NOW - DAY)]), NOW)
    assert (alert.name, alert.since) == (AlertName.SCHEDULE_VERIFICATIONS_REFUSED, NOW - DAY)


def test_rejected_alert_is_counted_while_it_lasts() -> None:
    tracker, alerts = NotificationTracker(), true_alerts(ClusterState(volumes=[failed(1)]), NOW)
    [begun] = tracker.update(alerts, NOW)
    tracker.delivered(begun, is_rejected=True)
    assert tracker.update(alerts, NOW + 60) == []
    assert tracker.rejected == 1
    [daily] = tracker.update(alerts, NOW + DAY)
    tracker.delivered(daily)
    assert tracker.rejected == 0
    tracker.delivered(daily, is_rejected=True)
    tracker.update([], NOW + DAY)
    assert tracker.rejected == 0
