"""The choice of classes: of the snapshot of a volume, and of the volume that exposes it to the mover.

A snapshot is exposed as a volume that the volume's own class creates, or another class of its driver. A statically
provisioned volume has the class "" (core/v1 PersistentVolumeClaim), which creates no volumes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.lifecycle.backup.snapshot_checks import storage_class_for_snapshot
from tests.support.simulation.cluster import DRIVER
from tests.support.simulation.observed_builders import a_claim, a_class, accepted, observed_backup
from tests.support.simulation.simulation import Simulation, summary

DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
STRANGER = a_class("stranger", provisioner="nfs.example.org", annotations=DEFAULT)


@pytest.fixture
def static() -> Iterator[Simulation]:
    """Return a simulation with a statically provisioned volume."""
    with Simulation() as simulation:
        simulation.claim("data", "first", storage_class="")
        yield simulation


def test_volume_without_class_uses_a_class_of_its_driver(static: Simulation) -> None:
    static.backup("full", "data")
    static.settle()
    assert (static.phase("VolumeBackup", "full"), static.kept("full")) == ("available", "first")
    assert summary(static)["children"] == []


def test_volume_of_a_deleted_class_uses_another_class() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first", storage_class="gone")
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"


def test_driver_without_storage_class_fails_at_once(static: Simulation) -> None:
    for item in static.objects.all("StorageClass"):
        static.objects.update(item, provisioner="nfs.example.org")
    static.backup("full", "data")
    static.until("VolumeBackup", "full", "no StorageClass of driver csi.example.org")
    static.settle()
    assert (static.phase("VolumeBackup", "full"), summary(static)["children"]) == ("error", [])


def test_copy_without_snapshot_needs_no_class() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first", storage_class="")
        for item in simulation.objects.all("StorageClass"):
            simulation.objects.delete(item)
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"


def keep_snapshots(simulation: Simulation) -> None:
    simulation.objects.update(simulation.get("VolumeSnapshotClass", "snap"), deletionPolicy="Retain")


@pytest.mark.parametrize("is_named", [True, False])
def test_snapshot_class_with_retain_is_not_used(is_named: bool) -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        keep_snapshots(simulation)
        if is_named:
            store = simulation.get("BackupStore", "default")
            simulation.objects.update(store, spec=store["spec"] | {"volumeSnapshotClassName": "snap"})
        simulation.backup("full", "data")
        simulation.until(
            "VolumeBackup", "full", "SnapshotClassNotFound: Cannot use VolumeSnapshotClass snap: deletionPolicy Retain"
        )
        simulation.settle()
        assert (simulation.phase("VolumeBackup", "full"), summary(simulation)["children"]) == ("error", [])


def test_other_snapshot_class_is_used_instead() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        keep_snapshots(simulation)
        metadata = {"name": "passing", "annotations": {}}
        simulation.make("VolumeSnapshotClass", {"metadata": metadata, "driver": DRIVER, "deletionPolicy": "Delete"})
        simulation.backup("full", "data")
        simulation.until("VolumeBackup", "full", "SnapshotNotReady")
        (snapshot,) = simulation.objects.all("VolumeSnapshot")
        assert snapshot["spec"]["volumeSnapshotClassName"] == "passing"


@pytest.mark.parametrize(
    ("own", "classes", "chosen"),
    [
        ("fast", (a_class("fast"), a_class("best", annotations=DEFAULT)), "fast"),
        ("", (a_class("fast"), a_class("slow", annotations=DEFAULT), STRANGER), "slow"),
        (None, (a_class("slow"), a_class("fast"), STRANGER), "fast"),
        ("gone", (STRANGER,), None),
    ],
)
def test_storage_class_is_own_then_default_then_first(
    own: str | None, classes: tuple[object, ...], chosen: str | None
) -> None:
    assert (
        storage_class_for_snapshot(observed_backup(accepted(), claim=a_claim(storageClassName=own), classes=classes))
        == chosen
    )
