"""Damage in the backups of a volume decides about the next backup."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle.backup.damage import MAX_AVOIDED, avoided_packs, damaged_packs, is_usable
from tests.support.simulation.observed_builders import NOW, available

HOUR = timedelta(hours=1)


def damaged(uid: str, *objects: str, count: int | None = None, **fields: Any) -> VolumeBackup:
    """Return a backup that a verification found damaged an hour ago."""
    found = {"result": "Damaged", "recordedFor": uid, "damagedAt": NOW - HOUR, "objects": list(objects)}
    return available(uid, verification=found | {"damagedObjects": count or len(objects)} | fields)


def test_packs_are_named_without_the_prefix_and_without_manifests() -> None:
    backups = [
        damaged("a", "p/x/packs/v/a/1", "p/x/backups/v/a.manifest"),
        damaged("b", "p/x/packs/v/a/1", "p/x/packs/v/b/1"),
    ]
    assert damaged_packs(backups) == ("p/x/packs/v/a/1", "p/x/packs/v/b/1")
    assert avoided_packs(backups, "p/x") == ["packs/v/a/1", "packs/v/b/1"]
    assert avoided_packs([damaged("a", "packs/v/a/1")], "") == ["packs/v/a/1"]


@pytest.mark.parametrize("count", [MAX_AVOIDED, MAX_AVOIDED + 1])
def test_task_names_a_bounded_number_of_packs(count: int) -> None:
    keys = [f"packs/v/a/{number}" for number in range(count)]
    backups = [damaged(f"b-{start}", *keys[start : start + 20]) for start in range(0, count, 20)]
    assert len(avoided_packs(backups, "")) == MAX_AVOIDED
    assert is_usable(available("old", completedAt=NOW - 2 * HOUR), backups) is (count <= MAX_AVOIDED)


def test_parent_is_not_used_if_some_damage_has_no_name() -> None:
    unnamed = [damaged("a", "packs/v/a/1", count=9)]
    assert not is_usable(available("old", completedAt=NOW - 2 * HOUR), unnamed)
    assert is_usable(available("new", completedAt=NOW), unnamed), "it was made after the damage was found"


def test_undamaged_volume_changes_nothing() -> None:
    assert is_usable(available("parent"), [])
    assert avoided_packs([], "p") == []


def test_copied_summary_is_no_damage() -> None:
    assert not damaged("a", "packs/v/a/1", recordedFor="other").is_damaged
