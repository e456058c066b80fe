"""Rebinding a filled volume, step by step. Every step depends only on the observed objects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus
from cinderblock.api.labels import NUDGED_ANNOTATION, POLICY_ANNOTATION, RESTORE_LABEL, child_name
from cinderblock.api.losses import Loss
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle.actions import CreateClaim, Decision, DeleteChild, PatchClaim, PatchVolume, RecordEvent
from cinderblock.lifecycle.observed import ObservedMover, ObservedRestore
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.restore import rebind
from tests.support.simulation.observed_builders import (
    NOW,
    a_claim,
    a_filled_volume,
    a_job,
    a_pod,
    a_restore,
    available,
    observed_restore,
)
from tests.support.simulation.simulation import Simulation

LABEL, POLICY = RESTORE_LABEL, POLICY_ANNOTATION
SUCCESS = MoverReport(succeeded=True, restored_bytes=9)


def restoring(**more: Any) -> VolumeRestore:
    return a_restore(phase="restoring", **more)


def staging_claim(owner: str = "r-1") -> PersistentVolumeClaim:
    return a_claim(child_name("r-1"), "c-h", volumeName="pv-9", metadata={"ownerReferences": [{"uid": owner}]})


def done(report: MoverReport = SUCCESS) -> ObservedMover:
    return ObservedMover(job=a_job("r-1"), pods=(a_pod("Succeeded", report),))


def target(volume: str = "pv-9", phase: str = "Bound") -> PersistentVolumeClaim:
    return a_claim("new", "c-n", volumeName=volume, status={"phase": phase, "capacity": {"storage": "1Gi"}})


def decide(observed: ObservedRestore) -> Decision:
    return restore_decide.decide(observed, NOW)


def status(decision: Decision) -> VolumeRestoreStatus:
    assert isinstance(decision.status, VolumeRestoreStatus)
    return decision.status


def patch(decision: Decision) -> dict[str, Any]:
    (found,) = [action for action in decision.actions if isinstance(action, PatchVolume)]
    assert found.name == "pv-9"
    return found.patch


def ready_text(decision: Decision) -> str:
    condition = status(decision).conditions[0]
    return f"{condition.reason}: {condition.message}"


def test_step_1_marks_and_retains_the_volume() -> None:
    decision = decide(
        observed_restore(restoring(), staging_claim=staging_claim(), volume=a_filled_volume(), mover=done())
    )
    assert patch(decision) == {
        "metadata": {"labels": {LABEL: "r-1"}, "annotations": {POLICY: "Delete"}, "resourceVersion": "5"},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }
    assert "retaining its PersistentVolume" in ready_text(decision)
    assert status(decision).restored_bytes == 9


def test_losses_are_recorded_as_event_before_the_job_is_deleted() -> None:
    warned = MoverReport(succeeded=True, warnings=["2 owners could not be set.", "1 socket was skipped."])
    decision = decide(
        observed_restore(restoring(), staging_claim=staging_claim(), volume=a_filled_volume(), mover=done(warned))
    )
    assert decision.actions[0] == RecordEvent(
        "Warning", "NotAllKept", "2 owners could not be set. 1 socket was skipped."
    )


def test_losses_are_kept_in_the_status_and_the_final_message() -> None:
    lossy = SUCCESS.model_copy(update={"losses": [Loss(what="owners of files", objects=3, examples=["a"])]})
    filled = observed_restore(restoring(), staging_claim=staging_claim(), volume=a_filled_volume(), mover=done(lossy))
    assert status(decide(filled)).losses == lossy.losses
    lost = lossy.to_wire()["losses"]
    rebound = observed_restore(
        restoring(losses=lost), volume=a_filled_volume(mark="r-1", claim="new"), target=target(), backup=available()
    )
    ended = status(decide(rebound))
    assert (ended.phase, ended.losses) == ("available", lossy.losses)
    assert "Not kept: owners of files, 3." in ended.conditions[0].message


def test_step_2_deletes_the_mover_and_the_staging_claim() -> None:
    marked = a_filled_volume(mark="r-1")
    first = decide(observed_restore(restoring(), staging_claim=staging_claim(), volume=marked, mover=done()))
    assert [action.kind for action in first.actions if isinstance(action, DeleteChild)] == [
        "Job",
        "PersistentVolumeClaim",
    ]
    deleted = staging_claim().model_copy(
        update={"metadata": staging_claim().metadata.model_copy(update={"deletion_timestamp": NOW})}
    )
    second = decide(observed_restore(restoring(), staging_claim=deleted, volume=marked))
    assert second.actions == ()
    assert "deleting the staging claim" in ready_text(second)


def test_bound_volume_is_not_reserved() -> None:
    bound = decide(observed_restore(restoring(), volume=a_filled_volume("Bound", mark="r-1")))
    assert bound.actions == ()
    assert "waiting for its PersistentVolume to be released" in ready_text(bound)


def test_step_3_reserves_the_volume_for_the_requested_name() -> None:
    decision = decide(observed_restore(restoring(), volume=a_filled_volume("Released", mark="r-1")))
    assert patch(decision)["spec"] == {
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": "shop",
            "name": "new",
            "uid": None,
            "resourceVersion": None,
        }
    }


def test_volume_of_a_deleted_claim_is_reserved_again() -> None:
    released = a_filled_volume("Released", mark="r-1", claim="new")
    assert patch(decide(observed_restore(restoring(), volume=released)))["spec"]["claimRef"]["uid"] is None


def test_step_4_creates_the_requested_claim() -> None:
    spec = {"name": "new", "size": "2Gi", "accessModes": ["ReadWriteMany"], "labels": {"app": "shop"}}
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    (action,) = decide(observed_restore(restoring(spec=spec), volume=reserved)).actions
    assert isinstance(action, CreateClaim)
    metadata = action.body["metadata"]
    assert (metadata["name"], metadata["labels"]["app"]) == ("new", "shop")
    assert metadata["annotations"]["cinderblock.io/volume-id"] == "r-1"
    assert action.body["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": str(2 << 30)}},
        "storageClassName": "fast",
        "volumeName": "pv-9",
    }


def test_claim_is_not_created_without_the_manifest() -> None:
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    decision = decide(observed_restore(restoring(), volume=reserved, manifest=None))
    assert decision.actions == ()
    assert "waiting for the store" in ready_text(decision)


def test_claim_is_not_created_before_the_volume_is_available() -> None:
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    late = reserved.model_copy(update={"status": PersistentVolumeStatus(phase="Released")})
    decision = decide(observed_restore(restoring(), volume=late))
    assert decision.actions == ()
    assert "reserving its PersistentVolume for PersistentVolumeClaim new" in ready_text(decision)


def pending(**annotations: str) -> PersistentVolumeClaim:
    """Return the unbound claim that the restore created."""
    owned = {"ownerReferences": [{"uid": "r-1"}], "labels": {labels.OWNER_UID_LABEL: "r-1"}}
    metadata = owned | {"resourceVersion": "7", "annotations": annotations}
    return a_claim("new", "c-9", volumeName="pv-9", status={"phase": "Pending"}, metadata=metadata)


def test_half_bound_claim_is_nudged_once() -> None:
    half_bound = a_filled_volume("Bound", mark="r-1", claim="new")
    (action,) = decide(observed_restore(restoring(), volume=half_bound, target=pending())).actions
    assert isinstance(action, PatchClaim)
    assert (action.name, set(action.patch["metadata"])) == ("new", {"resourceVersion", "annotations"})
    assert action.patch["metadata"]["resourceVersion"] == "7"
    changed = pending(**action.patch["metadata"]["annotations"])
    again = decide(observed_restore(restoring(), volume=half_bound, target=changed))
    assert again.actions == ()
    assert "waiting for PersistentVolumeClaim new to be bound" in ready_text(again)


@pytest.mark.parametrize(
    ("volume", "claim"),
    [
        pytest.param(a_filled_volume("Available", mark="r-1", claim="new"), pending(), id="a reserved volume"),
        pytest.param(
            a_filled_volume("Bound", mark="r-1", claim="new"),
            a_claim("new", "c-9", volumeName="pv-9", status={"phase": "Pending"}),
            id="a claim of somebody else",
        ),
    ],
)
def test_unready_binding_is_left_alone(volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
    assert decide(observed_restore(restoring(), volume=volume, target=claim)).actions == ()


def test_released_claim_has_none_of_our_annotations() -> None:
    patch = rebind.release(pending(**{NUDGED_ANNOTATION: "true"}), restoring()).patch
    assert patch["metadata"]["annotations"] == {labels.OWNER_NAME_ANNOTATION: None, NUDGED_ANNOTATION: None}


def test_step_5_records_the_result_of_the_bound_claim() -> None:
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    waiting = decide(observed_restore(restoring(), volume=reserved, target=target(phase="Pending")))
    assert "waiting for PersistentVolumeClaim new to be bound" in ready_text(waiting)
    bound = decide(observed_restore(restoring(), volume=a_filled_volume(mark="r-1", claim="new"), target=target()))
    assert (status(bound).phase, status(bound).volume_id, status(bound).volume_name) == ("available", "c-n", "new")


def test_foreign_claim_fails_the_restore() -> None:
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    decision = decide(observed_restore(restoring(), volume=reserved, target=target("pv-of-somebody")))
    assert status(decision).phase == "error_restoring"
    assert ready_text(decision) == (
        "NameTaken: Cannot create PersistentVolumeClaim new: somebody else created it meanwhile."
        " Restore again under another name."
    )
    assert [type(action) for action in decision.actions] == [RecordEvent]


def test_rebinding_fails_after_its_deadline() -> None:
    observed = observed_restore(restoring(), volume=a_filled_volume("Bound", mark="r-1"))
    first = status(decide(observed))
    waiting = observed_restore(observed.restore.model_copy(update={"status": first}), volume=observed.volume)
    late = restore_decide.decide(waiting, NOW + timedelta(minutes=6))
    assert status(late).phase == "error_restoring"
    assert status(late).fail_reason == (
        "The volume is filled; waiting for its PersistentVolume to be released (waited 300 s)"
    )


def test_mark_of_another_restore_is_ignored() -> None:
    observed = observed_restore(restoring(), volume=a_filled_volume(mark="another"))
    assert not rebind.has_begun(observed)
    assert rebind.release_volume(observed) == ()


@pytest.mark.parametrize(
    ("volume", "fields", "spec"),
    [
        pytest.param(a_filled_volume(mark="r-1", claim="new"), {"target": target()}, {}, id="bound to its claim"),
        pytest.param(
            a_filled_volume("Available", mark="r-1", claim="new"),
            {"target": target(phase="Pending")},
            {},
            id="reserved for an unbound claim",
        ),
        pytest.param(a_filled_volume("Released", mark="r-1"), {}, {}, id="released"),
        pytest.param(
            a_filled_volume("Available", mark="r-1", claim="new"),
            {},
            {"claimRef": {"uid": "r-1"}},
            id="reserved for a claim that does not exist",
        ),
        pytest.param(
            a_filled_volume("Available", mark="r-1", claim="new"),
            {"target": target("pv-of-somebody")},
            {"claimRef": {"uid": "r-1"}},
            id="reserved for a name that somebody else took",
        ),
    ],
)
def test_released_volume_gets_its_reclaim_policy_back(
    volume: PersistentVolume, fields: dict[str, Any], spec: dict[str, Any]
) -> None:
    (found,) = rebind.release_volume(observed_restore(restoring(), volume=volume, **fields))
    assert isinstance(found, PatchVolume)
    assert found.patch == {
        "metadata": {"labels": {LABEL: None}, "annotations": {POLICY: None}, "resourceVersion": "5"},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"} | spec,
    }


def test_volume_keeps_its_mark_until_the_staging_claim_is_deleted() -> None:
    observed = observed_restore(restoring(), volume=a_filled_volume(mark="r-1"), staging_claim=staging_claim())
    assert rebind.release_volume(observed) == ()


def test_retain_policy_is_restored() -> None:
    volume = a_filled_volume("Bound", mark="r-1", claim="new")
    metadata = volume.metadata.model_copy(update={"annotations": {POLICY: "Retain"}})
    observed = observed_restore(restoring(), volume=volume.model_copy(update={"metadata": metadata}), target=target())
    (found,) = rebind.release_volume(observed)
    assert isinstance(found, PatchVolume)
    assert found.patch["spec"] == {"persistentVolumeReclaimPolicy": "Retain"}


def test_rebinding_needs_the_store_only_for_the_claim() -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        simulation.restore("again", "full", name="new")
        simulation.until("VolumeRestore", "again", "retaining its PersistentVolume")
        simulation.store.error = StoreUnreachable("no answer")
        simulation.until("VolumeRestore", "again", "waiting for the store")
        simulation.store.error = None
        simulation.settle()
        assert (simulation.phase("VolumeRestore", "again"), simulation.content("new")) == ("available", "first")
