"""Damage in the backups of a volume decides about the next backup."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle.backup.damage import (
    CLOCK_SKEW,
    MAX_AVOIDED,
    avoided_packs,
    damaged_packs,
    is_usable,
    significant,
)
from tests.support.simulation.observed_builders import NOW, available

HOUR = timedelta(hours=1)


def damaged(uid: str, *objects: str, count: int | None = None, **fields: Any) -> VolumeBackup:
    """Return a backup that a verification found damaged an hour ago."""
    found = {"result": "Damaged", "recordedFor": uid, "damagedAt": NOW - HOUR, "objects": list(objects)}
    return available(uid, verification=found | {"damagedObjects": count or len(objects)} | fields)


def requested(at: datetime) -> VolumeBackup:
    """Return a sound backup that was requested at a time, and whose data is as old."""
    return available("parent", created=at, dataTimestamp=at, completedAt=NOW)


def many(uid: str, count: int, at: datetime) -> VolumeBackup:
    """Return a backup with damaged packs of its own, found at a time."""
    return damaged(uid, *(f"packs/v/{uid}/{number}" for number in range(count)), damagedAt=at)


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
    assert is_usable(requested(NOW - 2 * HOUR), backups) is (count <= MAX_AVOIDED)


def test_parent_is_not_used_if_some_damage_has_no_name() -> None:
    unnamed = [damaged("a", "packs/v/a/1", count=9)]
    assert not is_usable(requested(NOW - 2 * HOUR), unnamed)
    assert is_usable(requested(NOW), unnamed), "it was made after the damage was found"
    assert not is_usable(requested(NOW - HOUR + CLOCK_SKEW), unnamed), "clocks differ"


def test_parent_that_was_running_when_damage_was_found_may_list_it() -> None:
    unnamed = [damaged("a", "packs/v/a/1", count=9)]
    running = {"created": NOW - 2 * HOUR, "completedAt": NOW}
    assert not is_usable(available("parent", dataTimestamp=NOW - 2 * HOUR, **running), unnamed)
    assert not is_usable(available("parent", dataTimestamp=NOW, **running), unnamed), "its parent was chosen before"
    imported = available("parent", created=NOW, completedAt=None, dataTimestamp=NOW - 2 * HOUR)
    assert not is_usable(imported, unnamed), "its data is old"


def test_packs_of_the_latest_damage_are_avoided_first() -> None:
    old = [many(f"old-{number}", 20, NOW - 9 * HOUR) for number in range(4)]
    new = many("z", 20, NOW - HOUR)
    assert is_usable(requested(NOW - 5 * HOUR), [*old, new])
    for known in ([*old, new], [new, *old]):
        avoided = avoided_packs(known, "")
        assert len(avoided) == MAX_AVOIDED
        assert set(damaged_packs([new])) <= set(avoided)


def test_few_damaged_backups_decide_the_same_as_all() -> None:
    """A slow oracle: the backups that are kept one by one lead to the same answers as all of them."""
    for seed in range(300):
        rnd = random.Random(seed)
        backups = [
            damaged(
                f"d-{number}",
                *{f"packs/v/a/{rnd.randrange(90)}" for _ in range(rnd.randrange(20))},
                count=rnd.choice((0, 0, 0, 30)),
                damagedAt=NOW - rnd.randrange(20) * HOUR,
            )
            for number in range(rnd.randrange(1, 12))
        ]
        kept: list[VolumeBackup] = []
        for backup in backups:
            kept = significant((*kept, backup), 1)
        assert kept
        for hours in range(21):
            parent = requested(NOW - hours * HOUR)
            assert is_usable(parent, kept) is is_usable(parent, backups), f"seed {seed}"


def test_undamaged_volume_changes_nothing() -> None:
    assert is_usable(available("parent"), [])
    assert avoided_packs([], "p") == []


def test_copied_summary_is_no_damage() -> None:
    assert not damaged("a", "packs/v/a/1", recordedFor="other").is_damaged
