"""A pod that starts during a copy does not make the backup inconsistent.

Cinder sets a volume to ``backing-up`` so that nobody can attach it (cinder/backup/manager.py ``create_backup``).
Kubernetes cannot prevent a pod from starting. A snapshot is not affected. A volume that is copied itself, because its
driver makes no snapshots, may have changed; so may the target of a restore (``restoring-backup`` in Cinder).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api.kubernetes import Pod
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.reconcile.gather import pods_using
from cinderblock.lifecycle.children import child_metadata
from tests.support.simulation.api import stamp
from tests.support.simulation.simulation import Simulation, summary


@pytest.fixture
def plain() -> Iterator[Simulation]:
    """Return a simulation with a running backup of a volume whose driver makes no snapshots."""
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        simulation.advance(10)
        yield simulation


def finish(simulation: Simulation) -> None:
    """Let the mover end before the next reconciliation."""
    (move,) = [move for move in simulation.cluster.moves() if move.name.endswith(" succeeds")]
    simulation.move(move)


def outcome(simulation: Simulation) -> tuple[str, str]:
    return simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")


def test_pod_does_not_disturb_a_snapshot_copy() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        simulation.pod("web", "data")
        simulation.settle()
        assert outcome(simulation) == ("available", "Available")


def test_pod_fails_a_copy_without_snapshot(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.settle()
    assert outcome(plain) == ("error", "VolumeInUse")
    assert "Pod web used the volume during the copy" in plain.get("VolumeBackup", "full")["status"]["failReason"]
    assert summary(plain)["children"] == ["web"]
    plain.delete("VolumeBackup", "full")
    plain.settle()
    assert (plain.phase("VolumeBackup", "full"), plain.stored()) == ("gone", [])


def test_pod_fails_a_copy_that_has_already_finished(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.advance(5)
    finish(plain)
    plain.settle()
    assert outcome(plain) == ("error", "VolumeInUse")


def test_ended_pod_fails_the_copy(plain: Simulation) -> None:
    plain.pod("web", "data")
    plain.end_pod("web")
    plain.settle()
    assert outcome(plain) == ("error", "VolumeInUse")


def add_evicted_pods(simulation: Simulation, count: int) -> None:
    """Add earlier pods of the running mover, which the cluster evicted: a Job repeats such pods without a limit."""
    (running,) = simulation.objects.all("Pod")
    ended = {"exitCode": 137, "startedAt": stamp(simulation.now), "finishedAt": stamp(simulation.now)}
    status = {"phase": "Failed", "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}]}
    for number in range(count):
        metadata = running["metadata"] | {"name": f"{running['metadata']['name']}-{number}"}
        pod = simulation.make("Pod", {"metadata": metadata, "spec": running["spec"], "status": status})
        created = {"creationTimestamp": running["metadata"]["creationTimestamp"]}
        simulation.objects.update(running, metadata=running["metadata"] | {"creationTimestamp": stamp(simulation.now)})
        simulation.objects.update(pod, metadata=pod["metadata"] | created)


def test_evicted_pods_of_a_mover_do_not_disturb_its_own_copy(plain: Simulation) -> None:
    add_evicted_pods(plain, 12)
    finish(plain)
    plain.settle()
    assert outcome(plain) == ("available", "Available")


def test_pods_of_another_operation_count_once(plain: Simulation) -> None:
    add_evicted_pods(plain, 12)
    other = VolumeBackup.model_validate(plain.backup("other", "data"))
    pods = [Pod.model_validate(pod) for pod in plain.objects.all("Pod")]
    assert plain._loop.run_until_complete(pods_using(plain._context, pods, other)) == ()


@pytest.mark.parametrize(("pods", "result"), [((), "Available"), (("web",), "VolumeInUse")])
def test_copy_that_release_0_1_0_began_is_judged_as_others(
    plain: Simulation, pods: tuple[str, ...], result: str
) -> None:
    """Release 0.1.0 recorded no UID of a mover, and this reason does not show that it had created the Job."""
    for pod in pods:
        plain.pod(pod, "data")
    finish(plain)
    backup = plain.get("VolumeBackup", "full")
    status = {key: value for key, value in backup["status"].items() if key != "mover"}
    waiting = [condition | {"reason": "KubeUnavailable"} for condition in status["conditions"]]
    plain.objects.update(backup, status=status | {"conditions": waiting})
    plain.restart()
    plain.settle()
    assert outcome(plain)[1] == result


def test_pods_before_and_after_the_copy_are_ignored() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        simulation.pod("before", "data")
        simulation.end_pod("before")
        simulation.advance(10)
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "MoverRunning")
        finish(simulation)
        simulation.advance(10)
        simulation.pod("after", "data")
        simulation.settle()
        assert outcome(simulation) == ("available", "Available")


def test_pending_pod_is_ignored(plain: Simulation) -> None:
    pod = plain.pod("web", "data")
    plain.objects.update(pod, status={"phase": "Pending"})
    plain.settle()
    assert outcome(plain) == ("available", "Available")


def test_pod_with_another_volume_is_ignored(plain: Simulation) -> None:
    plain.claim("other", "theirs")
    plain.pod("web", "other")
    plain.settle()
    assert outcome(plain) == ("available", "Available")


# Restores in place


@pytest.fixture
def restoring() -> Iterator[Simulation]:
    """Return a simulation with a running restore into an existing volume."""
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        simulation.restore("back", "full", volumeId="data")
        simulation.until("VolumeRestore", "back", "MoverRunning")
        simulation.advance(10)
        yield simulation


@pytest.mark.parametrize("in_time", [True, False])
def test_pod_fails_a_restore_in_place(restoring: Simulation, in_time: bool) -> None:
    restoring.pod("web", "data")
    if not in_time:
        restoring.advance(5)
        finish(restoring)
    restoring.settle()
    assert restoring.phase("VolumeRestore", "back") == "error_restoring"
    message = restoring.get("VolumeRestore", "back")["status"]["failReason"]
    assert message.startswith("Invalid volume: Volume to be restored to must be available. Pod web used it")
    assert summary(restoring)["children"] == ["web"]
    restoring.end_pod("web")
    restoring.advance(10)
    restoring.restore("again", "full", volumeId="data")
    restoring.settle()
    assert (restoring.phase("VolumeRestore", "again"), restoring.content("data")) == ("available", "first")


def test_pod_started_after_the_restore_is_ignored(restoring: Simulation) -> None:
    finish(restoring)
    restoring.advance(10)
    restoring.pod("web", "data")
    restoring.settle()
    assert restoring.phase("VolumeRestore", "back") == "available"


def test_pod_with_the_source_volume_does_not_disturb_a_restore(restoring: Simulation) -> None:
    restoring.settle()
    restoring.restore("new", "full", name="new")
    restoring.until("VolumeRestore", "new", "MoverRunning")
    restoring.pod("web", "data")
    restoring.settle()
    assert restoring.phase("VolumeRestore", "new") == "available"


def disguise(simulation: Simulation, pod: str, backup: str) -> None:
    """Give a user's pod the labels and annotations of a backup's mover, as the template of a Deployment can."""
    owner = VolumeBackup.model_validate(simulation.get("VolumeBackup", backup))
    body = simulation.get("Pod", pod)
    marks = {key: child_metadata(owner)[key] for key in ("labels", "annotations")}
    simulation.objects.update(body, metadata=body["metadata"] | marks)


def test_pod_with_the_labels_of_a_mover_fails_a_copy(plain: Simulation) -> None:
    plain.pod("web", "data")
    disguise(plain, "web", "full")
    plain.settle()
    assert outcome(plain) == ("error", "VolumeInUse")


def test_pod_with_the_labels_of_a_mover_uses_the_volume(backed_up: Simulation) -> None:
    backed_up.pod("web", "data")
    disguise(backed_up, "web", "full")
    backed_up.restore("back", "full", volumeId="data")
    backed_up.settle()
    assert backed_up.phase("VolumeRestore", "back") == "error_restoring"
    assert "Used by pod web" in backed_up.get("VolumeRestore", "back")["status"]["failReason"]
