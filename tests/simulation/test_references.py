"""Manifests decide which packs may be deleted, whatever happens to intermediate backups."""

from __future__ import annotations

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.backup import decide as backup_decide
from tests.support.simulation.observed_builders import NOW, accepted, available, observed_backup
from tests.support.simulation.simulation import Simulation, is_restorable

JUNK = ("{volume}/", "{volume}/notes.txt", "{volume}//x.manifest", "{volume}/deeper/{backup}.manifest", "notes.txt")
JUNK_OF_PACKS = ("{volume}/{backup}/", "{volume}/{backup}/notes.txt", "{volume}/{backup}//x", "{volume}/{backup}/./x")


@pytest.fixture
def chain(simulation: Simulation) -> Simulation:
    """Return a simulation with the incremental chain a, b, c, and the independent backup x."""
    return make_line(simulation, "abc")


def make_line(simulation: Simulation, letters: str) -> Simulation:
    simulation.backup("x", "data")
    simulation.settle()
    for number, letter in enumerate(letters):
        simulation.backup(letter, "data", incremental=number > 0)
        simulation.settle()
    return simulation


def has_dependents(simulation: Simulation, name: str) -> bool:
    return bool(simulation.get("VolumeBackup", name)["status"]["hasDependentBackups"])


def lose(simulation: Simulation, name: str) -> None:
    """Remove a VolumeBackup by force, and its manifest with an S3 client."""
    key = simulation.get("VolumeBackup", name)["status"]["manifestKey"]
    simulation.remove_by_force(name)
    simulation.cluster.store.delete([key])


def uid(simulation: Simulation, name: str) -> str:
    found: str = simulation.get("VolumeBackup", name)["metadata"]["uid"]
    return found


# The middle of a chain


def test_grandchild_keeps_packs_after_its_parent_is_deleted(chain: Simulation) -> None:
    end = uid(chain, "c")
    lose(chain, "b")
    chain.settle()
    assert [has_dependents(chain, name) for name in "axc"] == [True, False, False]
    chain.delete("VolumeBackup", "a")
    chain.settle()
    assert (chain.phase("VolumeBackup", "a"), chain.reason("VolumeBackup", "a")) == ("deleting", "HasDependentBackups")
    assert is_restorable(chain, end)
    chain.delete("VolumeBackup", "c")
    chain.settle()
    assert chain.phase("VolumeBackup", "a") == "gone"


def test_last_dependent_clears_has_dependent_backups(chain: Simulation) -> None:
    lose(chain, "b")
    chain.settle()
    chain.delete("VolumeBackup", "c")
    chain.settle()
    assert not has_dependents(chain, "a")


def test_retained_backup_keeps_the_packs_it_needs(simulation: Simulation) -> None:
    simulation.backup("a", "data")
    simulation.settle()
    middle = simulation.backup("b", "data", incremental=True, deletionPolicy="Retain")["metadata"]["uid"]
    simulation.settle()
    simulation.backup("c", "data", incremental=True)
    simulation.settle()
    for name in "bac":
        simulation.delete("VolumeBackup", name)
        simulation.settle()
    assert [simulation.phase("VolumeBackup", name) for name in "abc"] == ["gone", "gone", "gone"]
    assert is_restorable(simulation, middle)
    assert ("DataLeft", 1) in simulation.events()


def test_unfinished_orphan_blocks_deletions_of_its_volume(chain: Simulation) -> None:
    chain.backup("d", "data", incremental=True)
    chain.until("VolumeBackup", "d", "MoverRunning")
    parent = chain.get("VolumeBackup", "d")["status"]["parentId"]
    assert parent == uid(chain, "c")
    lose(chain, "b")
    # The mover still reads the parent's manifest.
    chain.remove_by_force("c")
    chain.delete("VolumeBackup", "a")
    for _ in range(30):
        due = chain.due()
        if due:
            chain.reconcile(due[0])
        else:
            chain.advance(5)
    assert chain.reason("VolumeBackup", "a") == "HasDependentBackups"
    chain.settle()
    assert (chain.phase("VolumeBackup", "d"), chain.phase("VolumeBackup", "a")) == ("available", "deleting")


def test_store_is_not_asked_while_all_parents_exist(chain: Simulation) -> None:
    chain.store.asked.clear()
    for name in "abcx":
        chain.reconcile(ObjectKey("VolumeBackup", "shop", name))
    assert not chain.store.asked


def test_previous_answer_counts_while_the_store_is_silent(chain: Simulation) -> None:
    chain.store.error = StoreUnreachable("no answer")
    lose(chain, "b")
    for name in "ax":
        chain.reconcile(ObjectKey("VolumeBackup", "shop", name))
        assert chain.phase("VolumeBackup", name) == "available"
    assert [has_dependents(chain, name) for name in "ax"] == [True, False]
    chain.delete("VolumeBackup", "c")
    chain.store.error = None
    chain.settle()
    assert not has_dependents(chain, "a")


def test_missing_parent_causes_no_reconciliation_at_start(chain: Simulation) -> None:
    lose(chain, "b")
    chain.settle()
    chain.restart()
    assert {key.kind for key in chain.pending()} == {"BackupStore"}


# Concurrent deletions


def test_all_backups_of_a_volume_can_be_deleted_at_once(simulation: Simulation) -> None:
    make_line(simulation, "abcdefgh")
    for letter in "abcdefghx":
        simulation.delete("VolumeBackup", letter)
    simulation.settle()
    assert simulation.stored() == []
    assert not simulation.reasons & {"NotFound", "ReferencesUnknown", "StoreUnreachable"}


def test_requests_grow_linearly_with_deleted_backups() -> None:
    def gets(letters: str) -> int:
        with Simulation() as simulation:
            simulation.claim("data", "first")
            make_line(simulation, letters)
            simulation.store.asked.clear()
            for letter in f"{letters}x":
                simulation.delete("VolumeBackup", letter)
            simulation.settle()
            assert simulation.stored() == []
            return simulation.store.asked["get"]

    few, many = gets("abc"), gets("abcdefghijklmno")
    assert many <= 4 * few
    assert many <= 4 * 16, "two requests to read a manifest, and one to see whose it is before it goes"


def test_vanished_manifest_is_not_an_error(chain: Simulation) -> None:
    other = chain.get("VolumeBackup", "c")["status"]["manifestKey"]

    def vanish(operation: str, key: str) -> None:
        if (operation, key) == ("get", other) and chain.phase("VolumeBackup", "c") != "gone":
            chain.cluster.store.delete([other])
            chain.remove_by_force("c")

    chain.store.before = vanish
    chain.delete("VolumeBackup", "x")
    chain.settle()
    assert chain.phase("VolumeBackup", "x") == "gone"
    assert "NotFound" not in chain.reasons


# Foreign objects


def test_foreign_objects_stay_and_do_not_block_a_deletion(chain: Simulation) -> None:
    volume, backup = chain.get("PersistentVolumeClaim", "data")["metadata"]["uid"], uid(chain, "a")
    planted = [f"backups/{text.format(volume=volume, backup=backup)}" for text in JUNK]
    planted += [f"packs/{text.format(volume=volume, backup=backup)}" for text in JUNK_OF_PACKS]
    for key in planted:
        chain.cluster.store._objects[key] = b""
    for letter in "abcx":
        chain.delete("VolumeBackup", letter)
    chain.settle()
    assert [chain.phase("VolumeBackup", name) for name in "abcx"] == ["gone"] * 4
    assert chain.stored() == sorted(planted)


def test_manifest_under_a_foreign_key_does_not_block_a_deletion(chain: Simulation) -> None:
    key = chain.get("VolumeBackup", "c")["status"]["manifestKey"]
    copied = chain.cluster.store.get(key)
    chain.delete("VolumeBackup", "c")
    chain.settle()
    chain.cluster.store.put(key.replace(".manifest", "-copy.manifest"), copied)
    chain.delete("VolumeBackup", "b")
    chain.settle()
    assert chain.phase("VolumeBackup", "b") == "gone"


# Unreadable manifests


def test_overwritten_manifest_does_not_hide_needed_packs(chain: Simulation) -> None:
    lose(chain, "b")
    end, other = (chain.get("VolumeBackup", name)["status"]["manifestKey"] for name in "cx")
    true = chain.cluster.store.get(end)
    chain.cluster.store.put(end, chain.cluster.store.get(other))
    before = chain.stored()
    chain.delete("VolumeBackup", "a")
    chain.settle()
    assert (chain.phase("VolumeBackup", "a"), chain.reason("VolumeBackup", "a")) == (
        "error_deleting",
        "ReferencesUnknown",
    )
    assert chain.stored() == before
    chain.cluster.store.put(end, true)
    assert is_restorable(chain, uid(chain, "c"))


def test_damaged_manifest_stops_deletions_and_is_named(chain: Simulation) -> None:
    key = chain.break_manifest("c")
    before = chain.stored()
    chain.delete("VolumeBackup", "x")
    chain.settle()
    assert (chain.phase("VolumeBackup", "x"), chain.reason("VolumeBackup", "x")) == (
        "error_deleting",
        "ReferencesUnknown",
    )
    (message,) = {condition["message"] for condition in chain.get("VolumeBackup", "x")["status"]["conditions"]}
    assert key in message
    assert f"Delete {uid(chain, 'c')} first" in message
    assert "let-go=leave-data" in message
    assert chain.stored() == before
    chain.delete("VolumeBackup", "c")
    chain.settle()
    assert (chain.phase("VolumeBackup", "c"), chain.phase("VolumeBackup", "x")) == ("gone", "gone")


def test_annotation_leaves_data_next_to_a_damaged_manifest(chain: Simulation) -> None:
    chain.break_manifest("c")
    chain.delete("VolumeBackup", "x")
    chain.settle()
    found = chain.get("VolumeBackup", "x")
    annotations = {"cinderblock.io/let-go": "leave-data"}
    chain.objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    chain.settle()
    assert chain.phase("VolumeBackup", "x") == "gone"
    assert ("DataLeft", 1) in chain.events()


def test_several_damaged_backups_can_be_deleted(chain: Simulation) -> None:
    for letter in "bc":
        chain.break_manifest(letter)
    for letter in "bcax":
        chain.delete("VolumeBackup", letter)
    chain.settle()
    assert [chain.phase("VolumeBackup", name) for name in "abcx"] == ["gone"] * 4
    assert chain.stored() == []


def test_unreadable_sibling_counts_as_dependent(chain: Simulation) -> None:
    lose(chain, "b")
    chain.break_manifest("c")
    chain.settle()
    chain.reconcile(ObjectKey("VolumeBackup", "shop", "a"))
    assert has_dependents(chain, "a")


# Changes between the search and the removal


def test_manifest_added_before_the_removal_keeps_the_packs(simulation: Simulation) -> None:
    """A backup of the command chain, for example, has no VolumeBackup."""
    make_line(simulation, "ab")
    child = simulation.get("VolumeBackup", "b")["status"]["manifestKey"]
    content, volume = simulation.cluster.store.get(child), child.rpartition("/")[0]
    parent = uid(simulation, "a")
    lose(simulation, "b")
    simulation.settle()
    looks = 0

    def come(operation: str, key: str) -> None:
        nonlocal looks
        looks += (operation, key) == ("list", f"{volume}/")
        if looks == 2:
            simulation.cluster.store.put(child, content)

    simulation.store.before = come
    simulation.delete("VolumeBackup", "a")
    simulation.settle()
    assert looks >= 2
    assert any(parent in key for key in simulation.stored("packs/"))
    assert ("DataLeft", 1) in simulation.events()


# The pure rule


def test_listed_packs_block_a_deletion_for_any_parent() -> None:
    observed = observed_backup(
        available(deleting=True), siblings=(available("b-3", parentId="b-2"),), needed_by=("b-3",)
    )
    decision = backup_decide.decide(observed, NOW)
    assert isinstance(decision.status, VolumeBackupStatus)
    assert decision.status.conditions[0].reason == "HasDependentBackups"
    assert decision.status.has_dependent_backups


@pytest.mark.parametrize(
    ("sibling", "must"),
    [
        (available("b-3", parentId="b-2"), True),
        (available("b-3", parentId="b-1"), False),
        (available("b-3"), False),
        (available("b-3", parentId="b-2", volumeId="c-2"), False),
        (accepted("b-3", parentId="b-2", phase="error"), False),
    ],
)
def test_store_is_asked_only_if_a_parent_is_missing(sibling: object, must: bool) -> None:
    assert dependents.must_be_read(observed_backup(available(), siblings=(sibling,))) is must
