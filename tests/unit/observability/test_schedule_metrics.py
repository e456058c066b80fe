"""Metrics of schedules say when runs are due, and when the last one was complete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from cinderblock.api.v1alpha1.schedule import BackupSchedule, ClusterBackupSchedule
from cinderblock.lifecycle.alarms.protection import MAX_SCHEDULES
from cinderblock.observability.cluster_state import ClusterStateBuilder
from cinderblock.observability.schedule_metrics import families, metrics_of
from tests.support.cluster.metrics import Samples, samples

NOW = "2026-05-04T12:00:00Z"
SECONDS = 1777896000.0
STATUS: dict[str, Any] = {
    "effectiveSince": NOW,
    "failingVolumes": 3,
    "retention": {"frozen": 4},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Scheduled", "lastTransitionTime": NOW},
        {"type": "Selecting", "status": "False", "reason": "NoVolumes", "lastTransitionTime": NOW},
    ],
}


def a_schedule(name: str = "daily", status: dict[str, Any] | None = None, **spec: Any) -> BackupSchedule:
    metadata = {"name": name, "namespace": "shop", "uid": "s-1"}
    fields = {"schedule": "30 2 * * *"} | spec
    return BackupSchedule.model_validate({"metadata": metadata, "spec": fields, "status": status or {}})


def exposed(*schedules: BackupSchedule | ClusterBackupSchedule) -> Samples:
    found = [metrics for schedule in schedules if (metrics := metrics_of(schedule)) is not None]

    class Found(Collector):
        def collect(self) -> Any:
            return families(found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Found())
    return samples(generate_latest(registry).decode())


def test_schedule_that_waits_for_owners_does_not_select_nothing() -> None:
    labels = {"schedule_namespace": "", "schedule": "all"}
    for opt_in, selecting in ((True, 1), (False, 0)):
        spec = {"schedule": "@daily", "namespaceSelector": {}, "optIn": opt_in}
        body = {"metadata": {"name": "all", "uid": "s-2"}, "spec": spec, "status": STATUS}
        found = exposed(ClusterBackupSchedule.model_validate(body))
        assert found.value("schedule_selecting", **labels) == selecting


def test_schedule_has_all_its_metrics() -> None:
    times = {"lastCompletedTime": NOW, "nextScheduleTime": NOW}
    found, labels = exposed(a_schedule(status=STATUS | times)), {"schedule_namespace": "shop", "schedule": "daily"}
    values = {
        "ready": 1,
        "selecting": 0,
        "expected_interval_seconds": 86400,
        "starting_deadline_seconds": 86400,
        "effective_since_timestamp_seconds": SECONDS,
        "last_completed_timestamp_seconds": SECONDS,
        "next_timestamp_seconds": SECONDS,
        "failing_volumes": 3,
        "frozen_backups": 4,
    }
    assert {name: found.value(f"schedule_{name}", **labels) for name in values} == values


def test_new_schedule_says_nothing_about_runs() -> None:
    found, labels = exposed(a_schedule(startingDeadline="2h")), {"schedule_namespace": "shop", "schedule": "daily"}
    assert found.value("schedule_ready", **labels) == 0
    assert found.value("schedule_selecting", **labels) == 1
    assert found.value("schedule_starting_deadline_seconds", **labels) == 7200
    assert found.value("schedule_last_completed_timestamp_seconds", **labels) is None


@pytest.mark.parametrize("spec", [{"schedule": "never"}, {"timeZone": "Mars/Olympus"}])
def test_invalid_schedule_has_no_interval(spec: dict[str, Any]) -> None:
    found, labels = exposed(a_schedule(**spec)), {"schedule_namespace": "shop", "schedule": "daily"}
    assert found.value("schedule_expected_interval_seconds", **labels) is None
    assert found.value("schedule_ready", **labels) == 0


def test_schedule_of_the_cluster_has_no_namespace() -> None:
    body = {"metadata": {"name": "all", "uid": "s-2"}, "spec": {"schedule": "@hourly", "namespaceSelector": {}}}
    found = exposed(ClusterBackupSchedule.model_validate(body))
    interval = found.value("schedule_expected_interval_seconds", schedule_namespace="", schedule="all")
    assert interval == 3600


def test_suspended_schedule_has_no_metrics() -> None:
    assert metrics_of(a_schedule(suspend=True, status=STATUS)) is None


def test_namespace_with_very_many_schedules_has_few_series() -> None:
    builder = ClusterStateBuilder()
    for number in range(MAX_SCHEDULES + 5):
        builder.add_schedule(a_schedule(f"schedule-{number}"))
    assert len(builder.result(0).schedules) == MAX_SCHEDULES


@pytest.mark.parametrize(("status", "expected"), [("True", 1.0), ("False", 0.0), (None, 1.0)])
def test_refused_verifications_are_shown(status: str | None, expected: float) -> None:
    shown = {"type": "VerificationsCreated", "status": status, "reason": "VerificationsRefused"}
    conditions = [shown | {"lastTransitionTime": NOW}] if status else []
    rules = {"structure": {"schedule": "@daily"}}
    found = exposed(a_schedule(status={"conditions": conditions}, verification=rules), a_schedule("other"))
    name = "schedule_creating_verifications"
    assert found.value(name, schedule_namespace="shop", schedule="daily") == expected
    assert found.value(name, schedule_namespace="shop", schedule="other") is None


def due(expression: str, *, completed: str | None, since: str = "2026-01-01T00:00:00Z", **spec: Any) -> str | None:
    """Return until when a run must have been complete."""
    times = {"effectiveSince": since} | ({"lastCompletedTime": completed} if completed else {})
    found = metrics_of(a_schedule(status=times, schedule=expression, **spec))
    at = found.complete_due if found is not None else None
    return datetime.fromtimestamp(at, UTC).isoformat() if at is not None else None


def test_schedule_of_working_hours_is_not_late_at_the_weekend() -> None:
    friday = "2026-05-01T18:05:00+00:00"
    assert due("0 8-18 * * mon-fri", completed=friday) == "2026-05-04T10:00:00+00:00"
    assert due("0 2 * * mon-fri", completed="2026-05-01T02:10:00+00:00") == "2026-05-06T02:00:00+00:00"


def test_regular_schedule_is_late_after_two_intervals_and_its_deadline() -> None:
    completed = "2026-05-01T02:40:00+00:00"
    assert due("30 2 * * *", completed=completed) == "2026-05-04T02:40:00+00:00"
    assert due("30 2 * * *", completed=completed, startingDeadline="1h") == "2026-05-03T03:40:00+00:00"
    zone = {"timeZone": "Europe/Berlin"}
    assert due("30 2 * * *", completed="2026-10-24T00:40:00+00:00", **zone) == "2026-10-27T01:30:00+00:00"


def test_resumed_schedule_is_not_late_for_its_pause() -> None:
    resumed = "2026-05-01T12:00:00+00:00"
    assert due("@hourly", completed="2026-03-01T00:05:00+00:00", since=resumed) == "2026-05-01T15:00:00+00:00"
    assert due("@hourly", completed=None, since=resumed) == "2026-05-01T15:00:00+00:00"


def test_schedule_with_an_error_has_no_run_that_is_due() -> None:
    assert due("61 * * * *", completed=None) is None
    found = metrics_of(a_schedule())
    assert found is not None
    assert found.complete_due is None


def test_suspended_schedules_are_counted_and_have_no_other_metrics() -> None:
    builder = ClusterStateBuilder()
    for name, suspend in (("a", True), ("b", False), ("c", True)):
        builder.add_schedule(a_schedule(name, suspend=suspend))
    state = builder.result(0)
    assert [schedule.name for schedule in state.schedules] == ["b"]
    assert state.suspended_schedules == 2
