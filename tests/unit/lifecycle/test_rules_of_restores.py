"""Decisions about a VolumeRestore. A half-restored volume never has the requested name."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.labels import ENDED_ANNOTATION, RESTORE_FINALIZER, child_name
from cinderblock.api.losses import Loss
from cinderblock.api.mover import TASK_VARIABLE, MoverReport, MoverTask
from cinderblock.api.v1alpha1.restore import VolumeRestoreStatus
from cinderblock.errors import SealBroken
from cinderblock.lifecycle.actions import (
    AddFinalizer,
    CreateChild,
    CreateClaim,
    Decision,
    DeleteChild,
    PatchVolume,
    RecordEvent,
    RemoveFinalizer,
)
from cinderblock.lifecycle.observed import ObservedMover, ObservedRestore
from cinderblock.lifecycle.restore import decide as restore_decide
from tests.support.simulation.observed_builders import (
    NOW,
    a_claim,
    a_filled_volume,
    a_job,
    a_pod,
    a_restore,
    accepted,
    available,
    observed_restore,
)

DONE = ObservedMover(job=a_job("r-1"), pods=(a_pod("Succeeded", MoverReport(succeeded=True, restored_bytes=9)),))


def decide(observed: ObservedRestore) -> tuple[VolumeRestoreStatus, Decision]:
    decision = restore_decide.decide(observed, NOW)
    assert isinstance(decision.status, VolumeRestoreStatus)
    return decision.status, decision


def staging_claim() -> PersistentVolumeClaim:
    return a_claim(child_name("r-1"), "c-h", volumeName="pv-9", metadata={"ownerReferences": [{"uid": "r-1"}]})


def restoring(**more: Any) -> Any:
    return a_restore(phase="restoring", **more)


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown backup": ({}, {"backup": None}, "Backup backup-b-1 could not be found."),
    "a backup that is not available": ({}, {"backup": accepted()}, "Backup status must be available"),
    "a backup without a manifest": ({}, {"manifest": None}, "no manifest of the backup"),
    "a missing target": ({"spec": {"volumeId": "old"}}, {}, "Volume old could not be found."),
    "a target in use": (
        {"spec": {"volumeId": "old"}},
        {"target": a_claim("old", "c-7"), "pods_using": ("web-0",)},
        "Volume to be restored to must be available",
    ),
    "a target of the wrong mode": (
        {"spec": {"volumeId": "old"}},
        {"target": a_claim("old", "c-7", volumeMode="Block")},
        "volumeMode is Block, the backup's is Filesystem",
    ),
    "a small target": (
        {"spec": {"volumeId": "old"}},
        {"target": a_claim("old", "c-7", status={"phase": "Bound", "capacity": {"storage": "512Mi"}})},
        "is too small to restore backup of size 1",
    ),
    "an existing name": (
        {},
        {"target": a_claim("new", "c-7")},
        "Cannot create PersistentVolumeClaim new: it exists.",
    ),
    "a small request": ({"spec": {"size": "1Mi"}}, {}, "is too small to restore backup of size 1"),
    "an unsealed manifest": (
        {},
        {"manifest": None, "manifest_error": SealBroken("backups/c-1/b-1.manifest is not encrypted")},
        "backups/c-1/b-1.manifest is not encrypted",
    ),
    "an unknown StorageClass": (
        {"spec": {"storageClassName": "slow"}},
        {},
        "StorageClass slow could not be found.",
    ),
}


@pytest.mark.parametrize(("restore", "fields", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_invalid_request_fails_at_once(restore: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    status, decision = decide(observed_restore(a_restore(finalizer=False, **restore), **fields))
    assert status.phase == "error_restoring"
    assert message in (status.fail_reason or "")
    assert not [action for action in decision.actions if isinstance(action, CreateChild | AddFinalizer)]


def test_finalizer_is_added_before_any_child() -> None:
    _, decision = decide(observed_restore(a_restore(finalizer=False)))
    assert decision.actions == (AddFinalizer(RESTORE_FINALIZER),)


def test_new_volume_is_filled_under_a_staging_claim() -> None:
    _, decision = decide(observed_restore(restoring()))
    (claim,) = (action.body for action in decision.actions if isinstance(action, CreateChild))
    assert claim["metadata"]["name"] == child_name("r-1")
    assert claim["spec"]["storageClassName"] == "fast"
    staging = a_claim(child_name("r-1"), "c-8", metadata={"ownerReferences": [{"uid": "r-1"}]})
    _, decision = decide(observed_restore(restoring(), staging_claim=staging))
    (job,) = (action.body for action in decision.actions if isinstance(action, CreateChild))
    assert job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == child_name("r-1")


def test_mover_waits_until_the_staging_claim_is_bound() -> None:
    metadata = {"ownerReferences": [{"uid": "r-1"}], "creationTimestamp": NOW}
    unbound = a_claim(child_name("r-1"), "c-8", metadata=metadata, status={"phase": "Pending"}, volumeName="")
    status, decision = decide(observed_restore(restoring(), staging_claim=unbound))
    assert (decision.actions, status.conditions[0].reason) == ((), "Accepted"), "the status need not be written again"
    late = observed_restore(restoring(), staging_claim=unbound, wait_for_consumer_classes=("fast",))
    assert [action.kind for action in decide(late)[1].actions if isinstance(action, CreateChild)] == ["Job"]


def test_unnamed_volume_is_named_after_the_backup() -> None:
    status, _ = decide(observed_restore(restoring(spec={})))
    assert status.volume_name == "restore-backup-b-1"


def test_existing_volume_is_written_in_place() -> None:
    target = a_claim("old", "c-7")
    _, starting = decide(observed_restore(restoring(spec={"volumeId": "old"}), target=target))
    (job,) = (action.body for action in starting.actions if isinstance(action, CreateChild))
    assert job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "old"
    status, _ = decide(observed_restore(restoring(spec={"volumeId": "old"}), target=target, mover=DONE))
    assert (status.phase, status.volume_id, status.restored_bytes) == ("available", "c-7", 9)


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_task_contains_the_fidelity(fidelity: Fidelity) -> None:
    target = a_claim("old", "c-7")
    _, starting = decide(observed_restore(restoring(spec={"volumeId": "old", "fidelity": fidelity}), target=target))
    (job,) = [action.body for action in starting.actions if isinstance(action, CreateChild) and action.kind == "Job"]
    (value,) = [
        variable["value"]
        for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == TASK_VARIABLE
    ]
    assert MoverTask.model_validate_json(value).fidelity is fidelity


def test_losses_in_place_are_in_status_and_event() -> None:
    lossy = MoverReport(
        succeeded=True, warnings=["owners of files: 1"], losses=[Loss(what="owners of files", objects=1)]
    )
    mover = ObservedMover(job=a_job("r-1"), pods=(a_pod("Succeeded", lossy),))
    observed = observed_restore(restoring(spec={"volumeId": "old"}), target=a_claim("old", "c-7"), mover=mover)
    status, decision = decide(observed)
    assert status.losses == lossy.losses
    assert RecordEvent("Warning", "NotAllKept", "owners of files: 1") in decision.actions


def test_filled_volume_is_marked_before_its_staging_claim_is_deleted() -> None:
    _, decision = decide(
        observed_restore(restoring(), staging_claim=staging_claim(), volume=a_filled_volume(), mover=DONE)
    )
    (patch,) = decision.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"] == {"persistentVolumeReclaimPolicy": "Retain"}
    assert patch.patch["metadata"]["labels"] == {"cinderblock.io/restore-uid": "r-1"}


def test_marked_volume_loses_its_mover_and_staging_claim() -> None:
    marked = a_filled_volume(mark="r-1")
    _, decision = decide(observed_restore(restoring(), staging_claim=staging_claim(), volume=marked, mover=DONE))
    assert [action.kind for action in decision.actions if isinstance(action, DeleteChild)] == [
        "Job",
        "PersistentVolumeClaim",
    ]


def test_released_volume_is_reserved_before_the_claim_is_created() -> None:
    _, reserving = decide(observed_restore(restoring(), volume=a_filled_volume("Released", mark="r-1")))
    (patch,) = reserving.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"]["claimRef"]["name"] == "new"
    assert patch.patch["spec"]["claimRef"]["uid"] is None
    reserved = a_filled_volume("Available", mark="r-1", claim="new")
    _, creating = decide(observed_restore(restoring(), volume=reserved))
    (claim,) = creating.actions
    assert isinstance(claim, CreateClaim)
    assert claim.body["spec"]["volumeName"] == "pv-9"
    assert claim.body["metadata"]["ownerReferences"][0]["uid"] == "r-1"


def test_mark_stays_until_the_restore_is_available() -> None:
    bound = a_claim("new", "c-n", volumeName="pv-9")
    volume = a_filled_volume("Bound", mark="r-1", claim="new")
    status, decision = decide(observed_restore(restoring(), target=bound, volume=volume))
    assert (status.phase, status.volume_id) == ("available", "c-n")
    assert not [action for action in decision.actions if isinstance(action, PatchVolume)]
    ended = a_restore(phase="available", volumeId="c-n")
    _, after = decide(observed_restore(ended, target=bound, volume=volume))
    (patch,) = after.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"] == {"persistentVolumeReclaimPolicy": "Delete"}


def test_claim_created_by_somebody_else_is_left_alone() -> None:
    stranger = a_claim("new", "c-x", volumeName="pv-other")
    volume = a_filled_volume("Released", mark="r-1")
    status, decision = decide(observed_restore(restoring(), target=stranger, volume=volume))
    assert status.phase == "error_restoring"
    assert not [action for action in decision.actions if isinstance(action, DeleteChild | CreateClaim)]


def test_failed_restore_removes_children_then_the_finalizer() -> None:
    failed = a_restore(phase="error_restoring")
    _, cleaning = decide(observed_restore(failed, staging_claim=staging_claim(), mover=ObservedMover(job=a_job("r-1"))))
    assert [type(action) for action in cleaning.actions] == [DeleteChild, DeleteChild]
    _, letting_go = decide(observed_restore(failed))
    assert letting_go.actions == (RemoveFinalizer(RESTORE_FINALIZER, {ENDED_ANNOTATION: "r-1/error_restoring"}),)


def test_cancelling_restores_the_policy_of_an_unreleased_volume() -> None:
    marked = a_filled_volume("Released", mark="r-1")
    decision = restore_decide.decide(observed_restore(restoring(deleting=True), volume=marked), NOW)
    (patch,) = decision.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"] == {"persistentVolumeReclaimPolicy": "Delete"}


def test_cancelling_deletes_the_mover_and_the_staging_claim() -> None:
    running = ObservedMover(job=a_job("r-1"), pods=(a_pod(),))
    decision = restore_decide.decide(
        observed_restore(restoring(deleting=True), staging_claim=staging_claim(), mover=running), NOW
    )
    assert [action.kind for action in decision.actions if isinstance(action, DeleteChild)] == [
        "Job",
        "PersistentVolumeClaim",
    ]


@pytest.mark.parametrize("phase", ["restoring", "error_restoring"])
def test_backup_in_restoring_or_error_restoring_can_be_restored(phase: str) -> None:
    status, _ = decide(observed_restore(restoring(), backup=available(phase=phase)))
    assert status.phase == "restoring"


def test_running_restore_gets_its_finalizer_back_without_checks() -> None:
    taken = a_claim("new", "c-n", volumeName="pv-9")
    decision = restore_decide.decide(observed_restore(restoring(finalizer=False), target=taken), NOW)
    assert decision.actions == (AddFinalizer(RESTORE_FINALIZER),)
    assert decision.status is None
