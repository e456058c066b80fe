"""What is decided about a VolumeRestore; a half-restored volume never has the asked name."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.labels import ENDED_ANNOTATION, RESTORE_FINALIZER, child_name
from cinderblock.api.losses import Fidelity, Loss
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


def hidden() -> PersistentVolumeClaim:
    return a_claim(child_name("r-1"), "c-h", volumeName="pv-9", metadata={"ownerReferences": [{"uid": "r-1"}]})


def restoring(**more: Any) -> Any:
    return a_restore(phase="restoring", **more)


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown backup": ({}, {"backup": None}, "Backup backup-b-1 could not be found."),
    "a backup that is not available": ({}, {"backup": accepted()}, "Backup status must be available"),
    "a backup without a manifest": ({}, {"manifest": None}, "no manifest of the backup"),
    "an existing target that is gone": ({"spec": {"volumeId": "old"}}, {}, "Volume old could not be found."),
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
    "a target that is too small": (
        {"spec": {"volumeId": "old"}},
        {"target": a_claim("old", "c-7", status={"phase": "Bound", "capacity": {"storage": "512Mi"}})},
        "is too small to restore backup of size 1",
    ),
    "a name that exists": ({}, {"target": a_claim("new", "c-7")}, "PersistentVolumeClaim new exists"),
    "a request that is too small": ({"spec": {"size": "1Mi"}}, {}, "is too small to restore backup of size 1"),
    "a manifest that lost its seal": (
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


@pytest.mark.parametrize(("restore", "seen", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_is_refused_at_once(restore: dict[str, Any], seen: dict[str, Any], words: str) -> None:
    status, decision = decide(observed_restore(a_restore(finalizer=False, **restore), **seen))
    assert status.phase == "error_restoring"
    assert words in (status.fail_reason or "")
    assert not [action for action in decision.actions if isinstance(action, CreateChild | AddFinalizer)]


def test_the_finalizer_comes_before_anything_that_must_be_cleaned_up() -> None:
    _, decision = decide(observed_restore(a_restore(finalizer=False)))
    assert decision.actions == (AddFinalizer(RESTORE_FINALIZER),)


def test_a_new_volume_is_filled_under_a_hidden_name() -> None:
    _, decision = decide(observed_restore(restoring()))
    claim, job = (action.body for action in decision.actions if isinstance(action, CreateChild))
    assert claim["metadata"]["name"] == child_name("r-1")
    assert claim["spec"]["storageClassName"] == "fast"
    assert job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == child_name("r-1")


def test_without_a_name_the_volume_is_named_after_the_backup() -> None:
    status, _ = decide(observed_restore(restoring(spec={})))
    assert status.volume_name == "restore-backup-b-1"


def test_an_existing_volume_is_written_in_place_and_is_done_with_its_mover() -> None:
    target = a_claim("old", "c-7")
    _, starting = decide(observed_restore(restoring(spec={"volumeId": "old"}), target=target))
    (job,) = (action.body for action in starting.actions if isinstance(action, CreateChild))
    assert job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "old"
    status, _ = decide(observed_restore(restoring(spec={"volumeId": "old"}), target=target, mover=DONE))
    assert (status.phase, status.volume_id, status.restored_bytes) == ("available", "c-7", 9)


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_the_mover_is_told_what_to_do_about_losses(fidelity: Fidelity) -> None:
    _, starting = decide(observed_restore(restoring(spec={"name": "new", "fidelity": fidelity})))
    (job,) = [action.body for action in starting.actions if isinstance(action, CreateChild) and action.kind == "Job"]
    (value,) = [
        variable["value"]
        for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == TASK_VARIABLE
    ]
    assert MoverTask.model_validate_json(value).fidelity is fidelity


def test_losses_of_a_restore_in_place_are_in_its_status_and_an_event() -> None:
    lossy = MoverReport(
        succeeded=True, warnings=["owners of files: 1"], losses=[Loss(what="owners of files", objects=1)]
    )
    mover = ObservedMover(job=a_job("r-1"), pods=(a_pod("Succeeded", lossy),))
    observed = observed_restore(restoring(spec={"volumeId": "old"}), target=a_claim("old", "c-7"), mover=mover)
    status, decision = decide(observed)
    assert status.losses == lossy.losses
    assert RecordEvent("Warning", "NotAllKept", "owners of files: 1") in decision.actions


def test_a_filled_volume_is_marked_and_kept_before_its_hidden_claim_goes() -> None:
    _, decision = decide(observed_restore(restoring(), staging_claim=hidden(), volume=a_filled_volume(), mover=DONE))
    (patch,) = decision.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"] == {"persistentVolumeReclaimPolicy": "Retain"}
    assert patch.patch["metadata"]["labels"] == {"cinderblock.io/restore-uid": "r-1"}


def test_then_the_mover_and_the_hidden_claim_are_removed() -> None:
    marked = a_filled_volume(mark="r-1")
    _, decision = decide(observed_restore(restoring(), staging_claim=hidden(), volume=marked, mover=DONE))
    assert [action.kind for action in decision.actions if isinstance(action, DeleteChild)] == [
        "Job",
        "PersistentVolumeClaim",
    ]


def test_then_the_released_volume_is_reserved_and_the_asked_claim_is_created() -> None:
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


def test_the_mark_stays_until_the_restore_is_recorded_as_available() -> None:
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


def test_a_claim_that_somebody_else_made_meanwhile_is_left_alone() -> None:
    stranger = a_claim("new", "c-x", volumeName="pv-other")
    volume = a_filled_volume("Released", mark="r-1")
    status, decision = decide(observed_restore(restoring(), target=stranger, volume=volume))
    assert status.phase == "error_restoring"
    assert not [action for action in decision.actions if isinstance(action, DeleteChild | CreateClaim)]


def test_a_failed_restore_removes_the_hidden_claim_and_then_lets_go() -> None:
    failed = a_restore(phase="error_restoring")
    _, cleaning = decide(observed_restore(failed, staging_claim=hidden(), mover=ObservedMover(job=a_job("r-1"))))
    assert [type(action) for action in cleaning.actions] == [DeleteChild, DeleteChild]
    _, letting_go = decide(observed_restore(failed))
    assert letting_go.actions == (RemoveFinalizer(RESTORE_FINALIZER, {ENDED_ANNOTATION: "r-1/error_restoring"}),)


def test_cancelling_gives_a_volume_that_was_not_handed_over_its_own_policy_back() -> None:
    marked = a_filled_volume("Released", mark="r-1")
    decision = restore_decide.decide(observed_restore(restoring(deleting=True), volume=marked), NOW)
    (patch,) = decision.actions
    assert isinstance(patch, PatchVolume)
    assert patch.patch["spec"] == {"persistentVolumeReclaimPolicy": "Delete"}


def test_cancelling_stops_the_mover_and_removes_the_hidden_claim() -> None:
    running = ObservedMover(job=a_job("r-1"), pods=(a_pod(),))
    decision = restore_decide.decide(
        observed_restore(restoring(deleting=True), staging_claim=hidden(), mover=running), NOW
    )
    assert [action.kind for action in decision.actions if isinstance(action, DeleteChild)] == [
        "Job",
        "PersistentVolumeClaim",
    ]


@pytest.mark.parametrize("phase", ["restoring", "error_restoring"])
def test_a_backup_that_is_being_restored_or_failed_to_be_may_be_restored(phase: str) -> None:
    status, _ = decide(observed_restore(restoring(), backup=available(phase=phase)))
    assert status.phase == "restoring"


def test_a_running_restore_gets_its_finalizer_back_without_being_judged_anew() -> None:
    taken = a_claim("new", "c-n", volumeName="pv-9")
    decision = restore_decide.decide(observed_restore(restoring(finalizer=False), target=taken), NOW)
    assert decision.actions == (AddFinalizer(RESTORE_FINALIZER),)
    assert decision.status is None
