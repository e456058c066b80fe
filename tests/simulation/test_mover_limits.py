"""Concurrent operations: the limits of movers hold, older operations go first, and no operation starves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import POLICY, Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        yield simulation


def run_counting_movers(simulation: Simulation, kind: str, names: list[str]) -> list[str]:
    """Continue until all operations have ended, and check the limit. Return them in the order of their movers."""
    order: list[str] = []
    for _ in range(3000):
        simulation.step()
        active = [job for job in simulation.objects.all("Job") if "status" not in job]
        assert len(active) <= POLICY.mover.limit, simulation.story()
        owners = [job["metadata"]["ownerReferences"][0]["name"] for job in simulation.objects.all("Job")]
        order += [name for name in owners if name not in order]
        if all(simulation.phase(kind, name) in ("available", "error_restoring", "error") for name in names):
            return order
    raise AssertionError(f"somebody starves:\n{simulation.story()}")


def test_movers_start_in_order_of_age(simulation: Simulation) -> None:
    names = [f"backup-{number}" for number in range(7)]
    for name in names:
        simulation.claim(f"data-{name}", name)
        simulation.backup(name, f"data-{name}")
        simulation.advance(1)
    order = run_counting_movers(simulation, "VolumeBackup", names)
    # As many as may run at once may start in any order, when there is room for all of them.
    assert all(abs(order.index(name) - place) < POLICY.mover.limit for place, name in enumerate(names))
    assert all(simulation.kept(name) == name for name in names)


def test_acknowledged_backup_completes(simulation: Simulation) -> None:
    simulation.claim("data", "content")
    simulation.backup("full", "data")
    simulation.acknowledge()
    backup = simulation.get("VolumeBackup", "full")
    assert (backup["status"]["phase"], simulation.reason("VolumeBackup", "full")) == ("creating", "Noticed")
    assert "finalizers" not in backup["metadata"], "nothing is stored, so nothing delays a deletion"
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.kept("full")) == ("available", "content")


def test_acknowledged_backups_can_fail_or_be_deleted(simulation: Simulation) -> None:
    for name in ("wrong", "unwanted"):
        simulation.backup(name, "nowhere")
    simulation.acknowledge()
    simulation.delete("VolumeBackup", "unwanted")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "wrong") == "error"
    assert not simulation.exists("VolumeBackup", "unwanted")
    assert simulation.stored() == []


def test_accepted_backup_is_not_acknowledged(simulation: Simulation) -> None:
    simulation.claim("data", "content")
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    simulation.erase_status("VolumeBackup", "full")
    simulation.acknowledge()
    assert simulation.phase("VolumeBackup", "full") != "creating"
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_restores_of_one_backup_run_in_parallel(simulation: Simulation) -> None:
    simulation.claim("data", "content")
    simulation.backup("full", "data")
    simulation.settle()
    names = [f"restore-{number}" for number in range(5)]
    for number, name in enumerate(names):
        simulation.restore(name, "full", name=f"new-{number}")
        simulation.advance(1)
    together = 0
    for _ in range(3000):
        simulation.step()
        together = max(together, len([job for job in simulation.objects.all("Job") if "status" not in job]))
        if all(simulation.phase("VolumeRestore", name) == "available" for name in names):
            break
    simulation.settle()
    assert together == POLICY.mover.limit
    assert [simulation.content(f"new-{number}") for number in range(5)] == ["content"] * 5
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_younger_backups_do_not_starve_an_older_one(simulation: Simulation) -> None:
    for number in range(4):
        simulation.claim(f"data-{number}", "content")
        simulation.backup(f"early-{number}", f"data-{number}")
    simulation.claim("mine", "mine")
    simulation.advance(1)
    simulation.backup("mine", "mine")
    simulation.advance(1)
    for number in range(10):
        simulation.claim(f"late-{number}", "content")
    before = [f"late-{number}" for number in range(10)]
    for name in before:
        simulation.backup(name, name)
        for _ in range(6):
            simulation.step()
    simulation.until("VolumeBackup", "mine", "MoverRunning")
    started = [name for name in before if simulation.phase("VolumeBackup", name) == "available"]
    assert len(started) <= POLICY.mover.limit, simulation.story()
