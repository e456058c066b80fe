"""Durations, results and bytes of operations that end while the operator runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.errors import StoreUnreachable
from cinderblock.observability.exposition import MetricsPage, MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics
from tests.support.cluster.metrics import Samples
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "content")
        yield running


def ended(said: Samples, operation: str, result: str) -> float | None:
    return said.value("operation_duration_seconds_count", operation=operation, result=result)


def test_everything_is_there_from_the_start_at_zero(simulation: Simulation) -> None:
    said = simulation.metrics()
    for operation in ("backup", "restore", "delete"):
        assert ended(said, operation, "success") == ended(said, operation, "error") == 0


def test_every_operation_is_counted_once_when_it_ends(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    said = simulation.metrics()
    assert [ended(said, operation, "success") for operation in ("backup", "restore", "delete")] == [1, 1, 1]
    assert [ended(said, operation, "error") for operation in ("backup", "restore", "delete")] == [0, 0, 0]


def test_a_failure_is_counted_once(simulation: Simulation) -> None:
    simulation.pod("user", "data")
    simulation.backup("refused", "data")
    simulation.restore("of-nothing", "absent")
    simulation.settle()
    said = simulation.metrics()
    assert (ended(said, "backup", "error"), ended(said, "restore", "error")) == (1, 1)
    assert (ended(said, "backup", "success"), ended(said, "restore", "success")) == (0, 0)


def test_a_deletion_that_the_store_does_not_let_happen_is_an_error_and_later_a_success(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.store.removal_error = StoreUnreachable("away")
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", "The operator retries every")
    assert ended(simulation.metrics(), "delete", "error") == 1
    simulation.store.removal_error = None
    simulation.settle()
    said = simulation.metrics()
    assert (ended(said, "delete", "error"), ended(said, "delete", "success")) == (1, 1)


def test_what_was_adopted_was_not_made_now(simulation: Simulation) -> None:
    made = simulation.backup("full", "data", deletionPolicy="Retain")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    simulation.restart()
    simulation.import_backup("adopted", made["metadata"]["uid"])
    simulation.settle()
    assert simulation.phase("VolumeBackup", "adopted") == "available"
    assert ended(simulation.metrics(), "backup", "success") == 0


def test_a_status_that_was_lost_is_no_second_end(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    simulation.restore("again", "full", name="copy")
    simulation.settle()
    simulation.erase_status("VolumeBackup", "full")
    simulation.erase_status("VolumeRestore", "again")
    simulation.settle()
    said = simulation.metrics()
    assert (ended(said, "backup", "success"), ended(said, "restore", "success")) == (1, 1)


def test_bytes_are_those_of_the_status(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    status = simulation.get("VolumeBackup", "full")["status"]
    said = simulation.metrics()
    for measure in ("logical", "transferred", "stored"):
        told = said.value("operation_bytes_total", operation="backup", measure=measure)
        assert told == status[f"{measure}Bytes"]


def test_a_page_is_also_given_as_open_metrics() -> None:
    page, content_type = MetricsPage(OperatorMetrics()).render(
        MetricsSnapshot("1.2.3", 0.0), "application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
