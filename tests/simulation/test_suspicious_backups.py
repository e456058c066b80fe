"""A backup whose numbers are unusual is available and suspicious, until somebody accepts it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.quantity import GIB, MIB
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle.backup_record import record_of
from tests.support.mover.backups import key_ring
from tests.support.simulation.cluster import Sizes
from tests.support.simulation.simulation import Simulation
from tests.support.store.faults import Crash

USUAL = Sizes(logical=10 * GIB, transferred=100 * MIB, packs=30 * MIB)
ENCRYPTED = replace(USUAL, transferred=5 * GIB, packs=5 * GIB)
EARLIER = 7


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Return a simulation with a volume that has usual backups."""
    with Simulation() as simulation:
        with_history(simulation)
        yield simulation


def with_history(simulation: Simulation) -> None:
    """Make one full and some incremental backups of a volume."""
    simulation.claim("data", "content")
    simulation.cluster.sizes = replace(USUAL, transferred=USUAL.logical, packs=3 * GIB)
    made(simulation, "full", incremental=False)
    simulation.cluster.sizes = USUAL
    for number in range(1, EARLIER):
        made(simulation, f"usual-{number}")


def made(simulation: Simulation, name: str, *, incremental: bool = True) -> None:
    simulation.backup(name, "data", incremental=incremental)
    simulation.settle()
    assert simulation.phase("VolumeBackup", name) == "available", simulation.story()


def suspicious(simulation: Simulation, name: str = "odd") -> tuple[str, str] | None:
    """Return status and reason of the condition; None if there is none."""
    conditions: list[dict[str, Any]] = simulation.get("VolumeBackup", name)["status"]["conditions"]
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == "Suspicious"), None)


def is_recorded_as_suspicious(simulation: Simulation, name: str = "odd") -> bool:
    return record_of(VolumeBackup.model_validate(simulation.get("VolumeBackup", name))).is_suspicious


def encrypted(simulation: Simulation) -> None:
    """Back the volume up after half of it was encrypted."""
    simulation.cluster.sizes = ENCRYPTED
    made(simulation, "odd")


def accept(simulation: Simulation, name: str = "odd", backup_id: str | None = None) -> None:
    backup = simulation.get("VolumeBackup", name)
    annotations = {labels.ACCEPT_ANNOTATION: backup_id or backup["metadata"]["uid"]}
    simulation.objects.update(backup, metadata=backup["metadata"] | {"annotations": annotations})
    simulation.settle()


def test_usual_backups_raise_no_alarm(simulation: Simulation) -> None:
    assert [suspicious(simulation, f"usual-{number}") for number in range(1, EARLIER)] == [None] * (EARLIER - 1)


def test_encrypted_volume_makes_the_next_backup_suspicious(simulation: Simulation) -> None:
    encrypted(simulation)
    assert suspicious(simulation) == ("True", "Incompressible")
    assert is_recorded_as_suspicious(simulation)
    assert dict(simulation.events())["Incompressible"] == 1
    status = simulation.get("VolumeBackup", "odd")["status"]
    (message,) = (c["message"] for c in status["conditions"] if c["type"] == "Suspicious")
    assert "annotate volumebackup odd cinderblock.io/accept=" in message
    assert (status["entries"], status["storedBytes"] - status["manifestBytes"]) == (1000, 5 * GIB)


def test_alarm_takes_no_write_of_its_own(simulation: Simulation) -> None:
    def writes_of(name: str) -> int:
        before = len(simulation.faults.log)
        made(simulation, name)
        return sum(call.kind.kind == "VolumeBackup" for call in simulation.faults.log[before:])

    usual = writes_of("usual")
    simulation.cluster.sizes = ENCRYPTED
    assert writes_of("odd") == usual


def test_suspicious_backup_is_steady_and_outlives_a_restore(simulation: Simulation) -> None:
    encrypted(simulation)
    before = simulation.get("VolumeBackup", "odd")["status"]
    simulation.restart()
    simulation.settle()
    assert simulation.get("VolumeBackup", "odd")["status"] == before
    simulation.restore("back", "odd", name="new")
    simulation.settle()
    assert suspicious(simulation) == ("True", "Incompressible")
    assert dict(simulation.events())["Incompressible"] == 1


def test_acceptance_clears_the_alarm_once(simulation: Simulation) -> None:
    encrypted(simulation)
    accept(simulation)
    assert suspicious(simulation) == ("False", "AlarmAccepted")
    assert not is_recorded_as_suspicious(simulation)
    assert dict(simulation.events())["AlarmAccepted"] == 1
    writes = len(simulation.faults.log)
    simulation.resync()
    simulation.settle()
    assert len(simulation.faults.log) == writes


def test_acceptance_of_another_backup_does_not_count(simulation: Simulation) -> None:
    encrypted(simulation)
    accept(simulation, backup_id=simulation.get("VolumeBackup", "full")["metadata"]["uid"])
    assert suspicious(simulation) == ("True", "Incompressible")
    assert is_recorded_as_suspicious(simulation)


def test_lost_status_is_rebuilt_with_its_alarm(simulation: Simulation) -> None:
    encrypted(simulation)
    simulation.cluster.sizes = USUAL
    made(simulation, "later")
    simulation.erase_status("VolumeBackup", "odd")
    simulation.settle()
    assert suspicious(simulation) == ("True", "Incompressible")


def lose_statuses(simulation: Simulation) -> None:
    for item in simulation.objects.all("VolumeBackup"):
        simulation.erase_status("VolumeBackup", item["metadata"]["name"])
    simulation.resync()


def test_alarm_outlives_the_loss_of_all_statuses(simulation: Simulation) -> None:
    encrypted(simulation)
    lose_statuses(simulation)
    simulation.settle()
    assert suspicious(simulation) == ("True", "Incompressible")
    assert [suspicious(simulation, f"usual-{number}") for number in range(1, EARLIER)] == [None] * (EARLIER - 1)


def test_backup_that_cannot_be_compared_is_not_cleared(simulation: Simulation) -> None:
    """The store does not accept the status of an earlier backup any more, so the history has a gap."""
    simulation.encrypt(key_ring())
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    for name in ("new", "newer"):
        made(simulation, name, incremental=False)
        assert suspicious(simulation, name) == ("Unknown", "AlarmUnknown")
    record = record_of(VolumeBackup.model_validate(simulation.get("VolumeBackup", "new")))
    assert (record.is_suspicious, record.has_unknown_alarm) == (False, True)
    accept(simulation, "new")
    assert suspicious(simulation, "new") == ("False", "AlarmAccepted")
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"allowUnsealed": True})
    simulation.settle()
    simulation.resync()
    simulation.settle()
    assert suspicious(simulation, "newer") is None


def test_old_gap_in_the_history_does_not_matter(simulation: Simulation) -> None:
    for number in range(EARLIER, EARLIER + 5):
        made(simulation, f"usual-{number}")
    simulation.encrypt(key_ring())
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    made(simulation, "new", incremental=False)
    assert suspicious(simulation, "new") is None


def begun(simulation: Simulation) -> int:
    """Begin the backup of an encrypted volume, up to its mover. Return the writes until now."""
    with_history(simulation)
    simulation.cluster.sizes = ENCRYPTED
    simulation.backup("odd", "data", incremental=True)
    simulation.until("VolumeBackup", "odd", "MoverRunning")
    return simulation.faults.writes


def writes_until_the_alarm() -> int:
    """Return the writes from the mover's start to the one that makes the backup available."""
    with Simulation() as simulation:
        before = begun(simulation)
        while suspicious(simulation) is None:
            simulation.step()
        events = sum(call.kind.kind == "Event" for call in simulation.faults.log[-1:])
        return simulation.faults.writes - before - events


def test_crashes_around_the_alarm_do_not_lose_it() -> None:
    """The operator dies before and after the status, and before the Event of the alarm, which the condition tells."""
    status = writes_until_the_alarm() - 1
    for at, done, events in ((status, False, 1), (status, True, 0), (status + 1, False, 0)):
        with Simulation() as simulation:
            begun(simulation)
            simulation.faults.plan(at, Crash("scripted"), done=done)
            simulation.settle()
            assert simulation.faults.at is None, "the operator has died"
            assert suspicious(simulation) == ("True", "Incompressible")
            assert dict(simulation.events()).get("Incompressible", 0) == events


def test_imported_backup_raises_no_alarm(simulation: Simulation) -> None:
    encrypted(simulation)
    backup_id = simulation.get("VolumeBackup", "odd")["metadata"]["uid"]
    simulation.remove_by_force("odd")
    simulation.import_backup("again", backup_id)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "available"
    assert suspicious(simulation, "again") is None


@pytest.mark.parametrize("target", ["data", "another"])
def test_restore_explains_many_changes_of_its_target_only(simulation: Simulation, target: str) -> None:
    simulation.claim("another", "content")
    simulation.restore("back", "full", volumeId=target)
    simulation.settle()
    simulation.cluster.sizes = replace(USUAL, transferred=9 * GIB, packs=MIB)
    made(simulation, "odd")
    assert suspicious(simulation) == (None if target == "data" else ("True", "ManyChanges"))


def test_metrics_count_alarms_and_suspicious_backups(simulation: Simulation) -> None:
    encrypted(simulation)
    found = simulation.metrics()
    assert found.value("backup_alarms_total", reason="Incompressible") == 1
    assert found.value("backups_suspicious", volume_namespace="shop") == 1
    accept(simulation)
    assert simulation.metrics().value("backups_suspicious", volume_namespace="shop") == 0


def kept_alarms(simulation: Simulation) -> dict[str, list[str]]:
    """Return the names of the deleted backups whose open alarms each backup keeps."""
    backups = [VolumeBackup.model_validate(item) for item in simulation.objects.all("VolumeBackup")]
    return {b.name: [alarm.backup_name for alarm in b.open_deleted_alarms] for b in backups if b.open_deleted_alarms}


def test_alarm_outlives_the_deletion_of_its_backup(simulation: Simulation) -> None:
    encrypted(simulation)
    backup_id = simulation.get("VolumeBackup", "odd")["metadata"]["uid"]
    simulation.delete("VolumeBackup", "odd")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "odd") == "gone"
    assert kept_alarms(simulation) == {"usual-6": ["odd"]}
    assert simulation.metrics().value("backups_suspicious", volume_namespace="shop") == 1
    [note] = [e["note"] for e in simulation.objects.all("Event") if e["reason"] == "Deleted"]
    assert (
        f"VolumeBackup usual-6 keeps it. To accept it, annotate that one with cinderblock.io/accept={backup_id}" in note
    )
    simulation.resync()
    simulation.settle()
    accept(simulation, "usual-6", backup_id)
    assert not kept_alarms(simulation)
    assert simulation.metrics().value("backups_suspicious", volume_namespace="shop") == 0


def test_alarm_moves_on_when_its_keeper_is_deleted(simulation: Simulation) -> None:
    encrypted(simulation)
    for name in ("odd", "usual-6", "usual-5"):
        simulation.delete("VolumeBackup", name)
        simulation.settle()
    assert kept_alarms(simulation) == {"usual-4": ["odd"]}
    accept(simulation, "usual-4", f"{simulation.get('VolumeBackup', 'usual-4')['metadata']['uid']}, another")
    assert kept_alarms(simulation) == {"usual-4": ["odd"]}


def test_accepted_alarm_goes_with_its_backup(simulation: Simulation) -> None:
    encrypted(simulation)
    accept(simulation)
    simulation.delete("VolumeBackup", "odd")
    simulation.settle()
    assert not kept_alarms(simulation)


def test_alarm_needs_no_keeper_if_all_backups_go(simulation: Simulation) -> None:
    encrypted(simulation)
    for item in simulation.objects.all("VolumeBackup"):
        simulation.delete("VolumeBackup", item["metadata"]["name"])
    simulation.settle()
    assert not simulation.objects.all("VolumeBackup")


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_deletion_loses_no_alarm_whichever_write_fails(done: bool) -> None:
    with Simulation() as simulation:
        with_history(simulation)
        encrypted(simulation)
        before = simulation.faults.writes
        simulation.delete("VolumeBackup", "odd")
        simulation.settle()
        writes = simulation.faults.writes - before
    assert writes > 3
    for at in range(writes):
        with Simulation() as simulation:
            with_history(simulation)
            encrypted(simulation)
            simulation.faults.plan(at, Crash("scripted"), done=done)
            simulation.delete("VolumeBackup", "odd")
            simulation.settle()
            assert simulation.phase("VolumeBackup", "odd") == "gone"
            assert kept_alarms(simulation) == {"usual-6": ["odd"]}, f"write {at}"
