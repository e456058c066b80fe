"""Manifests decide what may be deleted, whatever becomes of the backups in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.backup import decide as backup_decide
from tests.support.simulation.observed_builders import NOW, accepted, available, observed_backup
from tests.support.simulation.simulation import Simulation, is_whole

JUNK = ("{volume}/", "{volume}/notes.txt", "{volume}//x.manifest", "{volume}/deeper/{backup}.manifest", "notes.txt")
JUNK_OF_PACKS = ("{volume}/{backup}/", "{volume}/{backup}/notes.txt", "{volume}/{backup}//x", "{volume}/{backup}/./x")


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        running.claim("data", "first")
        yield running


@pytest.fixture
def line(simulation: Simulation) -> Simulation:
    """Backups a, b and c, each of which builds on the one before, and x beside them."""
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
    """Somebody removes a VolumeBackup by force, and its manifest with an S3 client."""
    key = simulation.get("VolumeBackup", name)["status"]["manifestKey"]
    simulation.tear_away(name)
    simulation.cluster.store.delete([key])


def uid(simulation: Simulation, name: str) -> str:
    found: str = simulation.get("VolumeBackup", name)["metadata"]["uid"]
    return found


# -- the middle of a line


def test_without_its_middle_the_end_of_a_line_still_keeps_the_beginning(line: Simulation) -> None:
    end = uid(line, "c")
    lose(line, "b")
    line.settle()
    assert [has_dependents(line, name) for name in "axc"] == [True, False, False]
    line.delete("VolumeBackup", "a")
    line.settle()
    assert (line.phase("VolumeBackup", "a"), line.reason("VolumeBackup", "a")) == ("deleting", "HasDependentBackups")
    assert is_whole(line, end)
    line.delete("VolumeBackup", "c")
    line.settle()
    assert line.phase("VolumeBackup", "a") == "gone"


def test_a_backup_ceases_to_have_dependents_with_the_last_that_lists_its_packs(line: Simulation) -> None:
    lose(line, "b")
    line.settle()
    line.delete("VolumeBackup", "c")
    line.settle()
    assert not has_dependents(line, "a")


def test_a_retained_middle_keeps_its_data_when_everybody_else_is_gone(simulation: Simulation) -> None:
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
    assert is_whole(simulation, middle)
    assert ("DataLeft", 1) in simulation.events()


def test_while_a_backup_is_made_whose_parent_is_gone_nothing_of_its_volume_goes(line: Simulation) -> None:
    line.backup("d", "data", incremental=True)
    line.until("VolumeBackup", "d", "MoverRunning")
    parent = line.get("VolumeBackup", "d")["status"]["parentId"]
    assert parent == uid(line, "c")
    lose(line, "b")
    # The mover still reads the parent's manifest.
    line.tear_away("c")
    line.delete("VolumeBackup", "a")
    for _ in range(30):
        due = line.due()
        if due:
            line.reconcile(due[0])
        else:
            line.advance(5)
    assert line.reason("VolumeBackup", "a") == "HasDependentBackups"
    line.settle()
    assert (line.phase("VolumeBackup", "d"), line.phase("VolumeBackup", "a")) == ("available", "deleting")


def test_the_store_is_not_asked_by_looks_at_whole_backups_while_the_line_is_complete(line: Simulation) -> None:
    line.store.asked.clear()
    for name in "abcx":
        line.reconcile(ObjectKey("VolumeBackup", "shop", name))
    assert not line.store.asked


def test_what_the_store_told_last_is_kept_while_it_does_not_answer(line: Simulation) -> None:
    line.store.trouble = StoreUnreachable("no answer")
    lose(line, "b")
    for name in "ax":
        line.reconcile(ObjectKey("VolumeBackup", "shop", name))
        assert line.phase("VolumeBackup", name) == "available"
    assert [has_dependents(line, name) for name in "ax"] == [True, False]
    line.delete("VolumeBackup", "c")
    line.store.trouble = None
    line.settle()
    assert not has_dependents(line, "a")


def test_a_start_looks_at_no_backup_because_a_parent_is_gone(line: Simulation) -> None:
    lose(line, "b")
    line.settle()
    line.restart()
    assert {key.kind for key in line.unsettled()} == {"BackupStore"}


# -- many at once


def test_all_backups_of_a_volume_go_at_once_without_an_error(simulation: Simulation) -> None:
    make_line(simulation, "abcdefgh")
    for letter in "abcdefghx":
        simulation.delete("VolumeBackup", letter)
    simulation.settle()
    assert simulation.stored() == []
    assert not simulation.told & {"NotFound", "ReferencesUnknown", "StoreUnreachable"}


def test_the_requests_of_deleting_all_backups_of_a_volume_grow_with_their_number() -> None:
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


def test_a_manifest_that_vanishes_while_it_is_looked_at_is_no_error(line: Simulation) -> None:
    other = line.get("VolumeBackup", "c")["status"]["manifestKey"]

    def vanish(operation: str, key: str) -> None:
        if (operation, key) == ("get", other):
            line.cluster.store.delete([other])

    line.store.before = vanish
    line.delete("VolumeBackup", "x")
    line.settle()
    assert line.phase("VolumeBackup", "x") == "gone"
    assert "NotFound" not in line.told


# -- what is not ours


def test_objects_of_others_hold_up_no_deletion_and_stay(line: Simulation) -> None:
    volume, backup = line.get("PersistentVolumeClaim", "data")["metadata"]["uid"], uid(line, "a")
    planted = [f"backups/{text.format(volume=volume, backup=backup)}" for text in JUNK]
    planted += [f"packs/{text.format(volume=volume, backup=backup)}" for text in JUNK_OF_PACKS]
    for key in planted:
        line.cluster.store._objects[key] = b""
    for letter in "abcx":
        line.delete("VolumeBackup", letter)
    line.settle()
    assert [line.phase("VolumeBackup", name) for name in "abcx"] == ["gone"] * 4
    assert line.stored() == sorted(planted)


def test_a_manifest_under_a_foreign_key_holds_up_no_deletion(line: Simulation) -> None:
    key = line.get("VolumeBackup", "c")["status"]["manifestKey"]
    copied = line.cluster.store.get(key)
    line.delete("VolumeBackup", "c")
    line.settle()
    line.cluster.store.put(key.replace(".manifest", "-copy.manifest"), copied)
    line.delete("VolumeBackup", "b")
    line.settle()
    assert line.phase("VolumeBackup", "b") == "gone"


# -- what cannot be read


def test_a_manifest_that_was_put_over_that_of_a_backup_does_not_hide_what_it_needs(line: Simulation) -> None:
    lose(line, "b")
    end, other = (line.get("VolumeBackup", name)["status"]["manifestKey"] for name in "cx")
    true = line.cluster.store.get(end)
    line.cluster.store.put(end, line.cluster.store.get(other))
    before = line.stored()
    line.delete("VolumeBackup", "a")
    line.settle()
    assert (line.phase("VolumeBackup", "a"), line.reason("VolumeBackup", "a")) == (
        "error_deleting",
        "ReferencesUnknown",
    )
    assert line.stored() == before
    line.cluster.store.put(end, true)
    assert is_whole(line, uid(line, "c"))


def test_beside_a_damaged_manifest_nothing_is_removed_and_the_message_names_it(line: Simulation) -> None:
    key = line.break_manifest("c")
    before = line.stored()
    line.delete("VolumeBackup", "x")
    line.settle()
    assert (line.phase("VolumeBackup", "x"), line.reason("VolumeBackup", "x")) == (
        "error_deleting",
        "ReferencesUnknown",
    )
    (message,) = {condition["message"] for condition in line.get("VolumeBackup", "x")["status"]["conditions"]}
    assert key in message
    assert f"Delete {uid(line, 'c')} first" in message
    assert "let-go=leave-data" in message
    assert line.stored() == before
    line.delete("VolumeBackup", "c")
    line.settle()
    assert (line.phase("VolumeBackup", "c"), line.phase("VolumeBackup", "x")) == ("gone", "gone")


def test_an_administrator_may_leave_the_data_beside_a_damaged_manifest(line: Simulation) -> None:
    line.break_manifest("c")
    line.delete("VolumeBackup", "x")
    line.settle()
    found = line.get("VolumeBackup", "x")
    annotations = {"cinderblock.io/let-go": "leave-data"}
    line.objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    line.settle()
    assert line.phase("VolumeBackup", "x") == "gone"
    assert ("DataLeft", 1) in line.events()


def test_damaged_backups_can_be_deleted_beside_each_other(line: Simulation) -> None:
    for letter in "bc":
        line.break_manifest(letter)
    for letter in "bcax":
        line.delete("VolumeBackup", letter)
    line.settle()
    assert [line.phase("VolumeBackup", name) for name in "abcx"] == ["gone"] * 4
    assert line.stored() == []


def test_whether_others_need_an_unreadable_neighbours_ancestor_is_shown_as_yes(line: Simulation) -> None:
    lose(line, "b")
    line.break_manifest("c")
    line.settle()
    line.reconcile(ObjectKey("VolumeBackup", "shop", "a"))
    assert has_dependents(line, "a")


# -- what changes between the look and the removal


def test_a_manifest_that_comes_between_the_look_and_the_removal_keeps_the_packs(simulation: Simulation) -> None:
    """As one that is made by hand, which no VolumeBackup tells of."""
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


# -- the pure rule


def test_a_backup_that_lists_packs_holds_up_a_deletion_whoever_its_parent_is() -> None:
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
def test_the_store_must_tell_only_if_a_parent_of_the_volume_is_gone(sibling: object, must: bool) -> None:
    assert dependents.must_be_read(observed_backup(available(), siblings=(sibling,))) is must
