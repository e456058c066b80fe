"""spec.import of a BackupStore: what the bucket holds gets VolumeBackups, and nothing released comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import layout
from cinderblock.api.labels import BACKUP_FINALIZER, IMPORTED_ANNOTATION
from cinderblock.controller.imports import reconcile, same_place
from cinderblock.controller.imports import run as run_module
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle.imports import difference, releases
from cinderblock.reasons import Reason
from tests.support.documented_reasons import IMPORT_REASONS
from tests.support.mover.backups import key_ring
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import POLICY, Simulation
from tests.support.store.faults import Crash
from tests.support.variations import some

ALWAYS = {"mode": "Always", "interval": "10m"}
ONCE = {"mode": "Once"}
CRASHES = 16
"""More writes than an import of two backups takes, with the reconciliations of its VolumeBackups."""


def set_import(simulation: Simulation, **settings: Any) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"import": settings})


def lose_cluster(simulation: Simulation, *names: str) -> None:
    """Make backups, and lose their VolumeBackups."""
    for name in names:
        simulation.backup(name, "data")
        simulation.settle()
    for name in names:
        simulation.remove_by_force(name)


def run(simulation: Simulation, minutes: float = 1) -> None:
    """Let the operator work for some time. With an interval, it never rests."""
    end = simulation.now + timedelta(minutes=minutes)
    while simulation.now < end:
        simulation.step()


def store_status(simulation: Simulation) -> Object:
    status: Object = simulation.get("BackupStore", "default")["status"]
    return status


def imported(simulation: Simulation) -> tuple[str, str]:
    found = next((c for c in store_status(simulation)["conditions"] if c["type"] == "Imported"), None)
    return (found["status"], found["reason"]) if found is not None else ("", "")


def backups(simulation: Simulation) -> dict[str, str]:
    return {item["metadata"]["name"]: item["spec"].get("import", {}).get("id", "") for item in _all(simulation)}


def _all(simulation: Simulation) -> list[Object]:
    return simulation.objects.all("VolumeBackup")


def test_once_imports_all_and_says_so(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two")
    stored = simulation.stored()
    set_import(simulation, **ONCE)
    simulation.settle()
    assert sorted(backups(simulation)) == ["one", "two"]
    one = simulation.get("VolumeBackup", "one")
    assert one["spec"]["deletionPolicy"] == "Retain"
    assert one["spec"]["storeName"] == "default"
    assert "allowUnsealed" not in one["spec"]["import"]
    assert one["metadata"]["annotations"] == {IMPORTED_ANNOTATION: "default"}
    assert one["metadata"]["finalizers"] == [BACKUP_FINALIZER]
    assert one["status"]["phase"] == "available"
    assert imported(simulation) == ("True", "Imported")
    assert ("Imported", 1) in simulation.events()
    inventory = store_status(simulation)["inventory"]
    assert (inventory["backups"], inventory["volumes"], inventory["imported"]) == (2, 1, 2)
    assert inventory["bytes"] > 0
    assert simulation.stored() == stored
    simulation.store.asked.clear()
    lose_cluster(simulation)
    run(simulation, 120)
    assert simulation.store.asked["list"] == 0, "Once does not repeat"


def test_never_is_the_default_and_reads_nothing(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    simulation.store.asked.clear()
    simulation.settle()
    assert backups(simulation) == {}
    assert simulation.store.asked == {}
    assert "inventory" not in store_status(simulation)


def test_always_finds_later_backups_and_reads_only_these(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    run(simulation)
    first = simulation.get("VolumeBackup", "one")["metadata"]["uid"]
    simulation.backup("two", "data")
    run(simulation)
    simulation.remove_by_force("two")
    simulation.store.asked.clear()
    run(simulation, 11)
    assert sorted(backups(simulation)) == ["one", "two"]
    assert simulation.get("VolumeBackup", "one")["metadata"]["uid"] == first
    # The import reads the new manifest, and the reconciliation of its VolumeBackup reads it again.
    reads = simulation.store.asked["get"]
    simulation.store.asked.clear()
    run(simulation, 10)
    assert reads <= 8
    assert simulation.store.asked["get"] == 0
    assert simulation.store.asked["list"] == 1


MOMENTS = [(at, done) for at in range(CRASHES) for done in (False, True)]


@pytest.mark.parametrize(("at", "done"), some(MOMENTS, step=5))
def test_operator_that_dies_at_any_write_continues(simulation: Simulation, at: int, done: bool) -> None:
    lose_cluster(simulation, "one", "two")
    ids = {key.rpartition("/")[2].removesuffix(".manifest") for key in simulation.stored("backups/")}
    simulation.faults.plan(at, Crash("scripted"), done=done)
    set_import(simulation, **ONCE)
    simulation.settle()
    assert set(backups(simulation).values()) == ids
    assert sorted(backups(simulation)) == ["one", "two"], "names are the same each time"
    assert imported(simulation) == ("True", "Imported")


def test_deleted_import_does_not_come_back(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two")
    set_import(simulation, **ALWAYS)
    run(simulation)
    released = backups(simulation)["one"]
    simulation.delete("VolumeBackup", "one")
    run(simulation, 45)
    assert sorted(backups(simulation)) == ["two"]
    assert store_status(simulation)["released"] == [released]
    assert any(released in key for key in simulation.stored("backups/")), "the data stays"
    assert ("Retained", 1) in simulation.events()


@pytest.mark.parametrize(("at", "done"), some(MOMENTS[:16], step=4))
def test_release_survives_a_crash_at_any_write(simulation: Simulation, at: int, done: bool) -> None:
    lose_cluster(simulation, "one", "two")
    set_import(simulation, **ALWAYS)
    run(simulation)
    simulation.faults.plan(at, Crash("scripted"), done=done)
    simulation.delete("VolumeBackup", "one")
    run(simulation, 25)
    assert sorted(backups(simulation)) == ["two"]


def test_deletion_shows_that_it_waits_for_its_mark(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    run(simulation)
    simulation.delete("VolumeBackup", "one")
    simulation.until("VolumeBackup", "one", Reason.RECORDING_RELEASE)
    assert simulation.phase("VolumeBackup", "one") == "deleting"
    assert "released" not in store_status(simulation)


def test_switching_off_lets_a_waiting_deletion_go(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    run(simulation)
    simulation.delete("VolumeBackup", "one")
    simulation.until("VolumeBackup", "one", Reason.RECORDING_RELEASE)
    set_import(simulation, mode="Never")
    simulation.settle()
    assert backups(simulation) == {}


def test_own_backup_that_was_released_does_not_come_back(simulation: Simulation) -> None:
    set_import(simulation, **ALWAYS)
    simulation.backup("own", "data", deletionPolicy="Retain")
    run(simulation)
    simulation.delete("VolumeBackup", "own")
    run(simulation, 25)
    assert backups(simulation) == {}
    assert len(simulation.stored("backups/")) == 1


def test_backup_that_is_deleted_at_once_does_not_come_back(simulation: Simulation) -> None:
    """A person may delete a VolumeBackup before its first reconciliation."""
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    while not simulation.exists("VolumeBackup", "one"):
        simulation.step()
    simulation.delete("VolumeBackup", "one")
    run(simulation, 25)
    assert backups(simulation) == {}


def test_released_backup_can_be_imported_by_hand_and_released_again(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    run(simulation)
    backup_id = backups(simulation)["one"]
    for _ in range(2):
        simulation.delete("VolumeBackup", next(iter(backups(simulation))))
        run(simulation, 15)
        assert backups(simulation) == {}
        simulation.import_backup("by-hand", backup_id, storeName="default")
        run(simulation, 15)
        assert backups(simulation) == {"by-hand": backup_id}


def test_vanished_manifest_is_shown_first_and_removed_after_two_listings(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    key = manifest_of(simulation, "one")
    content = simulation.cluster.store.get(key)
    simulation.cluster.store.delete([key])
    run(simulation, 11)
    shown = simulation.get("VolumeBackup", "one")["status"]
    assert ("ManifestMissing", "True") in [(c["type"], c["status"]) for c in shown["conditions"]]
    assert store_status(simulation)["inventory"]["missing"] == 1
    run(simulation, 11)
    assert sorted(backups(simulation)) == ["three", "two"]
    assert "released" not in store_status(simulation), "nobody has released it"
    simulation.cluster.store.put(key, content)
    run(simulation, 11)
    assert sorted(backups(simulation)) == ["one", "three", "two"]


def manifest_of(simulation: Simulation, name: str) -> str:
    backup_id = backups(simulation)[name]
    return next(key for key in simulation.stored("backups/") if backup_id in key)


def test_manifest_that_is_back_ends_the_condition(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    uid = simulation.get("VolumeBackup", "one")["metadata"]["uid"]
    key = manifest_of(simulation, "one")
    content = simulation.cluster.store.get(key)
    simulation.cluster.store.delete([key])
    run(simulation, 11)
    simulation.cluster.store.put(key, content)
    run(simulation, 25)
    found = simulation.get("VolumeBackup", "one")
    assert found["metadata"]["uid"] == uid
    assert "manifestMissing" not in found["status"]
    assert "ManifestMissing" not in [c["type"] for c in found["status"]["conditions"]]


@pytest.mark.parametrize("change", ["policy", "hold", "by hand"])
def test_objects_of_people_are_never_removed(simulation: Simulation, change: str) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    key, backup_id = manifest_of(simulation, "one"), backups(simulation)["one"]
    found = simulation.get("VolumeBackup", "one")
    if change == "by hand":
        simulation.remove_by_force("one")
        simulation.import_backup("one", backup_id, manifest=key, storeName="default")
    else:
        spec = {"policy": {"deletionPolicy": "Delete"}, "hold": {"hold": True}}[change]
        simulation.objects.update(found, spec=found["spec"] | spec)
    run(simulation)
    simulation.cluster.store.delete([key])
    run(simulation, 45)
    assert simulation.exists("VolumeBackup", "one")
    if change == "policy":
        assert simulation.get("VolumeBackup", "one")["spec"]["deletionPolicy"] == "Delete"


@pytest.mark.parametrize("left", [0, 1])
def test_store_that_lost_most_backups_removes_nothing(simulation: Simulation, left: int) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    gone = {key: simulation.cluster.store.get(key) for key in simulation.stored("backups/")[left:]}
    simulation.cluster.store.delete(list(gone))
    run(simulation, 65)
    assert sorted(backups(simulation)) == ["one", "three", "two"]
    assert imported(simulation) == ("False", "InventoryShrunk")
    assert store_status(simulation)["inventory"]["backupsBefore"] == 3
    assert ("InventoryShrunk", 1) in simulation.events()
    for key, content in gone.items():
        simulation.cluster.store.put(key, content)
    run(simulation, 11)
    assert imported(simulation) == ("True", "Imported")
    assert "backupsBefore" not in store_status(simulation)["inventory"]


def test_loss_is_accepted_by_switching_off_and_on(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    simulation.cluster.store.delete(simulation.stored("backups/")[1:])
    run(simulation, 25)
    set_import(simulation, mode="Never")
    run(simulation)
    assert imported(simulation) == ("", "")
    assert store_status(simulation)["inventory"]["lossAccepted"]
    set_import(simulation, **ALWAYS)
    run(simulation, 45)
    assert len(backups(simulation)) == 1
    assert not store_status(simulation)["inventory"]["lossAccepted"]


@pytest.mark.parametrize("others", [0, 5])
def test_lost_inventory_and_lost_manifests_remove_nothing(simulation: Simulation, others: int) -> None:
    """The bucket may be the wrong one, and hold as many backups as before."""
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    content = {key: simulation.cluster.store.get(key) for key in simulation.stored("backups/")}
    simulation.cluster.store.delete(list(content)[1:])
    for number in range(others):
        simulation.cluster.store.put(layout.manifest_key("", f"other-{number}", "backup"), b"")
    simulation.objects.update(simulation.get("BackupStore", "default"), status={})
    run(simulation, 65)
    assert sorted(backups(simulation)) == ["one", "three", "two"]
    assert imported(simulation) == ("False", "InventoryShrunk")
    for key, body in content.items():
        simulation.cluster.store.put(key, body)
    run(simulation, 11)
    assert imported(simulation)[0] == "True"


def twin_store(simulation: Simulation, **settings: Any) -> None:
    """Add a second BackupStore that leads to the same place."""
    spec = simulation.get("BackupStore", "default")["spec"]
    metadata = {"name": "twin", "namespace": simulation.get("BackupStore", "default")["metadata"]["namespace"]}
    simulation.objects.create("BackupStore", {"metadata": metadata, "spec": spec | {"import": settings}})


@pytest.mark.parametrize("own", ["Always", "Never"])
def test_second_store_of_the_same_place_resurrects_nothing(simulation: Simulation, own: str) -> None:
    simulation.backup("one", "data", deletionPolicy="Retain")
    simulation.backup("two", "data", deletionPolicy="Retain")
    simulation.settle()
    set_import(simulation, mode=own)
    twin_store(simulation, **ALWAYS)
    run(simulation, 15)
    simulation.delete("VolumeBackup", "one")
    run(simulation, 45)
    assert sorted(backups(simulation)) == ["two"]
    assert len(simulation.stored("backups/")) == 2, "the data stays"
    marks = {name: simulation.get("BackupStore", name)["status"].get("released", []) for name in ("default", "twin")}
    assert [name for name, found in marks.items() if found] == ["default" if own == "Always" else "twin"]


def test_many_stores_with_other_prefixes_stop_no_import(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those of the same place count, and only those are read."""
    monkeypatch.setattr(same_place, "MAX_STORES", 1)
    lose_cluster(simulation, "one")
    spec = simulation.get("BackupStore", "default")["spec"]
    for name in ("a", "b", "c"):
        metadata = {"name": name, "namespace": NAMESPACE}
        simulation.objects.create("BackupStore", {"metadata": metadata, "spec": spec | {"prefix": name}})
    run(simulation)
    set_import(simulation, **ONCE)
    run(simulation)
    assert imported(simulation) == ("True", "Imported")
    twin_store(simulation, **ONCE)
    second = simulation.get("BackupStore", "twin")
    simulation.objects.create("BackupStore", {"metadata": second["metadata"] | {"name": "third"}, "spec": spec})
    set_import(simulation, **ALWAYS)
    run(simulation)
    assert imported(simulation) == ("False", "TooManyObjects")


def test_store_whose_twin_is_full_of_marks_imports_nothing(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "MAX_RELEASED", 1)
    lose_cluster(simulation, "one", "two")
    twin_store(simulation, **ALWAYS)
    run(simulation)
    twin = simulation.get("BackupStore", "twin")
    simulation.objects.update(twin, status=twin["status"] | {"released": ["some-backup"]})
    for name in backups(simulation):
        simulation.remove_by_force(name)
    set_import(simulation, **ALWAYS)
    run(simulation, 11)
    assert backups(simulation) == {}
    assert imported(simulation) == ("False", "TooManyReleased")
    message = next(c["message"] for c in store_status(simulation)["conditions"] if c["type"] == "Imported")
    assert "of BackupStore twin to Never" in message


def test_switching_off_forgets_missing_manifests_in_steps(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many VolumeBackups there are: none has to be kept in memory, and no step takes minutes."""
    monkeypatch.setattr(run_module, "MAX_KNOWN", 6)
    monkeypatch.setattr(reconcile, "STEP_SECONDS", 0.0)
    names = ["one", "two", "three", "four", "five"]
    lose_cluster(simulation, *names)
    set_import(simulation, **ALWAYS)
    run(simulation, 2)
    simulation.cluster.store.delete([manifest_of(simulation, name) for name in names[:2]])
    run(simulation, 11)
    monkeypatch.setattr(run_module, "MAX_KNOWN", 2)
    set_import(simulation, mode="Never")
    run(simulation, 2)
    assert all("manifestMissing" not in item["status"] for item in _all(simulation))
    assert "inventory" not in store_status(simulation)


def test_damaged_manifest_costs_the_others_nothing(simulation: Simulation) -> None:
    lose_cluster(simulation, "one", "two")
    key = simulation.stored("backups/")[0]
    simulation.cluster.store.put(key, simulation.cluster.store.get(key)[:-1])
    hostile = layout.manifest_key("", "evil", "copy")
    simulation.cluster.store.put(hostile, simulation.cluster.store.get(simulation.stored("backups/")[1]))
    set_import(simulation, **ONCE)
    simulation.settle()
    assert len(backups(simulation)) == 1
    assert imported(simulation) == ("True", "UnreadableLeftOut")
    inventory = store_status(simulation)["inventory"]
    assert inventory["unreadableCount"] == 2
    assert {item["manifest"]: item["reason"] for item in inventory["unreadable"]} == {
        key: "IntegrityError",
        hostile: "ForeignManifest",
    }


def test_encrypted_store_imports_no_unencrypted_backup(simulation: Simulation) -> None:
    lose_cluster(simulation, "plain")
    simulation.encrypt(key_ring())
    lose_cluster(simulation, "sealed")
    set_import(simulation, **ONCE)
    simulation.settle()
    assert list(backups(simulation)) == ["sealed"]
    (unreadable,) = store_status(simulation)["inventory"]["unreadable"]
    assert unreadable["reason"] == "SealBroken"


def test_missing_key_is_shown_and_its_return_continues_the_import(simulation: Simulation) -> None:
    simulation.encrypt(key_ring("2024"))
    lose_cluster(simulation, "sealed")
    simulation.cluster.keys = key_ring("2025", "2025")
    set_import(simulation, **ONCE)
    run(simulation, 2)
    (unreadable,) = store_status(simulation)["inventory"]["unreadable"]
    assert unreadable["reason"] == "KeyUnavailable"
    assert "2024" in unreadable["message"]
    assert backups(simulation) == {}
    simulation.cluster.keys = key_ring("2024")
    run(simulation, 11)
    assert list(backups(simulation)) == ["sealed"]


def test_store_that_does_not_answer_loses_nothing(simulation: Simulation) -> None:
    lose_cluster(simulation, "one")
    set_import(simulation, **ALWAYS)
    run(simulation)
    simulation.store.error = StoreUnreachable("The store does not answer")
    run(simulation, 45)
    assert imported(simulation) == ("False", "StoreUnreachable")
    assert list(backups(simulation)) == ["one"]
    simulation.store.error = None
    run(simulation, 15)
    assert imported(simulation) == ("True", "Imported")


def test_too_many_backups_are_not_imported(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "MAX_BACKUPS", 1)
    lose_cluster(simulation, "one", "two")
    set_import(simulation, **ALWAYS)
    run(simulation)
    assert imported(simulation) == ("False", "TooManyBackups")
    assert backups(simulation) == {}


def test_full_marks_stop_imports_and_no_deletion(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "MAX_RELEASED", 1)
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ALWAYS)
    run(simulation)
    for name in ("one", "two"):
        simulation.delete("VolumeBackup", name)
        run(simulation, 15)
    assert list(backups(simulation)) == ["three"]
    assert imported(simulation) == ("False", "TooManyReleased")
    set_import(simulation, mode="Never")
    run(simulation)
    set_import(simulation, **ALWAYS)
    run(simulation, 2)
    assert sorted(backups(simulation)) == ["one", "three", "two"]


def test_namespace_with_too_many_objects_gets_no_more() -> None:
    with Simulation(policy=replace(POLICY, object_limit=2)) as simulation:
        simulation.claim("data", "first")
        lose_cluster(simulation, "one", "two")
        simulation.import_backup("other", "unknown", storeName="default")
        set_import(simulation, **ALWAYS)
        run(simulation)
        assert imported(simulation) == ("False", "TooManyObjects")
        assert len(backups(simulation)) == 2


def test_import_continues_in_steps_and_says_how_far_it_is(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "CONCURRENT_CREATIONS", 1)
    lose_cluster(simulation, "one", "two", "three")
    set_import(simulation, **ONCE)
    seen = set()
    while imported(simulation) != ("True", "Imported"):
        simulation.step()
        shown = [c["message"] for c in store_status(simulation)["conditions"] if c["reason"] == Reason.IMPORTING]
        seen |= set(shown)
    assert "VolumeBackups are being created: 1 of 3" in seen
    assert "inventory" in store_status(simulation)


def test_every_reason_of_imports_is_reached() -> None:
    text = Path(__file__).read_text()
    assert not {reason for reason in IMPORT_REASONS if f'"{reason}"' not in text and reason.name not in text}
