"""A claim gets what its dataSourceRef says, whatever others write into the claim or into VolumeRestores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cinderblock.api.labels import POPULATED_ANNOTATION, populate_name
from tests.support.simulation.cluster import KEPT, NAMESPACE
from tests.support.simulation.simulation import Simulation, summary

FULL = {"apiGroup": "cinderblock.io", "kind": "VolumeBackup", "name": "full"}


def ask(simulation: Simulation, **source: str) -> dict[str, Any]:
    """Create a claim that asks for ``full``, with changes of its dataSourceRef."""
    claim: dict[str, Any] = simulation.ask("copy", "full", "VolumeBackup", dataSourceRef=FULL | source)
    return claim


def reports(simulation: Simulation, reason: str) -> list[str]:
    """Return the notes of all Events with a reason."""
    return [event["note"] for event in simulation.objects.all("Event") if event.get("reason") == reason]


def volume_name(simulation: Simulation) -> str:
    """Return the name of the volume of claim ``copy``; empty: it is unbound."""
    spec: dict[str, str] = simulation.get("PersistentVolumeClaim", "copy")["spec"]
    return spec.get("volumeName", "")


def hostile_restore(simulation: Simulation, claim: dict[str, Any], spec: dict[str, Any], **metadata: Any) -> str:
    """Create a VolumeRestore for a claim as its owner would be named. Return its name."""
    uid = claim["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "copy", "uid": uid}
    usual = {"name": populate_name(uid), "namespace": NAMESPACE, "ownerReferences": [owner]}
    made = simulation.make("VolumeRestore", {"metadata": usual | metadata, "spec": spec})
    name: str = made["metadata"]["name"]
    return name


def test_backup_of_the_own_namespace_is_no_source_of_another_one(backed_up: Simulation) -> None:
    """With an alpha feature, Kubernetes keeps dataSourceRef.namespace. A backup there may have the same name."""
    ask(backed_up, namespace="payroll")

    backed_up.settle()

    assert volume_name(backed_up) == ""
    assert "dataSourceRef.namespace" in reports(backed_up, "InvalidInput")[0]
    assert not backed_up.objects.all("VolumeRestore")


def test_own_namespace_may_be_written_out(backed_up: Simulation) -> None:
    ask(backed_up, namespace=NAMESPACE)
    backed_up.settle()
    assert backed_up.content("copy") == "first"


def test_other_kind_is_reported(backed_up: Simulation) -> None:
    ask(backed_up, kind="BackupStore", name="default")

    backed_up.settle()

    assert volume_name(backed_up) == ""
    assert "names a BackupStore" in reports(backed_up, "InvalidInput")[0]


OTHER_CONTENT: dict[str, Callable[[str], dict[str, Any]]] = {
    "another backup": lambda uid: {"backupId": "later", "claim": {"name": "copy", "uid": uid}},
    "nothing": lambda uid: {"claim": {"name": "copy", "uid": uid, "empty": True}},
}


@pytest.mark.parametrize("content", OTHER_CONTENT.values(), ids=OTHER_CONTENT)
@pytest.mark.parametrize("name", [None, "mine"])
def test_claim_gets_no_other_content_than_it_names(
    backed_up: Simulation, content: Callable[[str], dict[str, Any]], name: str | None
) -> None:
    backed_up.write("data", "second")
    backed_up.backup("later", "data")
    backed_up.settle()
    claim = ask(backed_up)
    metadata = {"name": name} if name is not None else {}
    hostile = hostile_restore(backed_up, claim, content(claim["metadata"]["uid"]), **metadata)
    backed_up.settle()
    assert backed_up.phase("VolumeRestore", hostile) == "error_restoring"
    assert backed_up.reason("VolumeRestore", hostile) == "InvalidInput"

    backed_up.delete("VolumeRestore", hostile)
    backed_up.settle()

    assert backed_up.content("copy") == "first"


@pytest.mark.parametrize("storage_class", ["fast", KEPT])
def test_name_of_the_volume_that_is_being_filled_changes_nothing(backed_up: Simulation, storage_class: str) -> None:
    """Users may write spec.volumeName of their unbound claims."""
    claim = backed_up.ask("copy", "full", "VolumeBackup", storageClassName=storage_class)
    while not backed_up.objects.all("Job"):
        backed_up.step()
    (filled,) = (v for v in backed_up.objects.all("PersistentVolume") if v["spec"]["claimRef"]["name"] != "data")
    current = backed_up.get("PersistentVolumeClaim", "copy")
    backed_up.objects.update(current, spec=current["spec"] | {"volumeName": filled["metadata"]["name"]})

    backed_up.settle()

    assert backed_up.content("copy") == "first"
    volume = backed_up.get("PersistentVolume", filled["metadata"]["name"])
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert summary(backed_up)["children"] == []


def test_restored_claim_with_a_volume_of_the_user_is_not_called_wrong(backed_up: Simulation) -> None:
    """A claim of the same template may get its retained volume back, which has newer data than any backup."""
    claim = ask(backed_up)
    backed_up.cluster._provision(claim, "retained")

    backed_up.settle()

    assert "If you gave it this volume yourself" in reports(backed_up, "BoundElsewhere")[0]
    assert backed_up.content("copy") == "retained"


def test_copied_mark_of_a_volume_hides_nothing(backed_up: Simulation) -> None:
    claim = ask(backed_up)
    backed_up.cluster._provision(claim, "foreign")
    volume = backed_up.get("PersistentVolume", volume_name(backed_up))
    annotations = {POPULATED_ANNOTATION: claim["metadata"]["uid"]}
    moved = volume["spec"] | {"claimRef": volume["spec"]["claimRef"] | {"uid": "u-of-another-cluster"}}
    backed_up.objects.update(volume, metadata=volume["metadata"] | {"annotations": annotations}, spec=moved)

    backed_up.settle()

    assert reports(backed_up, "BoundElsewhere")
    assert not reports(backed_up, "Populated")
