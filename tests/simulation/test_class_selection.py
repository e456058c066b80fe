"""Classes: of the snapshot of a volume, and of the volume that is made from it for the mover to read.

A snapshot is read as a volume that is made from it: by the volume's own class, or by another one of its driver.

A volume that an administrator has provisioned by hand has the class "" (core/v1 PersistentVolumeClaim), by which no
volume is ever made.
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
    """A volume that was provisioned by hand."""
    with Simulation() as running:
        running.claim("data", "first", storage_class="")
        yield running


def test_a_volume_without_a_class_is_backed_up_through_one_of_its_driver(static: Simulation) -> None:
    static.backup("full", "data")
    static.settle()
    assert (static.phase("VolumeBackup", "full"), static.kept("full")) == ("available", "first")
    assert summary(static)["children"] == []


def test_so_is_one_whose_class_was_deleted_since() -> None:
    with Simulation() as running:
        running.claim("data", "first", storage_class="gone")
        running.backup("full", "data")
        running.settle()
        assert running.phase("VolumeBackup", "full") == "available"


def test_without_a_class_of_its_driver_it_is_said_at_once(static: Simulation) -> None:
    for item in static.objects.all("StorageClass"):
        static.objects.update(item, provisioner="nfs.example.org")
    static.backup("full", "data")
    static.until("VolumeBackup", "full", "StorageClassNotFound: No StorageClass of driver csi.example.org")
    static.settle()
    assert (static.phase("VolumeBackup", "full"), summary(static)["children"]) == ("error", [])


def test_without_snapshots_no_class_is_needed() -> None:
    with Simulation(snapshots=False) as running:
        running.claim("data", "first", storage_class="")
        for item in running.objects.all("StorageClass"):
            running.objects.delete(item)
        running.backup("full", "data")
        running.settle()
        assert running.phase("VolumeBackup", "full") == "available"


def keep_snapshots(running: Simulation) -> None:
    running.objects.update(running.get("VolumeSnapshotClass", "snap"), deletionPolicy="Retain")


@pytest.mark.parametrize("asked", [True, False])
def test_a_class_that_would_leave_every_snapshot_behind_is_not_used(asked: bool) -> None:
    with Simulation() as running:
        running.claim("data", "first")
        keep_snapshots(running)
        if asked:
            store = running.get("BackupStore", "default")
            running.objects.update(store, spec=store["spec"] | {"volumeSnapshotClassName": "snap"})
        running.backup("full", "data")
        running.until(
            "VolumeBackup", "full", "SnapshotClassNotFound: VolumeSnapshotClass snap has deletionPolicy Retain"
        )
        running.settle()
        assert (running.phase("VolumeBackup", "full"), summary(running)["children"]) == ("error", [])


def test_beside_it_another_one_is() -> None:
    with Simulation() as running:
        running.claim("data", "first")
        keep_snapshots(running)
        metadata = {"name": "passing", "annotations": {}}
        running.make("VolumeSnapshotClass", {"metadata": metadata, "driver": DRIVER, "deletionPolicy": "Delete"})
        running.backup("full", "data")
        running.until("VolumeBackup", "full", "SnapshotNotReady")
        (snapshot,) = running.objects.all("VolumeSnapshot")
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
def test_the_own_class_comes_first_then_the_drivers_default_then_the_first_by_name(
    own: str | None, classes: tuple[object, ...], chosen: str | None
) -> None:
    assert (
        storage_class_for_snapshot(observed_backup(accepted(), claim=a_claim(storageClassName=own), classes=classes))
        == chosen
    )
