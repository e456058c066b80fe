"""A pod that starts during an unattached backup does not spoil it: a backup that is available is of one instant.

Cinder sets a volume to ``backing-up``, and nobody can attach it (cinder/backup/manager.py ``create_backup``). Nothing
keeps a pod from starting in Kubernetes. Through a snapshot it does no harm; a volume that is itself copied, because its
driver makes no snapshots, may have been written to. So may one that is restored over (``restoring-backup`` in Cinder).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation, summary


@pytest.fixture
def plain() -> Iterator[Simulation]:
    """A volume whose driver makes no snapshots, and a mover that reads it."""
    with Simulation(snapshots=False) as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.until("VolumeBackup", "full", "MoverRunning")
        running.advance(10)
        yield running


def finish(simulation: Simulation) -> None:
    """Let the mover end, before the operator looks again."""
    (move,) = [move for move in simulation.cluster.moves() if move.name.endswith(" succeeds")]
    simulation.move(move)


def said(simulation: Simulation) -> tuple[str, str]:
    return simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")


def test_through_a_snapshot_it_does_no_harm() -> None:
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.until("VolumeBackup", "full", "MoverRunning")
        running.pod("web", "data")
        running.settle()
        assert said(running) == ("available", "Available")


def test_a_volume_without_snapshots_that_a_pod_gets_meanwhile_makes_no_backup(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.settle()
    assert said(plain) == ("error", "VolumeInUse")
    assert "Pod web used the volume while it was copied" in plain.get("VolumeBackup", "full")["status"]["failReason"]
    assert summary(plain)["children"] == ["web"]
    plain.delete("VolumeBackup", "full")
    plain.settle()
    assert (plain.phase("VolumeBackup", "full"), plain.stored()) == ("gone", [])


def test_nor_does_a_copy_that_was_finished_before_the_operator_looked(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.advance(5)
    finish(plain)
    plain.settle()
    assert said(plain) == ("error", "VolumeInUse")


def test_a_pod_that_has_ended_again_counts_as_well(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.end_pod("web")
    plain.settle()
    assert said(plain) == ("error", "VolumeInUse")


def test_a_pod_that_ended_before_and_one_that_began_after_do_not_count() -> None:
    with Simulation(snapshots=False) as running:
        running.claim("data", "first")
        running.pod("before", "data")
        running.end_pod("before")
        running.advance(10)
        running.backup("full", "data")
        running.until("VolumeBackup", "full", "MoverRunning")
        finish(running)
        running.advance(10)
        running.pod("after", "data")
        running.settle()
        assert said(running) == ("available", "Available")


def test_a_pod_that_has_not_started_yet_does_not_count(plain: Simulation) -> None:
    pod = plain.pod("web", "data")
    plain.objects.update(pod, status={"phase": "Pending"})
    plain.settle()
    assert said(plain) == ("available", "Available")


def test_a_pod_with_another_volume_does_not_count(plain: Simulation) -> None:
    plain.claim("other", "theirs")
    plain.pod("web", "other")
    plain.settle()
    assert said(plain) == ("available", "Available")


# -- restored over


@pytest.fixture
def restoring() -> Iterator[Simulation]:
    """An existing volume that a mover writes to."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        running.restore("back", "full", volumeId="data")
        running.until("VolumeRestore", "back", "MoverRunning")
        running.advance(10)
        yield running


@pytest.mark.parametrize("in_time", [True, False])
def test_a_volume_that_a_pod_gets_while_it_is_restored_is_not_called_restored(
    restoring: Simulation, in_time: bool
) -> None:
    restoring.pod("web", "data")
    if not in_time:
        restoring.advance(5)
        finish(restoring)
    restoring.settle()
    assert restoring.phase("VolumeRestore", "back") == "error_restoring"
    said = restoring.get("VolumeRestore", "back")["status"]["failReason"]
    assert said.startswith("Invalid volume: Volume to be restored to must be available. Pod web used it")
    assert summary(restoring)["children"] == ["web"]
    restoring.end_pod("web")
    restoring.advance(10)
    restoring.restore("again", "full", volumeId="data")
    restoring.settle()
    assert (restoring.phase("VolumeRestore", "again"), restoring.content("data")) == ("available", "first")


def test_a_pod_that_begins_after_the_volume_was_restored_does_no_harm(restoring: Simulation) -> None:
    finish(restoring)
    restoring.advance(10)
    restoring.pod("web", "data")
    restoring.settle()
    assert restoring.phase("VolumeRestore", "back") == "available"


def test_a_pod_with_the_volume_that_was_backed_up_does_a_new_one_no_harm(restoring: Simulation) -> None:
    restoring.settle()
    restoring.restore("new", "full", name="new")
    restoring.until("VolumeRestore", "new", "MoverRunning")
    restoring.pod("web", "data")
    restoring.settle()
    assert restoring.phase("VolumeRestore", "new") == "available"
