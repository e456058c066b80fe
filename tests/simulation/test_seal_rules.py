"""A store with an encryption Secret accepts no unsealed backup without a status, unless that is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.retention import FailedRetention
from cinderblock.lifecycle.backup_record import record_of
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.retention.verdict import Judgement, Step
from cinderblock.lifecycle.store import decide as store_decide
from tests.support.mover.backups import key_ring
from tests.support.retention.records import planned, rules
from tests.support.simulation.observed_builders import NOW, a_store
from tests.support.simulation.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Return a simulation whose store got an encryption Secret after its backup was made."""
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data", deletionPolicy="Retain")
        simulation.settle()
        simulation.encrypt(key_ring())
        simulation.settle()
        yield simulation


def conditions(simulation: Simulation, kind: str, name: str) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in simulation.get(kind, name)["status"]["conditions"]}


def allow_unsealed(simulation: Simulation) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"allowUnsealed": True})


def leave(simulation: Simulation) -> str:
    """Delete the VolumeBackup and leave its data. Return the id of the backup."""
    uid = str(simulation.get("VolumeBackup", "full")["metadata"]["uid"])
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    return uid


def import_backup(simulation: Simulation, backup_id: str, **more: Any) -> tuple[str, str]:
    source = {"id": backup_id} | more
    simulation.make("VolumeBackup", {"metadata": {"name": "again", "namespace": "shop"}, "spec": {"import": source}})
    simulation.settle()
    return simulation.phase("VolumeBackup", "again"), simulation.reason("VolumeBackup", "again")


def test_earlier_unsealed_backup_stays_restorable_and_listed(simulation: Simulation) -> None:
    listed = conditions(simulation, "BackupStore", "default")["UnsealedBackups"]
    assert (listed["status"], listed["reason"]) == ("True", "NotEncrypted")
    assert listed["message"].startswith("1 VolumeBackups")
    assert "full" in listed["message"]
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_replaced_unsealed_manifest_is_not_restored(simulation: Simulation) -> None:
    status = simulation.get("VolumeBackup", "full")["status"]
    simulation.cluster.store.put(
        status["manifestKey"], simulation.cluster.forge(status["volumeId"], status["id"], "evil")
    )
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.reason("VolumeRestore", "back") == "ManifestReplaced"


def test_condition_disappears_with_the_last_unsealed_backup(simulation: Simulation) -> None:
    leave(simulation)
    simulation.resync()
    simulation.settle()
    assert "UnsealedBackups" not in conditions(simulation, "BackupStore", "default")


def test_unsealed_import_fails(simulation: Simulation) -> None:
    assert import_backup(simulation, leave(simulation)) == ("error", "SealBroken")
    assert "spec.import.allowUnsealed" in simulation.get("VolumeBackup", "again")["status"]["failReason"]


@pytest.mark.parametrize("where", ["import", "store"])
def test_unsealed_import_succeeds_if_allowed(simulation: Simulation, where: str) -> None:
    backup_id = leave(simulation)
    if where == "store":
        allow_unsealed(simulation)
    more = {"allowUnsealed": True} if where == "import" else {}
    assert import_backup(simulation, backup_id, **more) == ("available", "Available")
    assert simulation.get("VolumeBackup", "again")["status"]["sealed"] is False
    simulation.restore("back", "again", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_unsealed_import_as_alias_fails(simulation: Simulation) -> None:
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    leave(simulation)
    other = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert import_backup(simulation, other, manifest=key) == ("error", "SealBroken")


def test_lost_status_is_recovered_only_if_allowed(simulation: Simulation) -> None:
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    for _ in range(40):
        simulation.step()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "SealBroken",
    )
    assert "allowUnsealed" in simulation.get("VolumeBackup", "full")["status"]["failReason"]
    assert ("SealBroken", 1) in simulation.events()
    allow_unsealed(simulation)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert conditions(simulation, "VolumeBackup", "full")["PinRegained"]["status"] == "True"


def test_unsealed_backup_with_lost_status_can_be_deleted(simulation: Simulation) -> None:
    backup = simulation.get("VolumeBackup", "full")
    simulation.objects.update(backup, spec=backup["spec"] | {"deletionPolicy": "Delete"})
    simulation.erase_status("VolumeBackup", "full")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "full"), simulation.stored()) == ("gone", [])


def forget(simulation: Simulation) -> None:
    """Lose the status of the backup, which its manifest cannot restore. Its data may be removed with it."""
    backup = simulation.get("VolumeBackup", "full")
    simulation.objects.update(backup, spec=backup["spec"] | {"deletionPolicy": "Delete"})
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "error"


def test_backup_with_lost_status_never_expires(simulation: Simulation) -> None:
    forget(simulation)
    record = record_of(VolumeBackup.model_validate(simulation.get("VolumeBackup", "full")))
    later = simulation.now + timedelta(days=900)
    [verdict] = planned(rules(keep_last=1, failed=FailedRetention(last=0), max_age="1d"), [record], later).verdicts
    assert verdict.judgement is Judgement.FORGOTTEN
    assert verdict.step is Step.KEEP


def test_expiry_of_a_lost_status_leaves_the_unsealed_data(simulation: Simulation) -> None:
    forget(simulation)
    stored = simulation.stored()
    simulation.expire("full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "SealBroken"
    assert simulation.stored() == stored


def test_new_backup_must_be_sealed_whatever_is_allowed(simulation: Simulation) -> None:
    allow_unsealed(simulation)
    uid = simulation.backup("new", "data")["metadata"]["uid"]
    simulation.until("VolumeBackup", "new", "MoverRunning")
    volume = simulation.get("VolumeBackup", "new")["status"]["volumeId"]
    simulation.cluster.store.put(f"backups/{volume}/{uid}.manifest", simulation.cluster.forge(volume, uid, "evil"))
    simulation.settle()
    assert simulation.phase("VolumeBackup", "new") == "error"
    assert simulation.reason("VolumeBackup", "new") == "SealBroken"


def test_condition_lists_ten_names_and_the_count() -> None:
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
