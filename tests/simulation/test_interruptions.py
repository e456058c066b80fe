"""What people and the cluster may do at any moment of an operation: it ends as if nobody had."""

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
"""What each operation makes."""
QUOTAS = [(name, kind) for name, made in MADE.items() for kind in made]


def disturbed(name: str, steps: int, disturb: Callable[[Simulation], object]) -> tuple[Simulation, int, bool]:
    """A scenario that is disturbed after so many steps; how many writes it took; and whether it was over by then."""
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
def test_a_backup_may_be_renamed_back_and_forth(name: str) -> None:
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


def test_a_backup_may_be_deleted_and_asked_for_again_under_its_name() -> None:
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
def test_a_quota_is_waited_for_and_makes_no_difference_once_there_is_room(name: str, kind: str) -> None:
    prepare, ask = SCENARIOS[name]
    reference, _ = run(name)
    with Simulation() as simulation:
        prepare(simulation)
        simulation.quota.add(kind)
        ask(simulation)
        simulation.until(*_asked(simulation), "QuotaExceeded")
        simulation.quota.clear()
        simulation.settle()
    assert summary(simulation) == summary(reference), simulation.story()


@pytest.mark.parametrize(("name", "kind"), QUOTAS)
def test_a_quota_that_never_has_room_ends_in_an_error_that_names_it_and_leaves_nothing(name: str, kind: str) -> None:
    prepare, ask = SCENARIOS[name]
    with Simulation() as simulation:
        prepare(simulation)
        claims = len(simulation.objects.all("PersistentVolumeClaim"))
        simulation.quota.add(kind)
        ask(simulation)
        asked = _asked(simulation)
        simulation.settle()
        assert simulation.phase(*asked) in ("error", "error_restoring"), simulation.story()
        assert simulation.reason(*asked) == "QuotaExceeded"
        assert summary(simulation)["children"] == []
        assert len(simulation.objects.all("PersistentVolumeClaim")) == claims


def _asked(simulation: Simulation) -> tuple[str, str]:
    """Kind and name of what was asked for last."""
    newest = max(operations(simulation), key=lambda item: item["metadata"]["uid"])
    return newest["kind"], newest["metadata"]["name"]


def test_a_snapshot_that_fails_first_makes_no_difference() -> None:
    reference, _ = run("create")
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "SnapshotNotReady")
        simulation.move(next(move for move in simulation.cluster.moves() if move.name.startswith("fail ")))
        simulation.until("VolumeBackup", "full", "the array is busy")
        simulation.settle()
    assert summary(simulation) == summary(reference)


def test_a_snapshot_that_is_never_ready_ends_in_an_error_and_leaves_nothing() -> None:
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
