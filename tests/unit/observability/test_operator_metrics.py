"""Durations, results and bytes of operations that end while the operator runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle.alarms.protection import MAX_SCHEDULES
from cinderblock.observability.exposition import MetricsPage, MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics
from tests.support.cluster.metrics import Samples
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "content")
        yield running


def ended(metrics: Samples, operation: str, result: str) -> float | None:
    return metrics.value("operation_duration_seconds_count", operation=operation, result=result)


def test_every_series_starts_at_zero(simulation: Simulation) -> None:
    metrics = simulation.metrics()
    for operation in ("backup", "restore", "delete"):
        assert ended(metrics, operation, "success") == ended(metrics, operation, "error") == 0


def test_operations_are_counted_once_when_they_end(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    metrics = simulation.metrics()
    assert [ended(metrics, operation, "success") for operation in ("backup", "restore", "delete")] == [1, 1, 1]
    assert [ended(metrics, operation, "error") for operation in ("backup", "restore", "delete")] == [0, 0, 0]


def test_failures_are_counted_once(simulation: Simulation) -> None:
    simulation.pod("user", "data")
    simulation.backup("refused", "data")
    simulation.restore("of-nothing", "absent")
    simulation.settle()
    metrics = simulation.metrics()
    assert (ended(metrics, "backup", "error"), ended(metrics, "restore", "error")) == (1, 1)
    assert (ended(metrics, "backup", "success"), ended(metrics, "restore", "success")) == (0, 0)


def test_refused_deletion_counts_as_error_and_later_as_success(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.store.removal_error = StoreUnreachable("unreachable")
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", "retries every")
    assert ended(simulation.metrics(), "delete", "error") == 1
    simulation.store.removal_error = None
    simulation.settle()
    metrics = simulation.metrics()
    assert (ended(metrics, "delete", "error"), ended(metrics, "delete", "success")) == (1, 1)


def test_imported_backup_does_not_count_as_a_new_one(simulation: Simulation) -> None:
    made = simulation.backup("full", "data", deletionPolicy="Retain")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    simulation.restart()
    simulation.import_backup("adopted", made["metadata"]["uid"])
    simulation.settle()
    assert simulation.phase("VolumeBackup", "adopted") == "available"
    assert ended(simulation.metrics(), "backup", "success") == 0


def test_rebuilding_a_lost_status_counts_nothing(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.erase_status("VolumeBackup", "full")
    simulation.erase_status("VolumeRestore", "again")
    simulation.settle()
    metrics = simulation.metrics()
    assert (ended(metrics, "backup", "success"), ended(metrics, "restore", "success")) == (1, 1)


def test_bytes_are_the_ones_in_the_status(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    status = simulation.get("VolumeBackup", "full")["status"]
    metrics = simulation.metrics()
    for measure in ("logical", "transferred", "stored"):
        counted = metrics.value("operation_bytes_total", operation="backup", measure=measure)
        assert counted == status[f"{measure}Bytes"]


def test_page_is_available_in_the_openmetrics_format() -> None:
    page, content_type = MetricsPage(OperatorMetrics()).render(
        MetricsSnapshot("1.2.3", 0.0), "application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")


def test_schedules_beyond_the_limit_of_a_namespace_are_not_counted() -> None:
    metrics = OperatorMetrics()

    def counted(namespace: str) -> int:
        samples = (sample for family in metrics.registry.collect() for sample in family.samples)
        names = ("cinderblock_schedule_missed_total", "cinderblock_schedule_skipped_total")
        return sum(s.name in names and s.labels["schedule_namespace"] == namespace for s in samples)

    for number in range(MAX_SCHEDULES + 10):
        metrics.count_schedule("tenant", f"s-{number}", missed=1, skipped=0)
        metrics.count_schedule("", f"s-{number}", missed=1, skipped=0)
    assert counted("tenant") == 2 * MAX_SCHEDULES
    assert counted("") == 2 * (MAX_SCHEDULES + 10)
    metrics.forget_schedule("tenant", "s-0")
    metrics.count_schedule("tenant", "later", missed=0, skipped=0)
    assert counted("tenant") == 2 * MAX_SCHEDULES
