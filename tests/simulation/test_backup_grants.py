"""Restores of backups of another namespace: grants, their withdrawal, deletions meanwhile, crashes, hostile tenants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from cinderblock.api import labels
from tests.simulation.test_shared_stores import SHARED, change, share
from tests.support.documented_reasons import GRANT_REASONS
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE as SOURCE
from tests.support.simulation.simulation import Simulation
from tests.support.store.faults import Crash
from tests.support.variations import some

TARGET = "staging"
CRASHES = 26
"""More writes than a restore of another namespace takes."""


def prepare(simulation: Simulation) -> None:
    """Make a backup in a shared store, and another namespace that may use it."""
    simulation.claim("data", "content")
    simulation.make("Namespace", {"metadata": {"name": TARGET}})
    share(simulation)
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(policy=SHARED) as made:
        prepare(made)
        yield made


def grant(simulation: Simulation, name: str = "to-staging", /, namespace: str = SOURCE, **spec: Any) -> Object:
    fields = {"backups": {"names": ["full"]}, "to": {"namespaces": [TARGET]}} | spec
    return simulation.make("BackupGrant", {"metadata": {"name": name, "namespace": namespace}, "spec": fields})


def restore(simulation: Simulation, backup: str = "full", /, **spec: Any) -> Object:
    fields = {"backupId": backup, "backupNamespace": SOURCE, "name": "copy"} | spec
    return simulation.make("VolumeRestore", {"metadata": {"name": "back", "namespace": TARGET}, "spec": fields})


def found(simulation: Simulation, kind: str = "VolumeRestore", name: str = "back", namespace: str = TARGET) -> Object:
    item = simulation.objects.get(kind, name, namespace)
    assert item is not None
    return item


def shown(simulation: Simulation) -> tuple[str, str]:
    """Return phase and reason of the restore."""
    status = found(simulation)["status"]
    return status["phase"], status["conditions"][0]["reason"]


def until(simulation: Simulation, reason: str) -> None:
    for _ in range(400):
        item = simulation.objects.get("VolumeRestore", "back", TARGET)
        if item is not None and (item.get("status", {}).get("conditions") or [{"reason": ""}])[0]["reason"] == reason:
            return
        simulation.step()
    raise AssertionError(simulation.story())


def content(simulation: Simulation, claim: str = "copy") -> str:
    volume = simulation.cluster.volume_of(found(simulation, "PersistentVolumeClaim", claim))
    assert volume is not None
    return simulation.cluster.contents[volume["metadata"]["name"]]


def readers(simulation: Simulation, name: str = "full") -> list[str]:
    return [entry["name"] for entry in simulation.get("VolumeBackup", name)["status"].get("grantedRestores", [])]


def has_mover(simulation: Simulation) -> bool:
    return bool(simulation.objects.all("Job", TARGET))


@pytest.mark.parametrize(
    "backups",
    [{"names": ["full"]}, {"all": True}, {"selector": {"matchLabels": {"share": "yes"}}}],
    ids=["by name", "all", "by label"],
)
def test_granted_backup_is_restored(simulation: Simulation, backups: dict[str, Any]) -> None:
    backup = simulation.get("VolumeBackup", "full")
    simulation.objects.update(backup, metadata=backup["metadata"] | {"labels": {"share": "yes"}})
    made = grant(simulation, backups=backups)
    restore(simulation)
    simulation.settle()
    assert shown(simulation) == ("available", "Restored")
    assert content(simulation) == "content"
    assert found(simulation)["status"]["backupNamespace"] == SOURCE
    assert readers(simulation) == []
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert made["status"]["conditions"][0]["reason"] == "Granted"
    [told] = [event for event in simulation.objects.all("Event", SOURCE) if event["reason"] == "ReadElsewhere"]
    assert told["regarding"]["name"] == "full"
    assert told["note"].startswith("VolumeRestore staging/back begins to restore this backup")
    assert [n["name"] for n in made["status"]["namespaces"]] == [TARGET]


def test_restore_has_its_own_class_size_and_labels(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation, storageClassName="kept", size="3Gi", labels={"team": "qa"}, accessModes=["ReadWriteMany"])
    simulation.settle()
    claim = found(simulation, "PersistentVolumeClaim", "copy")
    assert claim["spec"]["storageClassName"] == "kept"
    assert claim["spec"]["resources"]["requests"]["storage"] == str(3 << 30)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["labels"]["team"] == "qa"
    assert content(simulation) == "content"


def test_existing_volume_is_overwritten(simulation: Simulation) -> None:
    grant(simulation)
    spec = {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = simulation.make("PersistentVolumeClaim", {"metadata": {"name": "old", "namespace": TARGET}, "spec": spec})
    simulation.cluster._provision(claim, "older")
    restore(simulation, volumeId="old", name=None)
    simulation.settle()
    assert content(simulation, "old") == "content"


def test_mover_may_list_nothing(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    [pod] = simulation.objects.all("Pod", TARGET)
    task = simulation.cluster.task_of(pod)
    assert task.broker is not None
    assert not task.broker.lists
    assert task.store.prefix.startswith(f"{SOURCE}/")
    assert not any("secret" in volume for volume in pod["spec"]["volumes"])


# Without a grant


@pytest.mark.parametrize(
    ("backup", "namespace"),
    [("full", SOURCE), ("no-such-backup", SOURCE), ("full", "no-such-namespace")],
    ids=["exists", "no backup", "no namespace"],
)
def test_refusal_does_not_tell_what_exists(simulation: Simulation, backup: str, namespace: str) -> None:
    restore(simulation, backup, backupNamespace=namespace)
    until(simulation, "NotGranted")
    message = found(simulation)["status"]["conditions"][0]["message"].partition(" (until")[0]
    assert message == (
        f"No BackupGrant in namespace {namespace} lets namespace {TARGET} restore backup {backup}. Ask the owner of"
        f" {namespace} for one."
    )
    assert "backupId" not in found(simulation)["status"]
    assert simulation.phase("VolumeBackup", "full") == "available"
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert not has_mover(simulation)


def test_grant_that_comes_later_is_noticed_at_once(simulation: Simulation) -> None:
    restore(simulation)
    until(simulation, "NotGranted")
    waited = simulation.now
    grant(simulation)
    until(simulation, "MoverRunning")
    assert (simulation.now - waited).total_seconds() < 30
    simulation.settle()
    assert content(simulation) == "content"


def test_label_that_comes_later_is_noticed_within_a_minute(simulation: Simulation) -> None:
    grant(simulation, backups={"selector": {"matchLabels": {"share": "yes"}}})
    restore(simulation)
    until(simulation, "NotGranted")
    waited, backup = simulation.now, simulation.get("VolumeBackup", "full")
    simulation.objects.update(backup, metadata=backup["metadata"] | {"labels": {"share": "yes"}})
    # The watches of a real operator leave out an event that changes labels only.
    simulation._undelivered.clear()
    until(simulation, "MoverRunning")
    assert (simulation.now - waited).total_seconds() < 90


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"backups": {"names": ["other"]}}, "Granted"),
        ({"backups": {"selector": {"matchLabels": {"share": "yes"}}}}, "Granted"),
        ({"backups": {}}, "NothingGranted"),
        ({"backups": {"selector": {}}}, "NothingGranted"),
        ({"backups": {"selector": {"matchExpressions": [{"key": "a", "operator": "Maybe"}]}}}, "InvalidSelector"),
        ({"to": {"namespaces": ["another"]}}, "Granted"),
        ({"to": {}}, "NothingGranted"),
    ],
    ids=["other name", "other label", "nothing", "empty selector", "wrong selector", "other namespace", "nobody"],
)
def test_grant_of_something_else_grants_nothing(simulation: Simulation, spec: dict[str, Any], reason: str) -> None:
    made = grant(simulation, **spec)
    restore(simulation)
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert made["status"]["conditions"][0]["reason"] == reason


def test_forged_grant_in_the_own_namespace_grants_nothing(simulation: Simulation) -> None:
    grant(simulation, namespace=TARGET, backups={"all": True})
    restore(simulation)
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")


def test_namespace_that_was_created_again_gets_nothing(simulation: Simulation) -> None:
    made = grant(simulation)
    simulation.settle()
    for kind, name in (("BackupStore", "shared"), ("Namespace", TARGET)):
        item = simulation.objects.get(kind, name, TARGET if kind == "BackupStore" else "")
        assert item is not None
        simulation.objects.delete(item)
    simulation.make("Namespace", {"metadata": {"name": TARGET}})
    restore(simulation)
    until(simulation, "NotGranted")
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert made["status"]["conditions"][0]["reason"] == "NamespaceReplaced"
    simulation.objects.delete(found(simulation))
    simulation.objects.delete(made)
    grant(simulation)
    restore(simulation)
    simulation.settle()
    assert content(simulation) == "content"


def test_namespace_that_comes_later_is_recorded_when_it_asks(simulation: Simulation) -> None:
    made = grant(simulation, to={"namespaces": [TARGET, "later"]})
    simulation.settle()
    assert "later does not exist" in made["status"]["conditions"][1]["message"]
    assert ("NamespaceAbsent", 1) in simulation.events()
    simulation.make("Namespace", {"metadata": {"name": "later"}})
    body = {"backupId": "full", "backupNamespace": SOURCE, "name": "copy"}
    simulation.make("VolumeRestore", {"metadata": {"name": "back", "namespace": "later"}, "spec": body})
    simulation.settle()
    assert found(simulation, namespace="later")["status"]["phase"] == "available"


# Withdrawal and changes meanwhile


def test_withdrawn_grant_before_the_mover_refuses(simulation: Simulation) -> None:
    made = grant(simulation)
    simulation.cluster.no_volume = "no room"
    restore(simulation)
    until(simulation, "Accepted")
    while not found(simulation)["metadata"].get("finalizers"):
        simulation.step()
    simulation.objects.delete(made)
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert "withdrawn" in found(simulation)["status"]["failReason"]
    assert not has_mover(simulation)
    assert readers(simulation) == []


def test_withdrawn_grant_lets_a_running_restore_end(simulation: Simulation) -> None:
    made = grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    simulation.objects.delete(made)
    simulation.settle()
    assert content(simulation) == "content"


def test_changed_grant_does_not_end_an_accepted_restore(simulation: Simulation) -> None:
    made = grant(simulation)
    restore(simulation)
    until(simulation, "Accepted")
    simulation.objects.update(made, spec=made["spec"] | {"to": {"namespaces": ["another", TARGET]}})
    simulation.settle()
    assert content(simulation) == "content"


def test_deletion_waits_for_a_running_restore_even_after_a_restart(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    while simulation.phase("VolumeBackup", "full") != "restoring":
        simulation.step()
    assert readers(simulation) == ["back"]
    simulation.delete("VolumeBackup", "full")
    simulation.restart()
    simulation.until("VolumeBackup", "full", f"VolumeRestore {TARGET}/back of another namespace reads this backup")
    simulation.settle()
    assert content(simulation) == "content"
    assert not simulation.exists("VolumeBackup", "full")
    assert [key for key in simulation.stored() if "/backups/" in key] == []


def test_deletion_that_begins_first_refuses_the_restore(simulation: Simulation) -> None:
    grant(simulation)
    simulation.cluster.no_volume = "no room"
    restore(simulation)
    while not readers(simulation):
        simulation.step()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "BackupNotAvailable")
    assert not simulation.exists("VolumeBackup", "full")


def test_expired_backup_waits_for_a_running_restore(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    simulation.expire("full")
    simulation.until("VolumeBackup", "full", "of another namespace reads this backup")
    simulation.settle()
    assert content(simulation) == "content"
    assert not simulation.exists("VolumeBackup", "full")


def test_backup_made_again_with_the_same_name_is_another_one(simulation: Simulation) -> None:
    grant(simulation)
    simulation.cluster.no_volume = "no room"
    restore(simulation)
    until(simulation, "Accepted")
    simulation.remove_by_force("full")
    simulation.cluster.no_volume = ""
    simulation.write("data", "another content")
    simulation.backup("full", "data", storeName="shared")
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "BackupNotFound")
    assert simulation.objects.get("PersistentVolumeClaim", "copy", TARGET) is None


def test_deleted_restore_releases_the_backup(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    simulation.objects.delete(found(simulation))
    simulation.settle()
    assert readers(simulation) == []
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_status_that_was_lost_changes_no_result(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation)
    until(simulation, "MoverRunning")
    simulation.objects.update(found(simulation), status=None)
    simulation.settle()
    assert content(simulation) == "content"
    assert readers(simulation) == []


def test_failure_elsewhere_is_no_matter_of_the_backup(simulation: Simulation) -> None:
    grant(simulation)
    restore(simulation, size="1Mi")
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "VolumeTooSmall")
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_full_number_of_readers_makes_others_wait(simulation: Simulation) -> None:
    grant(simulation)
    backup = simulation.get("VolumeBackup", "full")
    others = [{"namespace": TARGET, "name": f"r{n}", "uid": f"u{n}"} for n in range(16)]
    simulation.objects.update(backup, status=backup["status"] | {"grantedRestores": others})
    restore(simulation)
    simulation.settle()
    assert content(simulation) == "content", "entries of restores that do not exist are removed"


# Stores


def test_store_must_allow_both_namespaces(simulation: Simulation) -> None:
    grant(simulation)
    change(simulation, allowedNamespaces={"from": "Names", "names": [SOURCE]})
    restore(simulation)
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "StoreNotAllowed")
    assert TARGET in found(simulation)["status"]["failReason"]


def test_backup_in_a_store_of_its_namespace_cannot_be_granted(simulation: Simulation) -> None:
    simulation.backup("own", "data", storeName="default")
    simulation.settle()
    grant(simulation, backups={"all": True})
    restore(simulation, "own")
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "StoreNotShared")
    assert "back the volume up to a ClusterBackupStore" in found(simulation)["status"]["failReason"]


def test_session_credentials_cannot_be_limited_to_a_backup(simulation: Simulation) -> None:
    session = {"roleArn": "arn:aws:iam::1:role/x"}
    change(simulation, moverAccess={"mode": "SessionCredentials", "sessionCredentials": session})
    grant(simulation)
    restore(simulation)
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "StoreNotShared")


def test_operator_of_some_namespaces_says_that_it_cannot() -> None:
    with Simulation(policy=replace(SHARED, cluster_stores=False)) as simulation:
        restore(simulation)
        simulation.settle()
        assert shown(simulation) == ("error_restoring", "StoreNotShared")
        assert "watchNamespaces" in found(simulation)["status"]["conditions"][0]["message"]


def test_backup_of_the_own_namespace_needs_no_grant(simulation: Simulation) -> None:
    simulation.restore("back", "full", name="copy", backupNamespace=SOURCE)
    simulation.settle()
    assert simulation.content("copy") == "content"
    assert "backupNamespace" not in simulation.get("VolumeRestore", "back")["status"]


# Hostile tenants


def test_job_that_a_tenant_forged_is_removed(simulation: Simulation) -> None:
    """Without a grant, nothing runs under the name of the mover."""
    made = restore(simulation)
    until(simulation, "NotGranted")
    uid = made["metadata"]["uid"]
    owner = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "VolumeRestore", "name": "back", "uid": uid}
    metadata = {"name": labels.child_name(uid), "namespace": TARGET, "ownerReferences": [owner]}
    simulation.make("Job", {"metadata": metadata, "spec": {"suspend": True}})
    simulation.settle()
    assert shown(simulation) == ("error_restoring", "NotGranted")
    assert not has_mover(simulation)
    assert readers(simulation) == []


def test_restores_without_a_grant_hold_up_no_deletion(simulation: Simulation) -> None:
    restore(simulation)
    until(simulation, "NotGranted")
    simulation.delete("VolumeBackup", "full")
    for _ in range(200):
        simulation.step()
    assert not simulation.exists("VolumeBackup", "full")


def test_every_reason_of_grants_has_a_test_here() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert not {reason for reason in GRANT_REASONS if f'"{reason}"' not in text}


@pytest.mark.parametrize(("at", "done"), some(product(range(CRASHES), (False, True)), step=9))
def test_crash_at_any_write_changes_no_result(at: int, done: bool) -> None:
    with Simulation(policy=SHARED) as simulation:
        prepare(simulation)
        simulation.faults.plan(at, Crash("scripted"), done=done)
        made = grant(simulation)
        restore(simulation)
        simulation.settle()
        assert shown(simulation) == ("available", "Restored")
        assert content(simulation) == "content"
        assert readers(simulation) == []
        assert made["status"]["conditions"][0]["reason"] == "Granted"
        simulation.delete("VolumeBackup", "full")
        simulation.settle()
        assert not simulation.exists("VolumeBackup", "full")
