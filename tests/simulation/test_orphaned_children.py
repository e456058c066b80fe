"""`kubectl delete --cascade=orphan` takes our owner references off: everything goes all the same, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cinderblock.api import labels as api_labels
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation, summary
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn

STARTS: dict[str, tuple[str, Callable[[Simulation], object]]] = {
    "a backup": ("VolumeBackup", lambda s: s.backup("gone", "data")),
    "a restore to a new volume": ("VolumeRestore", lambda s: s.restore("gone", "full", name="new")),
    "a restore to an existing one": ("VolumeRestore", lambda s: s.restore("gone", "full", volumeId="data")),
}


def orphaned(name: str, steps: int, crash_at: int | None) -> tuple[Simulation, bool]:
    """Delete an operation after some steps, and make its children orphans. Return whether it had ended before."""
    kind, start = STARTS[name]
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        start(simulation)
        for _ in range(steps):
            simulation.step()
        has_ended = simulation.phase(kind, "gone") == "available"
        if crash_at is not None:
            simulation.faults.plan(crash_at, Crash("scripted"), done=bool(crash_at % 2))
        simulation.delete(kind, "gone")
        simulation.orphan_children()
        simulation.settle()
    return simulation, has_ended


@pytest.mark.parametrize(("name", "crash_at"), pairs_in_turn([*STARTS], [None, 0, 1, 3]))
def test_orphans_of_a_deleted_operation_go(name: str, crash_at: int | None) -> None:
    has_ended, steps = False, 0
    while not has_ended:
        simulation, has_ended = orphaned(name, steps, crash_at)
        end, story = summary(simulation), f"step {steps}\n{simulation.story()}"
        assert simulation.phase(STARTS[name][0], "gone") == "gone", story
        assert end["children"] == [], story
        assert set(end["claims"]) <= {"data", "new"}, story
        assert len(end["volumes"]) == len(end["claims"]), story
        assert {marks for _, _, marks in end["volumes"]} == {""}, story
        steps += 2
    assert steps > 10


def test_objects_that_only_resemble_orphans_stay() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        backup = simulation.backup("gone", "data")
        simulation.until("VolumeBackup", "gone", "MoverRunning")
        uid = backup["metadata"]["uid"]
        child = api_labels.child_name(uid)
        ours = simulation.get("PersistentVolumeClaim", child)["metadata"]
        spec = {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
        labelled = {"name": "labelled", "namespace": NAMESPACE, "labels": ours["labels"]}
        simulation.make("PersistentVolumeClaim", {"metadata": labelled, "spec": spec})
        named = {"name": child, "namespace": NAMESPACE, "labels": ours["labels"]}
        web = simulation.make("Deployment", {"metadata": {"name": "web", "namespace": NAMESPACE}})
        owner = {"kind": "Deployment", "name": "web", "uid": web["metadata"]["uid"]}
        owned = named | {"ownerReferences": [owner]}
        snapshot = simulation.get("VolumeSnapshot", child)
        simulation.objects.update(snapshot, metadata=snapshot["metadata"] | owned)
        simulation.delete("VolumeBackup", "gone")
        for _ in range(200):
            simulation.step()
        assert simulation.exists("PersistentVolumeClaim", "labelled")
        assert simulation.exists("VolumeSnapshot", child), "somebody else owns it"
        assert not simulation.exists("PersistentVolumeClaim", child)
