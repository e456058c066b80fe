"""A volume counts as attached while pods mount it, and while a VolumeAttachment exists.

The rule is Cinder's (``Backing up an in-use volume must use the force flag.``). In Kubernetes, a node may still hold
unwritten data of a pod that has ended or was removed by force.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.attach("data", "node-1")
        yield simulation


@pytest.fixture
def stored(simulation: Simulation) -> Simulation:
    """Return the simulation with a backup of the attached volume."""
    simulation.backup("full", "data", force=True)
    simulation.settle()
    simulation.write("data", "second")
    return simulation


def test_backup_waits_for_the_detachment(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "VolumeStillAttached: Invalid volume: Backing up an in-use volume")
    simulation.write("data", "what the node had held back")
    simulation.detach("data")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.kept("full") == "what the node had held back"


def test_attached_volume_fails_the_backup_with_cinders_message(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "VolumeStillAttached",
    )
    message = simulation.get("VolumeBackup", "full")["status"]["failReason"]
    assert message.startswith("Invalid volume: Backing up an in-use volume must use the force flag.")
    assert "node-1" in message


def test_forced_backup_snapshots_an_attached_volume(simulation: Simulation) -> None:
    simulation.backup("full", "data", force=True)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_forced_backup_without_snapshots_waits_for_the_detachment() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        simulation.attach("data", "node-1")
        simulation.backup("full", "data", force=True)
        simulation.until("VolumeBackup", "full", "VolumeStillAttached")
        simulation.detach("data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"


def test_waiting_for_a_detachment_does_not_block_others(simulation: Simulation) -> None:
    simulation.backup("careful", "data")
    simulation.until("VolumeBackup", "careful", "VolumeStillAttached")
    simulation.advance(1)
    simulation.backup("forced", "data", force=True)
    simulation.until("VolumeBackup", "forced", "Available")
    assert simulation.phase("VolumeBackup", "careful") == "creating"


@pytest.mark.parametrize("snapshots", [True, False])
def test_volume_attached_for_another_operation_has_no_deadline(snapshots: bool) -> None:
    with Simulation(snapshots=snapshots) as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        simulation.write("data", "second")
        simulation.restore("slow", "full", volumeId="data")
        simulation.until("VolumeRestore", "slow", "MoverRunning")
        simulation.attach("data", "node-1")
        simulation.backup("next", "data")
        moves, simulation.cluster.moves = simulation.cluster.moves, list  # type: ignore[method-assign]
        end = simulation.now.timestamp() + 3600
        while simulation.now.timestamp() < end:
            simulation.step()
        assert (simulation.phase("VolumeBackup", "next"), simulation.reason("VolumeBackup", "next")) == (
            "creating",
            "VolumeBusy",
        )
        simulation.cluster.moves = moves  # type: ignore[method-assign]
        simulation.until("VolumeRestore", "slow", "Restored")
        simulation.detach("data")
        simulation.settle()
        assert (simulation.phase("VolumeBackup", "next"), simulation.kept("next")) == ("available", "first")


def test_attachment_of_another_volume_is_ignored(simulation: Simulation) -> None:
    simulation.claim("other", "content")
    simulation.backup("full", "other")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_restore_in_place_waits_for_the_detachment(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.until("VolumeRestore", "again", "VolumeStillAttached: Invalid volume: Volume to be restored to")
    assert stored.content("data") == "second"
    stored.detach("data")
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.content("data")) == ("available", "first")


def test_attached_target_stays_unchanged(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.content("data")) == ("error_restoring", "second")


def test_new_volume_ignores_attachments(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"


def test_pod_started_during_the_copy_does_no_harm(simulation: Simulation) -> None:
    simulation.detach("data")
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    simulation.pod("web", "data")
    simulation.attach("data", "node-1")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_backup_waits_for_its_claim_to_be_bound(simulation: Simulation) -> None:
    simulation.unbound_claim("young")
    simulation.backup("full", "young")
    simulation.until("VolumeBackup", "full", "VolumeNotBound")
    simulation.pod("web", "young")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "VolumeInUse", "bound by its consumer, which uses it"
    simulation.delete("Pod", "web")
    simulation.backup("next", "young")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "next") == "available"


def test_unbound_claim_fails_the_backup_with_cinders_message(simulation: Simulation) -> None:
    simulation.unbound_claim("young")
    simulation.backup("full", "young")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error"
    message = simulation.get("VolumeBackup", "full")["status"]["failReason"]
    assert 'must be available or in-use, but the current status is "pending". (waited 600 s)' in message
