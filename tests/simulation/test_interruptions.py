"""Interruptions at any moment of an operation do not change its end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from tests.simulation.test_crashes import SCENARIOS, run
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation, summary

MADE = {
    "create": ("VolumeSnapshot", "PersistentVolumeClaim", "Job"),
    "create, incremental": ("VolumeSnapshot", "PersistentVolumeClaim", "Job"),
    "restore to a new volume": ("PersistentVolumeClaim", "Job"),
    "restore to an existing volume": ("Job",),
}
"""The kinds of children that each operation creates."""
QUOTAS = [(name, kind) for name, made in MADE.items() for kind in made]


def disturbed(name: str, steps: int, disturb: Callable[[Simulation], object]) -> tuple[Simulation, int, bool]:
    """Run a scenario with a disturbance after ``steps`` steps. Return its writes and whether it had ended before."""
    prepare, ask = SCENARIOS[name]
    with Simulation() as simulation:
        prepare(simulation)
        before = simulation.faults.writes
        ask(simulation)
        for _ in range(steps):
            simulation.step()
        over = all(item["status"].get("phase") == "available" for item in operations(simulation) if "status" in item)
        over = over and all("status" in item for item in operations(simulation))
        disturb(simulation)
        simulation.settle()
    return simulation, simulation.faults.writes - before, over


def operations(simulation: Simulation) -> list[Object]:
    return [item for kind in ("VolumeBackup", "VolumeRestore") for item in simulation.objects.all(kind)]


@pytest.mark.parametrize("name", ["create", "create, incremental", "restore to a new volume", "delete"])
def test_backup_can_be_renamed_at_any_moment(name: str) -> None:
    reference, writes = run(name)

    def rename(simulation: Simulation) -> None:
        for words in ("Monday", "Tuesday", "Monday"):
            for backup in simulation.objects.all("VolumeBackup"):
                simulation.objects.update(backup, spec=backup["spec"] | {"name": words})

    for steps in count():
        simulation, taken, over = disturbed(name, steps, rename)
        assert summary(simulation) == summary(reference), f"step {steps}\n{simulation.story()}"
        backups = simulation.objects.all("VolumeBackup")
        assert {backup["status"]["name"] for backup in backups} <= {"Monday"}
        assert taken <= writes + 2 * len(backups), f"step {steps}: {taken} writes instead of {writes}"
        if over:
            break


def test_backup_can_be_recreated_under_its_name() -> None:
    reference, _ = run("create")

    def again(simulation: Simulation) -> None:
        simulation.delete("VolumeBackup", "full")
        while simulation.exists("VolumeBackup", "full"):
            simulation.step()
        simulation.backup("full", "data")

    for steps in count():
        simulation, _, over = disturbed("create", steps, again)
        assert summary(simulation) == summary(reference), f"step {steps}\n{simulation.story()}"
        if over:
            break


@pytest.mark.parametrize(("name", "kind"), QUOTAS)
def test_exhausted_quota_only_delays_the_operation(name: str, kind: str) -> None:
    prepare, ask = SCENARIOS[name]
    reference, _ = run(name)
    with Simulation() as simulation:
        prepare(simulation)
        simulation.quota.add(kind)
        ask(simulation)
        simulation.until(*_latest_operation(simulation), "QuotaExceeded")
        simulation.quota.clear()
        simulation.settle()
    assert summary(simulation) == summary(reference), simulation.story()


@pytest.mark.parametrize(("name", "kind"), QUOTAS)
def test_permanent_quota_fails_without_leftovers(name: str, kind: str) -> None:
    prepare, ask = SCENARIOS[name]
    with Simulation() as simulation:
        prepare(simulation)
        claims = len(simulation.objects.all("PersistentVolumeClaim"))
        simulation.quota.add(kind)
        ask(simulation)
        operation = _latest_operation(simulation)
        simulation.settle()
        assert simulation.phase(*operation) in ("error", "error_restoring"), simulation.story()
        assert simulation.reason(*operation) == "QuotaExceeded"
        assert summary(simulation)["children"] == []
        assert len(simulation.objects.all("PersistentVolumeClaim")) == claims


def _latest_operation(simulation: Simulation) -> tuple[str, str]:
    """Return kind and name of the latest operation."""
    newest = max(operations(simulation), key=lambda item: item["metadata"]["uid"])
    return newest["kind"], newest["metadata"]["name"]


def test_failed_snapshot_attempt_makes_no_difference() -> None:
    reference, _ = run("create")
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "SnapshotNotReady")
        simulation.move(next(move for move in simulation.cluster.moves() if move.name.startswith("fail ")))
        simulation.until("VolumeBackup", "full", "the array is busy")
        simulation.settle()
    assert summary(simulation) == summary(reference)


def test_snapshot_never_ready_fails_without_leftovers() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        moves = simulation.cluster.moves
        simulation.cluster.moves = lambda: [m for m in moves() if not m.name.startswith("take ")]  # type: ignore[method-assign]
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "error"
        assert simulation.reason("VolumeBackup", "full") == "SnapshotNotReady"
        assert summary(simulation)["children"] == []
        assert simulation.stored() == []
