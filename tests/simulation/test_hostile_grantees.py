"""A tenant who may restore a backup of another namespace, and who wants to keep its owner from getting rid of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.simulation.test_backup_grants import (
    TARGET,
    content,
    found,
    grant,
    has_mover,
    prepare,
    readers,
    restore,
    shown,
    until,
)
from tests.simulation.test_shared_stores import SHARED
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation

DAY = timedelta(days=1)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(policy=SHARED) as made:
        prepare(made)
        yield made


def suspended(simulation: Simulation) -> Object:
    """Suspend the mover Job of the restore, as anybody with `edit` in its namespace can, and return the grant."""
    made = grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    [job] = simulation.objects.all("Job", TARGET)
    for pod in simulation.objects.all("Pod", TARGET):
        simulation.objects.delete(pod)
    simulation.objects.update(job, spec=job["spec"] | {"suspend": True})
    until(simulation, "MoverSuspended")
    assert readers(simulation) == ["back"]
    return made


@pytest.mark.parametrize("is_expired", [False, True])
def test_held_mover_delays_a_deletion_by_a_day_at_most(simulation: Simulation, is_expired: bool) -> None:
    suspended(simulation)
    began = simulation.now
    if is_expired:
        simulation.expire("full")
    else:
        simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", f"VolumeRestore {TARGET}/back of another namespace reads this backup")
    message = simulation.get("VolumeBackup", "full")["status"]["conditions"][0]["message"]
    assert f"waits until {began + DAY:%Y-%m-%dT%H:%M}" in message
    simulation.advance((DAY - timedelta(minutes=2)).total_seconds())
    while simulation.now < began + DAY - timedelta(minutes=1):
        simulation.step()
    assert simulation.exists("VolumeBackup", "full")
    assert any("/backups/" in key for key in simulation.stored()), "the data stays as long as the deletion waits"
    while simulation.now < began + DAY + timedelta(minutes=5):
        simulation.step()
    assert not simulation.exists("VolumeBackup", "full")
    assert [key for key in simulation.stored() if "/backups/" in key] == []
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "BackupNotFound")


def test_owner_may_leave_the_data_and_wait_for_nobody(simulation: Simulation) -> None:
    suspended(simulation)
    simulation.delete("VolumeBackup", "full")
    simulation.until("VolumeBackup", "full", "cinderblock.io/let-go=leave-data")
    backup, began = simulation.get("VolumeBackup", "full"), simulation.now
    annotations = {"cinderblock.io/let-go": "leave-data"}
    simulation.objects.update(backup, metadata=backup["metadata"] | {"annotations": annotations})
    while simulation.exists("VolumeBackup", "full"):
        assert simulation.now - began < timedelta(minutes=5), simulation.story()
        simulation.step()
    assert [key for key in simulation.stored() if "/backups/" in key]
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "BackupNotFound")


def test_deleted_restore_with_a_foreign_finalizer_reads_no_longer(simulation: Simulation) -> None:
    grant(simulation)
    made = restore(simulation)
    until(simulation, "MoverRunning")
    finalizers = [*made["metadata"]["finalizers"], "tenant.example/hold"]
    simulation.objects.update(made, metadata=made["metadata"] | {"finalizers": finalizers})
    simulation.objects.delete(made)
    simulation.settle()
    assert found(simulation)["metadata"]["finalizers"] == ["tenant.example/hold"]
    assert readers(simulation) == []
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_mover_that_was_held_does_not_start_after_the_withdrawal(simulation: Simulation) -> None:
    simulation.objects.delete(suspended(simulation))
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert not has_mover(simulation)
    assert readers(simulation) == []


def test_held_mover_of_a_granted_restore_may_start_later(simulation: Simulation) -> None:
    suspended(simulation)
    [job] = simulation.objects.all("Job", TARGET)
    simulation.objects.update(job, spec=job["spec"] | {"suspend": False})
    simulation.settle()
    assert content(simulation) == "content"


def test_grant_made_while_the_operator_was_away_still_counts(simulation: Simulation) -> None:
    restore(simulation)
    until(simulation, "NotGranted")
    grant(simulation)
    simulation.advance(3600.0)
    restored = next(key for key in simulation.due() if key.kind == "VolumeRestore")
    simulation.reconcile(restored)
    simulation.settle()
    assert shown(simulation) == ("available", "Restored")


def test_operator_of_some_namespaces_reads_no_others(simulation: Simulation) -> None:
    """An administrator has set watchNamespaces since: the operator may read nothing in the other namespace."""
    suspended(simulation)
    simulation.policy = replace(SHARED, cluster_stores=False)
    simulation.restart()
    simulation.api.unreadable_namespaces = {TARGET}
    simulation.until("VolumeBackup", "full", "Available")
    while simulation.phase("VolumeBackup", "full") != "available":
        simulation.step()
    assert readers(simulation) == []
