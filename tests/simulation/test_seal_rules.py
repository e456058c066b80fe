"""A store with an encryption Secret takes no unsealed backup without a status, unless somebody allows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import decide as store_decide
from tests.support.mover.backups import key_ring
from tests.support.simulation.observed_builders import NOW, a_store
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def running() -> Iterator[Simulation]:
    """A store that had no keys when its backup was made, and has got some since."""
    with Simulation() as running:
        running.claim("data", "first")
        running.backup("full", "data", deletionPolicy="Retain")
        running.settle()
        running.encrypt(key_ring())
        running.settle()
        yield running


def conditions(running: Simulation, kind: str, name: str) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in running.get(kind, name)["status"]["conditions"]}


def allow_unsealed(running: Simulation) -> None:
    store = running.get("BackupStore", "default")
    running.objects.update(store, spec=store["spec"] | {"allowUnsealed": True})


def leave(running: Simulation) -> str:
    """Delete the VolumeBackup and leave its data. Returns the backup's id."""
    uid = str(running.get("VolumeBackup", "full")["metadata"]["uid"])
    running.delete("VolumeBackup", "full")
    running.settle()
    return uid


def adopt(running: Simulation, backup_id: str, **more: Any) -> tuple[str, str]:
    asked = {"id": backup_id} | more
    running.make("VolumeBackup", {"metadata": {"name": "again", "namespace": "shop"}, "spec": {"import": asked}})
    running.settle()
    return running.phase("VolumeBackup", "again"), running.reason("VolumeBackup", "again")


def test_what_was_available_before_stays_restorable_and_is_listed(running: Simulation) -> None:
    listed = conditions(running, "BackupStore", "default")["UnsealedBackups"]
    assert (listed["status"], listed["reason"]) == ("True", "NotEncrypted")
    assert listed["message"].startswith("1 VolumeBackups")
    assert "full" in listed["message"]
    running.restore("back", "full", name="new")
    running.settle()
    assert running.content("new") == "first"


def test_what_was_available_before_is_not_replaced_by_another_unsealed_one(running: Simulation) -> None:
    status = running.get("VolumeBackup", "full")["status"]
    running.cluster.store.put(status["manifestKey"], running.cluster.forge(status["volumeId"], status["id"], "evil"))
    running.restore("back", "full", name="new")
    running.settle()
    assert running.reason("VolumeRestore", "back") == "ManifestReplaced"


def test_the_list_goes_with_the_last_of_them(running: Simulation) -> None:
    leave(running)
    running.resync()
    running.settle()
    assert "UnsealedBackups" not in conditions(running, "BackupStore", "default")


def test_an_import_is_refused(running: Simulation) -> None:
    assert adopt(running, leave(running)) == ("error", "SealBroken")
    assert "spec.import.allowUnsealed" in running.get("VolumeBackup", "again")["status"]["failReason"]


@pytest.mark.parametrize("where", ["import", "store"])
def test_an_import_is_taken_where_somebody_says_so(running: Simulation, where: str) -> None:
    backup_id = leave(running)
    if where == "store":
        allow_unsealed(running)
    more = {"allowUnsealed": True} if where == "import" else {}
    assert adopt(running, backup_id, **more) == ("available", "Available")
    assert running.get("VolumeBackup", "again")["status"]["sealed"] is False
    running.restore("back", "again", name="new")
    running.settle()
    assert running.content("new") == "first"


def test_an_import_by_another_name_is_refused_as_well(running: Simulation) -> None:
    key = running.get("VolumeBackup", "full")["status"]["manifestKey"]
    leave(running)
    other = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert adopt(running, other, manifest=key) == ("error", "SealBroken")


def test_a_lost_status_is_not_regained_until_the_store_allows_it(running: Simulation) -> None:
    running.erase_status("VolumeBackup", "full")
    running.resync()
    for _ in range(40):
        running.step()
    assert (running.phase("VolumeBackup", "full"), running.reason("VolumeBackup", "full")) == ("error", "SealBroken")
    assert "allowUnsealed" in running.get("VolumeBackup", "full")["status"]["failReason"]
    assert ("SealBroken", 1) in running.events()
    allow_unsealed(running)
    running.settle()
    assert running.phase("VolumeBackup", "full") == "available"
    assert conditions(running, "VolumeBackup", "full")["PinRegained"]["status"] == "True"


def test_a_lost_status_does_not_keep_a_backup_from_being_deleted(running: Simulation) -> None:
    backup = running.get("VolumeBackup", "full")
    running.objects.update(backup, spec=backup["spec"] | {"deletionPolicy": "Delete"})
    running.erase_status("VolumeBackup", "full")
    running.delete("VolumeBackup", "full")
    running.settle()
    assert (running.phase("VolumeBackup", "full"), running.stored()) == ("gone", [])


def test_a_backup_that_is_made_is_never_unsealed_whatever_the_store_allows(running: Simulation) -> None:
    allow_unsealed(running)
    uid = running.backup("new", "data")["metadata"]["uid"]
    running.until("VolumeBackup", "new", "MoverRunning")
    volume = running.get("VolumeBackup", "new")["status"]["volumeId"]
    running.cluster.store.put(f"backups/{volume}/{uid}.manifest", running.cluster.forge(volume, uid, "evil"))
    running.settle()
    assert running.phase("VolumeBackup", "new") == "error"
    assert running.reason("VolumeBackup", "new") == "SealBroken"


def test_ten_names_and_the_count_are_listed() -> None:
    names = tuple(f"b{number:02}" for number in range(12))
    store = a_store(encryptionSecretRef={"name": "keys"})
    for more, words in ((False, "12 VolumeBackups"), (True, "12 or more VolumeBackups")):
        status = store_decide.decide(
            ObservedStore(store, StoreLookup(store), (), names, more_unsealed=more), NOW
        ).status
        assert status is not None
        (listed,) = [c for c in status.conditions if c.type == "UnsealedBackups"]
        assert listed.message.startswith(words)
        assert listed.message.endswith("b08, b09")
