"""Claims that ask for their backup get it, or an empty volume if the store proves that there is none, or they wait."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api.kubernetes import PROVISIONED_BY_ANNOTATION, SELECTED_NODE_ANNOTATION
from cinderblock.api.labels import BIND_ANNOTATION, POPULATED_ANNOTATION, RESTORE_LABEL, populate_name
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    ContainerNotFound,
    ObjectNotFound,
    PermanentError,
    StoreUnreachable,
)
from cinderblock.reasons import Reason
from tests.support.simulation.cluster import KEPT, LATE, NAMESPACE
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation, summary
from tests.support.simulation.write_faults import FAULTS, Part, run_scenario
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn


def forget_cluster(simulation: Simulation) -> None:
    """Lose the cluster: its claims and VolumeBackups. The store stays."""
    for item in simulation.objects.all("VolumeBackup"):
        simulation.remove_by_force(item["metadata"]["name"])
    for item in simulation.objects.all("PersistentVolumeClaim"):
        simulation.delete("PersistentVolumeClaim", item["metadata"]["name"])
    simulation.settle()


@pytest.fixture
def lost(backed_up: Simulation) -> Simulation:
    """Return a simulation whose cluster was lost after a backup of claim ``data``."""
    forget_cluster(backed_up)
    return backed_up


def is_bound(simulation: Simulation, claim: str) -> bool:
    """Return whether a claim is bound."""
    status: dict[str, Any] = simulation.get("PersistentVolumeClaim", claim).get("status", {})
    return status.get("phase") == "Bound"


def notes(simulation: Simulation, claim: str) -> dict[str, str]:
    """Return the notes of the Events of a claim, by reason."""
    uid = simulation.get("PersistentVolumeClaim", claim)["metadata"]["uid"]
    found = [event for event in simulation.objects.all("Event") if event["regarding"].get("uid") == uid]
    return {event["reason"]: event["note"] for event in found if "reason" in event}


def restore_of(simulation: Simulation, claim: str) -> str:
    """Return the name of the VolumeRestore of a claim."""
    return populate_name(simulation.get("PersistentVolumeClaim", claim)["metadata"]["uid"])


def reconcile_some(simulation: Simulation) -> None:
    """Let the operator work for a while. In a store that does not answer, it never rests."""
    for _ in range(30):
        simulation.step()


def choose_node(simulation: Simulation, claim: str) -> None:
    """Act as scheduler: choose a node for the first pod of a claim."""
    item = simulation.get("PersistentVolumeClaim", claim)
    metadata = item["metadata"] | {"annotations": {SELECTED_NODE_ANNOTATION: "node-1"}}
    simulation.objects.update(item, metadata=metadata)


def test_claim_gets_the_backup_that_it_names(backed_up: Simulation) -> None:
    backed_up.write("data", "second")
    backed_up.ask("copy", "full", "VolumeBackup")

    backed_up.settle()

    assert backed_up.content("copy") == "first"
    claim = backed_up.get("PersistentVolumeClaim", "copy")
    volume = backed_up.get("PersistentVolume", claim["spec"]["volumeName"])
    assert volume["metadata"]["annotations"] == {
        PROVISIONED_BY_ANNOTATION: "csi.example.org",
        POPULATED_ANNOTATION: claim["metadata"]["uid"],
    }
    assert RESTORE_LABEL not in volume["metadata"].get("labels", {})
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert "annotations" not in claim["metadata"], "the claim of the user is never written to"
    assert backed_up.phase("VolumeRestore", restore_of(backed_up, "copy")) == "available"
    assert "Populated" in notes(backed_up, "copy")


def test_claim_waits_for_a_backup_that_is_being_made(simulation: Simulation) -> None:
    simulation.ask("copy", "full", "VolumeBackup")
    simulation.settle()
    assert "SourceNotFound" in notes(simulation, "copy")
    assert not is_bound(simulation, "copy")

    simulation.backup("full", "data")
    simulation.settle()

    assert simulation.content("copy") == "first"


def test_claim_gets_the_newest_backup_of_its_own_name(lost: Simulation) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap")

    lost.settle()

    assert lost.content("data") == "first"
    status = lost.get("RestoreSource", "bootstrap")["status"]
    assert [(claim["name"], claim["outcome"]) for claim in status["claims"]] == [("data", "available")]
    assert status["conditions"][0]["status"] == "True"
    (made,) = lost.objects.all("VolumeBackup")
    assert made["spec"]["deletionPolicy"] == "Retain"


def test_choice_is_made_once(lost: Simulation) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap")
    lost.settle()
    lost.write("data", "third")
    lost.backup("later", "data")
    lost.settle()

    lost.restart()
    lost.settle()

    assert lost.content("data") == "third"
    assert len(lost.objects.all("VolumeRestore")) == 1


@pytest.mark.parametrize("on_missing", ["Fail", "Wait"])
def test_claim_without_backup_waits(lost: Simulation, on_missing: str) -> None:
    lost.source("bootstrap", onMissing=on_missing)
    lost.ask("other", "bootstrap")

    lost.settle()

    assert not is_bound(lost, "other")
    assert "holds no backup of claim shop/other" in notes(lost, "other")["NoBackup"]
    assert not lost.objects.all("VolumeRestore")


@pytest.mark.parametrize("storage_class", ["fast", KEPT])
def test_claim_without_backup_gets_an_empty_volume(lost: Simulation, storage_class: str) -> None:
    lost.source("bootstrap", onMissing="Empty")
    lost.ask("other", "bootstrap", storageClassName=storage_class)

    lost.settle()

    assert lost.content("other") == ""
    assert lost.phase("VolumeRestore", restore_of(lost, "other")) == "available"
    assert not lost.objects.all("Job")
    volume = lost.cluster.volume_of(lost.get("PersistentVolumeClaim", "other"))
    assert volume is not None
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == ("Retain" if storage_class == KEPT else "Delete")


def test_empty_store_proves_nothing(simulation: Simulation) -> None:
    simulation.source("bootstrap", onMissing="Empty")
    simulation.ask("other", "bootstrap")

    simulation.settle()

    assert not is_bound(simulation, "other")
    assert "wrong bucket" in notes(simulation, "other")["CannotTell"]


def test_empty_store_is_allowed_on_request(simulation: Simulation) -> None:
    simulation.source("bootstrap", onMissing="Empty", allowEmptyStore=True)
    simulation.ask("other", "bootstrap")

    simulation.settle()

    assert simulation.content("other") == ""


FAILED_LOOKS: dict[str, CinderblockError] = {
    "no answer": StoreUnreachable("the store does not answer"),
    "403": AccessDenied("the credentials are wrong"),
    "404": ContainerNotFound("the bucket does not exist"),
    "HTML": PermanentError("another server answers", reason=Reason.NOT_S3),
}


@pytest.mark.parametrize("on_missing", ["Fail", "Empty"])
@pytest.mark.parametrize("error", FAILED_LOOKS.values(), ids=FAILED_LOOKS.keys())
def test_failed_look_leaves_the_claim_unbound(lost: Simulation, error: CinderblockError, on_missing: str) -> None:
    lost.source("bootstrap", onMissing=on_missing, allowEmptyStore=True)
    lost.store.error = error
    lost.ask("data", "bootstrap")
    lost.ask("other", "bootstrap")

    reconcile_some(lost)

    assert not is_bound(lost, "data")
    assert not is_bound(lost, "other")
    assert error.reason in notes(lost, "data")
    lost.store.error = None
    lost.settle()
    assert lost.content("data") == "first"


@pytest.mark.parametrize("name", ["data", "other"])
def test_unreadable_manifest_leaves_the_claim_unbound(backed_up: Simulation, name: str) -> None:
    backed_up.break_manifest("full")
    forget_cluster(backed_up)
    backed_up.source("bootstrap", onMissing="Empty", allowEmptyStore=True)
    backed_up.ask(name, "bootstrap")

    backed_up.settle()

    assert not is_bound(backed_up, name)
    assert "cannot be read" in notes(backed_up, name)["CannotTell"]


@pytest.mark.parametrize("name", ["data", "other"])
def test_listed_manifest_that_is_not_found_leaves_the_claim_unbound(lost: Simulation, name: str) -> None:
    def find_nothing(operation: str, key: str) -> None:
        if operation == "get":
            raise ObjectNotFound(f"{key} does not exist")

    lost.source("bootstrap", onMissing="Empty", allowEmptyStore=True)
    lost.store.before = find_nothing
    lost.ask(name, "bootstrap")

    reconcile_some(lost)

    assert not is_bound(lost, name)
    assert "listed it and did not find it" in notes(lost, name)["CannotTell"]


def test_claim_that_waits_or_is_young_is_reconciled_at_a_start(lost: Simulation) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap")
    lost.ask("other", "bootstrap")
    lost.settle()
    claims = {ObjectKey("PersistentVolumeClaim", NAMESPACE, name) for name in ("data", "other")}
    assert claims <= lost.pending()

    lost.advance(2 * 24 * 3600)

    assert lost.pending() & claims == {ObjectKey("PersistentVolumeClaim", NAMESPACE, "other")}


def test_claim_of_late_class_waits_for_a_node(lost: Simulation) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap", storageClassName=LATE)
    lost.settle()
    assert not lost.objects.all("VolumeRestore")
    assert notes(lost, "data") == {}

    choose_node(lost, "data")
    lost.settle()

    assert lost.content("data") == "first"


def test_claim_of_late_class_may_be_filled_before_a_pod_exists(lost: Simulation) -> None:
    lost.source("bootstrap")
    claim = lost.ask("data", "bootstrap", storageClassName=LATE)
    lost.objects.update(claim, metadata=claim["metadata"] | {"annotations": {BIND_ANNOTATION: "Immediate"}})

    lost.settle()

    assert lost.content("data") == "first"


def test_empty_claim_of_late_class_is_bound_with_its_node(lost: Simulation) -> None:
    lost.source("bootstrap", onMissing="Empty")
    claim = lost.ask("other", "bootstrap", storageClassName=LATE)
    lost.objects.update(claim, metadata=claim["metadata"] | {"annotations": {BIND_ANNOTATION: "Immediate"}})
    lost.settle()
    assert not lost.objects.all("VolumeRestore")

    choose_node(lost, "other")
    lost.settle()

    assert lost.content("other") == ""


def take_static_volume(simulation: Simulation, claim: str) -> None:
    """Act as volume controller: bind a claim to an available volume of its class."""
    item = simulation.get("PersistentVolumeClaim", claim)
    simulation.cluster._provision(item, "foreign")


def test_claim_that_is_bound_to_another_volume_is_reported(lost: Simulation) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap")

    take_static_volume(lost, "data")
    lost.settle()

    assert "does not hold the backup" in notes(lost, "data")["BoundElsewhere"]
    assert lost.content("data") == "foreign"
    assert not lost.objects.all("VolumeRestore")


@pytest.mark.parametrize("storage_class", ["fast", KEPT])
def test_restored_volume_is_let_go_if_the_claim_is_bound_elsewhere(lost: Simulation, storage_class: str) -> None:
    lost.source("bootstrap")
    lost.ask("data", "bootstrap", storageClassName=storage_class)
    name = restore_of(lost, "data")
    while not lost.exists("VolumeRestore", name) or lost.phase("VolumeRestore", name) == "None":
        lost.step()

    take_static_volume(lost, "data")
    lost.settle()

    assert lost.content("data") == "foreign"
    assert "BoundElsewhere" in notes(lost, "data")
    assert lost.reason("VolumeRestore", name) == "BoundElsewhere"
    assert len(lost.objects.all("PersistentVolume")) == 1


def test_failed_restore_is_made_again_when_it_is_deleted(backed_up: Simulation) -> None:
    key = backed_up.damage_pack("full")
    backed_up.ask("copy", "full", "VolumeBackup")
    backed_up.settle()
    assert "delete the VolumeRestore" in notes(backed_up, "copy")["NotPopulated"]
    assert not is_bound(backed_up, "copy")

    backed_up.cluster.store.put(key, b"pack")
    backed_up.delete("VolumeRestore", restore_of(backed_up, "copy"))
    backed_up.settle()

    assert backed_up.content("copy") == "first"


def test_claim_without_room_in_the_quota_waits(backed_up: Simulation) -> None:
    backed_up.ask("copy", "full", "VolumeBackup")
    backed_up.api.quota.add("VolumeRestore")
    backed_up.settle()
    assert "QuotaExceeded" in notes(backed_up, "copy")

    backed_up.api.quota.clear()
    backed_up.settle()

    assert backed_up.content("copy") == "first"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"storageClassName": ""}, "ClassNotSupported"),
        ({"storageClassName": "absent"}, "StorageClassNotFound"),
        ({"selector": {"matchLabels": {"disk": "fast"}}}, "ClassNotSupported"),
    ],
)
def test_claim_that_no_volume_fits_is_reported(backed_up: Simulation, spec: dict[str, Any], reason: str) -> None:
    backed_up.ask("copy", "full", "VolumeBackup", **spec)

    backed_up.settle()

    assert reason in notes(backed_up, "copy")
    assert not backed_up.objects.all("VolumeRestore")


def test_claim_with_another_volume_mode_stays_unbound(backed_up: Simulation) -> None:
    backed_up.ask("copy", "full", "VolumeBackup", volumeMode="Block")

    backed_up.settle()

    assert backed_up.reason("VolumeRestore", restore_of(backed_up, "copy")) == "VolumeModeMismatch"
    assert not is_bound(backed_up, "copy")


def test_suspended_source_is_not_used(lost: Simulation) -> None:
    source = lost.source("bootstrap", suspend=True)
    lost.ask("data", "bootstrap")
    lost.settle()
    assert "Suspended" in notes(lost, "data")
    assert lost.store.asked["list"] == 0 or not is_bound(lost, "data")

    lost.objects.update(source, spec={})
    lost.settle()

    assert lost.content("data") == "first"


def test_replicas_of_a_stateful_set_get_their_own_backups(simulation: Simulation) -> None:
    for number in range(3):
        simulation.claim(f"data-db-{number}", f"replica {number}")
        simulation.backup(f"backup-{number}", f"data-db-{number}")
    simulation.settle()
    forget_cluster(simulation)
    simulation.source("bootstrap", onMissing="Empty")

    for number in range(4):
        simulation.ask(f"data-db-{number}", "bootstrap")
    simulation.settle()

    contents = [simulation.content(f"data-db-{number}") for number in range(4)]
    assert contents == ["replica 0", "replica 1", "replica 2", ""]


def test_foreign_object_with_the_name_of_the_restore_is_not_used(backed_up: Simulation) -> None:
    claim = backed_up.ask("copy", "full", "VolumeBackup")
    backed_up.restore(populate_name(claim["metadata"]["uid"]), "full", name="elsewhere")

    backed_up.settle()

    assert "NameTaken" in notes(backed_up, "copy")
    assert not is_bound(backed_up, "copy")


def _named(simulation: Simulation) -> None:
    simulation.claim("data", "first")
    simulation.backup("full", "data")
    simulation.settle()


def _lost(simulation: Simulation) -> None:
    _named(simulation)
    forget_cluster(simulation)
    simulation.source("bootstrap", onMissing="Empty")


def _delete_claim(simulation: Simulation) -> None:
    simulation.ask("copy", "full", "VolumeBackup")
    while not simulation.objects.all("Job"):
        simulation.step()
    simulation.delete("PersistentVolumeClaim", "copy")


def _replace_claim(simulation: Simulation) -> None:
    _delete_claim(simulation)
    while simulation.exists("PersistentVolumeClaim", "copy"):
        simulation.step()
    simulation.ask("copy", "full", "VolumeBackup")


SCENARIOS: dict[str, tuple[Part, Part, dict[str, str]]] = {
    "a named backup": (
        _named,
        lambda s: s.ask("copy", "full", "VolumeBackup", storageClassName=KEPT),
        {"data": "first", "copy": "first"},
    ),
    "the newest backup": (_lost, lambda s: s.ask("data", "bootstrap"), {"data": "first"}),
    "an empty volume": (_lost, lambda s: s.ask("other", "bootstrap"), {"other": ""}),
    "a claim that is deleted": (_named, _delete_claim, {"data": "first"}),
    "a claim that is deleted and created again": (_named, _replace_claim, {"data": "first", "copy": "first"}),
}


def run(name: str, fault: tuple[int, BaseException, bool] | None = None) -> tuple[Simulation, int]:
    """Run a scenario to its end, with an optional fault at one write. Return the simulation and its writes."""
    prepare, start, _ = SCENARIOS[name]
    return run_scenario(prepare, start, fault)


some_or_all_writes = pytest.mark.parametrize(
    "stride", [pytest.param(6, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]
)
"""Runs a test with the distance of the writes or steps that it tries: `make test` tries one in six."""


@some_or_all_writes
@pytest.mark.parametrize(("name", "how"), pairs_in_turn([*SCENARIOS], [*FAULTS]))
def test_operator_faults_do_not_change_what_claims_get(name: str, how: str, stride: int) -> None:
    reference, writes = run(name)
    done, error = FAULTS[how]
    for at in range(len(how) % stride, writes, stride):
        simulation, _ = run(name, (at, error(), done))
        story = f"write {at}\n{simulation.story()}"
        assert summary(simulation)["claims"] == SCENARIOS[name][2], story
        assert summary(simulation)["volumes"] == summary(reference)["volumes"], story
        assert summary(simulation)["children"] == [], story
        assert summary(simulation)["stored"] == summary(reference)["stored"], story
        assert len(simulation.objects.all("VolumeRestore")) == len(reference.objects.all("VolumeRestore")), story


def delete_after(steps: int, at: int | None) -> tuple[Simulation, bool]:
    """Delete a claim after ``steps`` steps, and crash at a later write. Return whether it was bound."""
    with Simulation() as simulation:
        _named(simulation)
        simulation.ask("copy", "full", "VolumeBackup", storageClassName=KEPT)
        for _ in range(steps):
            simulation.step()
        was_bound = is_bound(simulation, "copy")
        if at is not None:
            simulation.faults.plan(at, Crash("scripted"), done=at % 2 == 0)
        simulation.delete("PersistentVolumeClaim", "copy")
        simulation.settle()
    return simulation, was_bound


@some_or_all_writes
@some_or_all_moments
def test_deleting_the_claim_after_any_step_leaves_no_unfinished_volume(moments: Moments, stride: int) -> None:
    was_bound, steps = False, 0
    while not was_bound:
        for at in moments(steps, (0, 1, 2, 3, 5)):
            simulation, was_bound = delete_after(steps, at)
            end = summary(simulation)
            story = f"step {steps}, write {at}: {end}\n{simulation.story()}"
            assert end["claims"] == {"data": "first"}, story
            assert end["children"] == [], story
            assert {marks for _, _, marks in end["volumes"]} <= {"", POPULATED_ANNOTATION}, story
            # Once a volume is reserved for the claim, a pod may have used it: the policy of its class decides.
            unfinished = [content for content in simulation.cluster.contents.values() if content != "first"]
            assert not unfinished, story
            assert not simulation.objects.all("VolumeRestore"), story
        steps += 1 + stride // 2
    assert steps > 10
