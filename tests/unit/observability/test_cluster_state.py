"""Metrics that are derived from objects survive a restart and disappear with the objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.observability import cluster_state
from cinderblock.observability.alert import AlertName
from cinderblock.observability.alerts import true_alerts
from cinderblock.observability.cluster_state import ClusterStateBuilder
from cinderblock.observability.volume_metrics import ClaimRef, VolumeMetrics
from tests.support.shared_stores import a_backup_store, a_cluster_store
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "content")
        yield running


NOW = "2026-05-05T00:00:00Z"
DATA = {"volume_namespace": "shop", "volume": "data"}


def test_backups_are_counted_by_phase(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    assert simulation.metrics().value("objects", kind="VolumeBackup", phase="new") == 1
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    assert simulation.metrics().value("objects", kind="VolumeBackup", phase="creating") == 1
    simulation.settle()
    after = simulation.metrics()
    assert after.value("objects", kind="VolumeBackup", phase="available") == 1
    assert after.value("objects", kind="VolumeBackup", phase="creating") == 0


def test_last_success_is_the_data_timestamp_and_survives_a_restart(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.advance(86400)
    simulation.restart()
    reported = simulation.metrics().value("volume_last_success_timestamp_seconds", **DATA)
    data_timestamp = simulation.get("VolumeBackup", "full")["status"]["dataTimestamp"]
    assert reported is not None
    assert data_timestamp.startswith(_iso(reported))


def test_deleted_volume_has_no_metrics(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    assert not any("_volume_" in name for name in simulation.metrics().names())


def test_recreated_volume_has_no_backup_yet(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    simulation.claim("data", "other content")
    assert simulation.metrics().value("volume_last_success_timestamp_seconds", **DATA) is None
    assert simulation.metrics().value("volume_first_request_timestamp_seconds", **DATA) is None


def test_volume_without_success_reports_its_first_request(simulation: Simulation) -> None:
    requested = simulation.now.timestamp()
    simulation.pod("user", "data")
    simulation.backup("refused", "data")
    simulation.settle()
    metrics = simulation.metrics()
    assert metrics.value("volume_first_request_timestamp_seconds", **DATA) == requested
    assert metrics.value("volume_last_success_timestamp_seconds", **DATA) is None
    failed = metrics.value("volume_last_failure_timestamp_seconds", **DATA)
    assert failed is not None
    assert failed >= requested
    assert metrics.value("last_failure_timestamp_seconds", operation="backup") == failed
    simulation.delete("VolumeBackup", "refused")
    simulation.settle()
    assert simulation.metrics().value("last_failure_timestamp_seconds", operation="backup") is None


def test_oldest_operation_reports_its_age_until_it_ends(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    simulation.advance(500)
    age = simulation.metrics().value("oldest_pending_operation_age_seconds", operation="backup")
    assert age is not None
    assert 500 <= age < 510
    simulation.settle()
    assert simulation.metrics().value("oldest_pending_operation_age_seconds", operation="backup") == 0


def test_verification_that_waits_for_its_turn_is_not_overdue(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    for name in ("first", "second"):
        simulation.verify(name, "Data", volumeId="data")
    simulation.until("BackupVerification", "first", "MoverRunning")
    simulation.until("BackupVerification", "second", "Queued")
    first = simulation.get("BackupVerification", "first")
    second = simulation.get("BackupVerification", "second")
    state = ClusterStateBuilder()
    state.add_verification(BackupVerification.model_validate(second))
    assert not state.result(0).oldest_pending
    state.add_verification(BackupVerification.model_validate(first))
    assert state.result(0).oldest_pending


def test_deletion_waiting_for_dependents_is_not_overdue(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "HasDependentBackups"
    assert simulation.metrics().value("oldest_pending_operation_age_seconds", operation="delete") == 0


def test_movers_run_up_to_the_limit_and_others_queue(simulation: Simulation) -> None:
    for number in range(3):
        simulation.claim(f"disk-{number}", "content")
        simulation.backup(f"backup-{number}", f"disk-{number}")
    for number in range(2):
        simulation.until("VolumeBackup", f"backup-{number}", "Mover")
    simulation.until("VolumeBackup", "backup-2", "Queued")
    metrics = simulation.metrics()
    assert metrics.value("movers", state="running") == metrics.value("movers_limit") == 2
    assert metrics.value("movers", state="queued") == 1


def test_store_reports_readiness_and_stored_bytes(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    default = {"store_namespace": "shop", "store": "default"}
    stored = simulation.get("VolumeBackup", "full")["status"]["storedBytes"]
    assert simulation.metrics().value("store_stored_bytes", **default) == stored
    assert simulation.metrics().value("store_ready", **default) == 1


def test_temporary_claims_are_not_reported_as_volumes(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    samples = simulation.metrics().values
    volumes = {frozenset(labels) for name, labels in samples if name.startswith("cinderblock_volume_")}
    assert volumes == {frozenset(DATA.items())}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    ("cluster", "own", "series"),
    [
        ("Answers", "Answers", {"": 1.0}),
        ("BrokerDisabled", "BrokerDisabled", {"": 0.0}),
        ("Answers", "StoreNotAllowed", {"": 1.0, "shop": 0.0}),
        (None, "ClusterStoreNotFound", {"shop": 0.0}),
    ],
)
def test_shared_store_reports_what_nobody_reports_for_it(
    cluster: str | None, own: str, series: dict[str, float]
) -> None:
    def ready(reason: str) -> dict[str, Any]:
        status = "True" if reason == "Answers" else "False"
        times = {"lastTransitionTime": "2026-05-04T12:00:00Z"}
        return {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "", **times}]}

    builder = ClusterStateBuilder()
    builder.add_store(a_backup_store("shop", status=ready(own)))
    if cluster is not None:
        builder.add_store(a_cluster_store(status=ready(cluster)))
    state = builder.result(0)
    assert {s.namespace: float(s.is_ready) for s in state.stores if not s.is_shared} == series
    alerts = [alert.subject.namespace for alert in true_alerts(state, 4e9) if alert.name is AlertName.STORE_NOT_READY]
    assert alerts == [namespace for namespace, is_ready in series.items() if not is_ready]


def a_backup(
    name: str, created: str, *, namespace: str = "shop", volume: str = "u-data", **status: Any
) -> VolumeBackup:
    metadata = {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": created}
    found = {"id": name, "phase": "available", "volumeId": volume, "dataTimestamp": created} | status
    return VolumeBackup.model_validate({"metadata": metadata, "spec": {"volumeId": volume}, "status": found})


def a_drill(phase: str, completed: str, **status: Any) -> BackupVerification:
    metadata = {"name": "drill", "namespace": "shop", "uid": "d-1"}
    found = {"id": "d-1", "phase": phase, "volumeId": "u-data", "completedAt": completed} | status
    spec = {"level": "Restore", "volumeId": "data"}
    return BackupVerification.model_validate({"metadata": metadata, "spec": spec, "status": found})


def volume_of(builder: ClusterStateBuilder, since: datetime | None = None) -> VolumeMetrics:
    builder.add_claim(ClaimRef("u-data", "shop", "data"), since)
    [volume] = builder.result(0).volumes
    return volume


def test_drill_counts_after_its_backup_has_expired() -> None:
    """Otherwise the alert about old drills could not fire: retention is shorter than its limit."""
    builder = ClusterStateBuilder()
    builder.add_backup(a_backup("new", "2026-05-04T00:00:00Z"))
    builder.add_verification(a_drill("verified", "2026-03-01T00:00:00Z"))
    builder.add_verification(a_drill("damaged", "2026-05-01T00:00:00Z"))
    builder.add_verification(a_drill("error", "2026-05-02T00:00:00Z"))
    levels = volume_of(builder).last_levels
    assert {level: _iso(time) for level, time in levels.items()} == {"Restore": "2026-03-01T00:00:00"}


def test_drill_with_a_copied_status_counts_for_nothing() -> None:
    builder = ClusterStateBuilder()
    builder.add_backup(a_backup("new", "2026-05-04T00:00:00Z"))
    builder.add_verification(a_drill("verified", "2026-03-01T00:00:00Z", id="another"))
    assert not volume_of(builder).last_levels


def test_protection_is_older_than_what_retention_has_left() -> None:
    for since, found in ((None, "2026-05-04"), ("2026-01-01T00:00:00Z", "2026-01-01"), (NOW, "2026-05-04")):
        builder = ClusterStateBuilder()
        builder.add_backup(a_backup("new", "2026-05-04T00:00:00Z"))
        volume = volume_of(builder, datetime.fromisoformat(since) if since else None)
        assert volume.protected_since is not None
        assert _iso(volume.protected_since).startswith(found)


def test_later_change_of_a_failed_backup_is_no_later_failure() -> None:
    """Somebody holds an old VolumeBackup, so its status is written again."""
    builder = ClusterStateBuilder()
    times = {"completedAt": "2026-05-01T00:10:00Z", "updatedAt": "2026-05-05T00:00:00Z"}
    builder.add_backup(a_backup("bad", "2026-05-01T00:00:00Z", phase="error", dataTimestamp=None, **times))
    builder.add_backup(a_backup("good", "2026-05-04T00:00:00Z"))
    volume = volume_of(builder)
    assert not volume.has_failed
    assert _iso(volume.last_failure or 0.0) == "2026-05-01T00:10:00"


def test_forged_backups_fill_the_memory_of_their_namespace_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_state, "MAX_VOLUMES", 3)
    builder = ClusterStateBuilder()
    for number in range(10):
        builder.add_backup(a_backup(f"b-{number}", NOW, namespace="tenant", volume=f"u-{number}"))
    builder.add_backup(a_backup("good", NOW))
    for number in range(10):
        builder.add_claim(ClaimRef(f"u-{number}", "tenant", f"data-{number}"))
    builder.add_claim(ClaimRef("u-data", "shop", "data"))
    assert [volume.namespace for volume in builder.result(0).volumes] == ["shop", *["tenant"] * 3]
