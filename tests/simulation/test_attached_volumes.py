"""A volume counts as attached by the pods that mount it, and by a VolumeAttachment that outlives them.

The rule is Cinder's (``Backing up an in-use volume must use the force flag.``); what "in-use" means is Kubernetes':
a pod may be gone, or forced to go, while its node still holds back what it has written.
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
    """With a backup, and attached again."""
    simulation.backup("full", "data", force=True)
    simulation.settle()
    simulation.write("data", "second")
    return simulation


def test_a_backup_waits_until_the_volume_is_detached(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "VolumeStillAttached: Invalid volume: Backing up an in-use volume")
    simulation.write("data", "what the node had held back")
    simulation.detach("data")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.kept("full") == "what the node had held back"


def test_a_volume_that_stays_attached_ends_the_backup_in_cinders_words(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "VolumeStillAttached",
    )
    said = simulation.get("VolumeBackup", "full")["status"]["failReason"]
    assert said.startswith("Invalid volume: Backing up an in-use volume must use the force flag.")
    assert "node-1" in said


def test_force_takes_it_as_it_is_through_a_snapshot(simulation: Simulation) -> None:
    simulation.backup("full", "data", force=True)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_force_without_snapshots_waits_since_the_volume_itself_would_be_read() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        simulation.attach("data", "node-1")
        simulation.backup("full", "data", force=True)
        simulation.until("VolumeBackup", "full", "VolumeStillAttached")
        simulation.detach("data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"


def test_who_waits_for_a_detachment_holds_up_nobody(simulation: Simulation) -> None:
    simulation.backup("careful", "data")
    simulation.until("VolumeBackup", "careful", "VolumeStillAttached")
    simulation.advance(1)
    simulation.backup("forced", "data", force=True)
    simulation.until("VolumeBackup", "forced", "Available")
    assert simulation.phase("VolumeBackup", "careful") == "creating"


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_volume_that_is_attached_for_another_operation_is_waited_for_as_long_as_that_takes(snapshots: bool) -> None:
    with Simulation(snapshots=snapshots) as running:
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        running.write("data", "second")
        running.restore("slow", "full", volumeId="data")
        running.until("VolumeRestore", "slow", "MoverRunning")
        running.attach("data", "node-1")
        running.backup("next", "data")
        moves, running.cluster.moves = running.cluster.moves, list  # type: ignore[method-assign]
        end = running.now.timestamp() + 3600
        while running.now.timestamp() < end:
            running.step()
        assert (running.phase("VolumeBackup", "next"), running.reason("VolumeBackup", "next")) == (
            "creating",
            "VolumeBusy",
        )
        running.cluster.moves = moves  # type: ignore[method-assign]
        running.until("VolumeRestore", "slow", "Restored")
        running.detach("data")
        running.settle()
        assert (running.phase("VolumeBackup", "next"), running.kept("next")) == ("available", "first")


def test_an_attachment_of_another_volume_does_not_count(simulation: Simulation) -> None:
    simulation.claim("other", "content")
    simulation.backup("full", "other")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_an_existing_volume_is_not_restored_while_a_node_may_write_to_it(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.until("VolumeRestore", "again", "VolumeStillAttached: Invalid volume: Volume to be restored to")
    assert stored.content("data") == "second"
    stored.detach("data")
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.content("data")) == ("available", "first")


def test_a_target_that_stays_attached_is_left_as_it_is(stored: Simulation) -> None:
    stored.restore("again", "full", volumeId="data")
    stored.settle()
    assert (stored.phase("VolumeRestore", "again"), stored.content("data")) == ("error_restoring", "second")


def test_a_new_volume_is_filled_whatever_is_attached(stored: Simulation) -> None:
    stored.restore("again", "full", name="new")
    stored.settle()
    assert stored.content("new") == "first"


def test_a_pod_that_begins_during_an_unattached_backup_does_not_spoil_it(simulation: Simulation) -> None:
    simulation.detach("data")
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "SnapshotNotReady")
    simulation.pod("web", "data")
    simulation.attach("data", "node-1")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_a_claim_that_is_applied_together_with_its_backup_is_waited_for(simulation: Simulation) -> None:
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


def test_a_claim_that_is_never_bound_ends_the_backup_in_cinders_words(simulation: Simulation) -> None:
    simulation.unbound_claim("young")
    simulation.backup("full", "young")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error"
    said = simulation.get("VolumeBackup", "full")["status"]["failReason"]
    assert 'must be available or in-use, but the current status is "pending". (waited 600 s)' in said
