"""The VolumeSnapshotClass of a backup: that of its BackupStore, otherwise the one of the volume's driver."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cinderblock.api.kubernetes import DEFAULT_SNAPSHOT_CLASS_ANNOTATION, VolumeSnapshotClass
from cinderblock.lifecycle.backup.snapshot_checks import choose_snapshot_class
from tests.support.simulation.observed_builders import a_store

DRIVER = "csi.example.com"


def snapshot_class(
    name: str, driver: str = DRIVER, *, default: str | None = None, age: int = 0, policy: str = "Delete"
) -> VolumeSnapshotClass:
    """Return a VolumeSnapshotClass of ``age`` days."""
    annotations = {DEFAULT_SNAPSHOT_CLASS_ANNOTATION: default} if default else {}
    created = datetime(2026, 1, 28 - age, tzinfo=UTC)
    metadata = {"name": name, "creationTimestamp": created, "annotations": annotations}
    return VolumeSnapshotClass.model_validate({"metadata": metadata, "driver": driver, "deletionPolicy": policy})


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], None),
        ([snapshot_class("a", "other.example.com", default="true")], None),
        ([snapshot_class("only")], "only"),
        ([snapshot_class("a"), snapshot_class("b", default="true")], "b"),
        ([snapshot_class("only"), snapshot_class("x", "other.example.com", default="true")], "only"),
        ([snapshot_class("old", default="true", age=3), snapshot_class("new", default="true")], "new"),
        ([snapshot_class("b", default="true"), snapshot_class("a", default="true")], "a"),
        ([snapshot_class("keeps", default="true", policy="Retain"), snapshot_class("deletes")], "deletes"),
    ],
    ids=[
        "no class",
        "another driver's class",
        "the only class",
        "the default class",
        "the only class of the driver",
        "the newest default class",
        "the first by name of equally old ones",
        "the only class that deletes snapshots",
    ],
)
def test_class_is_the_default_or_the_only_one(classes: list[VolumeSnapshotClass], expected: str | None) -> None:
    chosen, error = choose_snapshot_class(a_store(), classes, DRIVER)
    assert (chosen.name if chosen else None, error) == (expected, "")


@pytest.mark.parametrize("second", [snapshot_class("b"), snapshot_class("b", default="false")])
def test_several_classes_without_default_are_an_error(second: VolumeSnapshotClass) -> None:
    chosen, error = choose_snapshot_class(a_store(), [snapshot_class("a"), second], DRIVER)
    assert chosen is None
    assert f"driver {DRIVER} has several (a, b), and none is the default" in error


def test_class_of_the_store_wins_over_the_default() -> None:
    classes = [snapshot_class("fast"), snapshot_class("default", default="true")]
    chosen, _ = choose_snapshot_class(a_store(volumeSnapshotClassName="fast"), classes, DRIVER)
    assert chosen is classes[0]


def test_missing_class_of_the_store_is_an_error() -> None:
    chosen, error = choose_snapshot_class(a_store(volumeSnapshotClassName="gone"), [snapshot_class("a")], DRIVER)
    assert chosen is None
    assert "names VolumeSnapshotClass gone, which does not exist" in error


def test_class_of_the_store_for_another_driver_takes_no_snapshots() -> None:
    """The BackupStore names one class, and volumes of other drivers are copied without snapshots."""
    classes = [snapshot_class("fast", "other.example.com")]
    assert choose_snapshot_class(a_store(volumeSnapshotClassName="fast"), classes, DRIVER) == (None, "")


@pytest.mark.parametrize("store", [a_store(), a_store(volumeSnapshotClassName="keeps")], ids=["none", "named"])
def test_class_that_keeps_snapshots_is_an_error(store: object) -> None:
    chosen, error = choose_snapshot_class(store, [snapshot_class("keeps", policy="Retain")], DRIVER)  # type: ignore[arg-type]
    assert chosen is None
    assert "Cannot use VolumeSnapshotClass keeps" in error
