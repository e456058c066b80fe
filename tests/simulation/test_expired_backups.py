"""Expired backups go without waiting for dependents, and take nothing along that others list."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.errors import StoreUnreachable
from cinderblock.store.memory import MemoryStore
from tests.simulation.test_locked_data import use_bucket
from tests.support.simulation.api import stamp
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation, api_outage, is_restorable
from tests.support.store.faults import Crash


def line(simulation: Simulation, letters: str) -> dict[str, str]:
    """Make a full backup and incremental ones. Return their ids."""
    ids = {}
    for number, letter in enumerate(letters):
        ids[letter] = simulation.backup(letter, "data", incremental=number > 0)["metadata"]["uid"]
        simulation.settle()
    return ids


def phases(simulation: Simulation, letters: str) -> dict[str, str]:
    return {letter: simulation.phase("VolumeBackup", letter) for letter in letters}


def notes(simulation: Simulation, reason: str) -> list[str]:
    return [event["note"] for event in simulation.objects.all("Event") if event["reason"] == reason]


@pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "bc", "ac"])
def test_what_stays_can_be_restored(simulation: Simulation, gone: str) -> None:
    ids = line(simulation, "abc")
    simulation.expire(*gone)
    simulation.settle()
    for letter in "abc":
        expected = "gone" if letter in gone else "available"
        assert simulation.phase("VolumeBackup", letter) == expected
        assert is_restorable(simulation, ids[letter]) is (expected == "available")
    assert ("Expired", 1) in simulation.events()
    simulation.expire(*(letter for letter in "abc" if letter not in gone))
    simulation.settle()
    assert simulation.stored() == []


def test_event_says_how_many_packs_stay(simulation: Simulation) -> None:
    line(simulation, "ab")
    simulation.expire("a", "b")
    simulation.settle()
    assert set(notes(simulation, "Expired")) == {"The expired VolumeBackup and its data were removed"}
    line(simulation, "cd")
    simulation.expire("c")
    simulation.settle()
    assert notes(simulation, "Expired")[-1].endswith("its data were removed, except 1 pack that other backups list")


def test_event_does_not_claim_to_have_removed_what_was_not_there(simulation: Simulation) -> None:
    """The endpoint of a BackupStore may be changed before its bucket is copied there."""
    line(simulation, "a")
    before = simulation.cluster.store
    simulation.cluster.store = MemoryStore()
    simulation.expire("a")
    simulation.settle()
    [note] = notes(simulation, "Expired")
    assert "held nothing of it any more" in note
    assert len(list(before.list(""))) == 2


def test_backup_of_a_chain_without_ancestors_is_a_parent(simulation: Simulation) -> None:
    ids = line(simulation, "abc")
    simulation.expire("a", "b")
    simulation.settle()
    child = simulation.backup("d", "data", incremental=True)["metadata"]["uid"]
    simulation.settle()
    assert simulation.get("VolumeBackup", "d")["status"]["parentId"] == ids["c"]
    simulation.expire("c")
    simulation.settle()
    assert is_restorable(simulation, child)


def test_person_who_deletes_before_that_time_waits_for_dependents(simulation: Simulation) -> None:
    line(simulation, "ab")
    found = simulation.get("VolumeBackup", "a")
    late = stamp(simulation.now + timedelta(hours=2))
    simulation.objects.update(found, status=found["status"] | {"expiresAt": late})
    simulation.delete("VolumeBackup", "a")
    simulation.settle()
    simulation.advance(86400)
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "a"), simulation.reason("VolumeBackup", "a")) == (
        "deleting",
        "HasDependentBackups",
    )
    simulation.expire("b")
    simulation.settle()
    assert simulation.stored() == []


def test_person_deletes_the_last_backup_that_lists_inherited_packs(simulation: Simulation) -> None:
    line(simulation, "abc")
    simulation.expire("a", "b")
    simulation.settle()
    simulation.delete("VolumeBackup", "c")
    simulation.settle()
    assert simulation.stored() == []


def test_retained_backup_keeps_its_data(simulation: Simulation) -> None:
    kept = simulation.backup("a", "data", deletionPolicy="Retain")["metadata"]["uid"]
    simulation.settle()
    simulation.expire("a")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "a") == "gone"
    assert is_restorable(simulation, kept)


# What an expired backup waits for


def test_restore_is_awaited_and_holds_up_no_others(simulation: Simulation) -> None:
    line(simulation, "abc")
    simulation.restore("again", "a", name="new")
    simulation.until("VolumeRestore", "again", "MoverRunning")
    simulation.expire("a", "b")
    simulation.until("VolumeBackup", "a", "VolumeRestore again reads this backup")
    assert simulation.reason("VolumeBackup", "a") == "BackupInUse"
    simulation.settle()
    assert phases(simulation, "abc") == {"a": "gone", "b": "gone", "c": "available"}
    assert simulation.content("new") == "first"


def test_unfinished_child_is_awaited(simulation: Simulation) -> None:
    line(simulation, "ab")
    child = simulation.backup("c", "data", incremental=True)["metadata"]["uid"]
    simulation.until("VolumeBackup", "c", "MoverRunning")
    simulation.expire("a", "b")
    simulation.until("VolumeBackup", "b", "VolumeBackup c is being made, and builds on this backup")
    simulation.settle()
    assert phases(simulation, "abc") == {"a": "gone", "b": "gone", "c": "available"}
    assert is_restorable(simulation, child)


def test_imported_alias_needs_the_manifest_itself(simulation: Simulation) -> None:
    line(simulation, "ab")
    key = simulation.get("VolumeBackup", "a")["status"]["manifestKey"]
    simulation.import_backup("alias", "another-id", manifest=key)
    simulation.settle()
    simulation.expire("a")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "a") == "HasDependentBackups"
    simulation.delete("VolumeBackup", "alias")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "a") == "gone"


def test_silent_store_is_awaited(simulation: Simulation) -> None:
    line(simulation, "ab")
    before = simulation.stored()
    simulation.store.error = StoreUnreachable("no answer")
    simulation.expire("a")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "a"), simulation.stored()) == ("error_deleting", before)
    simulation.store.error = None
    simulation.settle()
    assert simulation.phase("VolumeBackup", "a") == "gone"


def test_unreadable_manifest_holds_all_and_is_named(simulation: Simulation) -> None:
    line(simulation, "abcdefgh")
    key = simulation.get("VolumeBackup", "h")["status"]["manifestKey"]
    sound = simulation.cluster.store.get(key)
    simulation.break_manifest("h")
    before = simulation.stored()
    simulation.store.asked.clear()
    simulation.expire(*"abcd")
    simulation.settle()
    assert simulation.stored() == before
    for letter in "abcd":
        assert simulation.reason("VolumeBackup", letter) == "ReferencesUnknown"
        assert key in simulation.get("VolumeBackup", letter)["status"]["conditions"][0]["message"]
    simulation.store.asked.clear()
    began = simulation.now
    while simulation.now < began + timedelta(minutes=30):
        simulation.step()
    assert sum(simulation.store.asked.values()) <= 30 * 12, "one look a minute, for all of them"
    simulation.cluster.store.put(key, sound)
    simulation.settle()
    assert phases(simulation, "abcdh") == dict.fromkeys("abcd", "gone") | {"h": "available"}


@pytest.mark.parametrize("shows_locks", [True, False])
def test_locked_backup_waits_alone(simulation: Simulation, shows_locks: bool) -> None:
    bucket = use_bucket(simulation, has_lock=True)
    simulation.cluster.store.kept.shows_locks = shows_locks  # type: ignore[attr-defined]
    ids = line(simulation, "abc")
    (manifest,) = (versions[0] for key, versions in bucket.versions.items() if f"{ids['a']}.manifest" in key)
    manifest.mode, manifest.until = "COMPLIANCE", simulation.now + timedelta(days=2)
    simulation.expire("a", "b")
    simulation.settle()
    assert phases(simulation, "abc") == {"a": "deleting", "b": "gone", "c": "available"}
    assert simulation.reason("VolumeBackup", "a") == "Locked"
    assert is_restorable(simulation, ids["a"])
    assert is_restorable(simulation, ids["c"])
    while simulation.now < manifest.until + timedelta(hours=2):
        simulation.step()
    assert phases(simulation, "abc") == {"a": "gone", "b": "gone", "c": "available"}
    simulation.expire("c")
    simulation.settle()
    assert simulation.stored() == []


def test_locks_of_a_default_retention_are_awaited_by_all(simulation: Simulation) -> None:
    bucket = use_bucket(simulation, has_lock=True, default=("COMPLIANCE", timedelta(days=2)))
    line(simulation, "abc")
    simulation.expire("a", "b")
    simulation.settle()
    assert {simulation.reason("VolumeBackup", letter) for letter in "ab"} == {"Locked"}
    end = max(version.until for versions in bucket.versions.values() for version in versions if version.until)
    while simulation.now < end + timedelta(hours=2):
        simulation.step()
    assert phases(simulation, "abc") == {"a": "gone", "b": "gone", "c": "available"}
    simulation.expire("c")
    while simulation.stored() and simulation.now < end + timedelta(days=9):
        simulation.step()
    assert simulation.stored() == [], "the mark had a lock of its own"


def test_bucket_with_versions_hides_expired_backups(simulation: Simulation) -> None:
    bucket = use_bucket(simulation, versioning="Enabled")
    ids = line(simulation, "abc")
    simulation.expire("a", "b")
    simulation.settle()
    assert is_restorable(simulation, ids["c"])
    simulation.expire("c")
    simulation.settle()
    assert simulation.stored() == []
    assert [key for key, versions in bucket.versions.items() if len(versions) > 1]
    assert notes(simulation, "Expired")[0].startswith("The expired VolumeBackup was removed, and its data is hidden")


# Many at once


def test_one_pass_removes_all_expired_backups_of_a_volume(simulation: Simulation) -> None:
    letters = "abcdefghijklmnop"
    line(simulation, letters)
    simulation.store.asked.clear()
    listed: list[str] = []
    simulation.store.before = lambda operation, key: listed.append(key) if operation == "list" else None
    simulation.expire(*letters[:-1])
    simulation.settle()
    assert set(phases(simulation, letters[:-1]).values()) == {"gone"}
    volume = simulation.get("PersistentVolumeClaim", "data")["metadata"]["uid"]
    assert listed.count(f"packs/{volume}/") == 1
    assert sum(simulation.store.asked.values()) <= 3 * len(letters) + 8


def test_other_volumes_and_stores_are_left_alone(simulation: Simulation) -> None:
    simulation.claim("other", "content")
    line(simulation, "ab")
    other = simulation.backup("o", "other")["metadata"]["uid"]
    simulation.settle()
    simulation.expire("a", "b")
    simulation.settle()
    assert is_restorable(simulation, other)


# Crashes and races

FAULTS = {"dies before": (False, Crash("scripted")), "dies after": (True, Crash("scripted")), "": (True, api_outage())}


@pytest.mark.parametrize("how", FAULTS)
def test_operator_that_dies_at_any_write_ends_the_same(how: str) -> None:
    deaths = 0
    done, error = FAULTS[how]
    while True:
        with Simulation() as simulation:
            simulation.claim("data", "first")
            ids = line(simulation, "abcd")
            simulation.expire("a")
            simulation.settle()
            simulation.expire("b", "d")
            simulation.faults.plan(deaths, error, done=done)
            simulation.settle()
            if simulation.faults.at is not None:
                break
            deaths += 1
            assert phases(simulation, "abcd") == {"a": "gone", "b": "gone", "c": "available", "d": "gone"}
            assert is_restorable(simulation, ids["c"])
            simulation.expire("c")
            simulation.settle()
            assert simulation.stored() == []
    assert deaths >= 8


@pytest.mark.parametrize("done", [False, True])
def test_person_and_operator_that_dies_leave_nothing(*, done: bool) -> None:
    deaths = 0
    while True:
        with Simulation() as simulation:
            simulation.claim("data", "first")
            line(simulation, "abc")
            simulation.expire("a", "b")
            simulation.settle()
            simulation.delete("VolumeBackup", "c")
            simulation.faults.plan(deaths, Crash("scripted"), done=done)
            simulation.settle()
            if simulation.faults.at is not None:
                break
            deaths += 1
            assert simulation.phase("VolumeBackup", "c") == "gone"
            assert simulation.stored() == []
    assert deaths >= 5


@some_or_all_moments
def test_parent_that_expires_at_any_moment_of_its_child(moments: Moments) -> None:
    ends: list[str] = []
    steps, is_over = 0, False
    while not is_over:
        for late in moments(steps, (1, 2)):
            with Simulation() as simulation:
                simulation.claim("data", "first")
                line(simulation, "ab")
                child = simulation.backup("c", "data", incremental=True)["metadata"]["uid"]
                for _ in range(steps):
                    simulation.step()
                is_over = simulation.phase("VolumeBackup", "c") == "available"
                simulation.expire("b")
                for _ in range(late or 0):
                    simulation.step()
                simulation.expire("a")
                simulation.settle()
                ends.append(simulation.phase("VolumeBackup", "c"))
                assert is_restorable(simulation, child) is (ends[-1] == "available"), simulation.story()
                assert phases(simulation, "ab") == {"a": "gone", "b": "gone"}, simulation.story()
                if ends[-1] == "error":
                    assert simulation.reason("VolumeBackup", "c") in {"NoParent", "ParentGone"}
        steps += 1
    assert set(ends) == {"available", "error"}
