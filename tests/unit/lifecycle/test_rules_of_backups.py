"""Decisions about a VolumeBackup, from its acceptance to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim, Pod
from cinderblock.api.labels import BACKUP_FINALIZER
from cinderblock.api.mover import TASK_VARIABLE, MoverReport, MoverTask
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.errors import (
    AccessDenied,
    ForeignManifest,
    IntegrityError,
    ManifestReplaced,
    NotFound,
    SealBroken,
    SealedTooLate,
    StoreUnreachable,
)
from cinderblock.lifecycle.actions import AddFinalizer, CreateChild, Decision, DeleteChild, RecordEvent
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup, ObservedMover, StoreLookup
from tests.support.simulation.observed_builders import (
    NOW,
    a_backup,
    a_claim,
    a_class,
    a_job,
    a_manifest,
    a_pod,
    a_restore,
    a_snapshot,
    a_store,
    accepted,
    available,
    observed_backup,
)


def decide(observed: ObservedBackup) -> tuple[VolumeBackupStatus, Decision]:
    decision = backup_decide.decide(observed, NOW)
    assert isinstance(decision.status, VolumeBackupStatus)
    return decision.status, decision


def created(decision: Decision) -> list[dict[str, Any]]:
    return [action.body for action in decision.actions if isinstance(action, CreateChild)]


def reason(status: VolumeBackupStatus) -> str:
    return status.conditions[0].reason


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a missing volume (Cinder: 404)": ({}, {"claim": None}, "Volume data could not be found."),
    "a lost volume (Cinder: 400)": (
        {},
        {"claim": a_claim(status={"phase": "Lost"})},
        'must be available or in-use, but the current status is "error"',
    ),
    "a deleted volume (Cinder: 400)": (
        {},
        {"claim": a_claim(metadata={"deletionTimestamp": NOW})},
        'must be available or in-use, but the current status is "deleting"',
    ),
    "a missing store": ({}, {"store": StoreLookup(missing="no such store")}, "no such store"),
    "a missing Secret": (
        {},
        {"store": StoreLookup(a_store(), "", NotFound("Secret s3 does not exist"))},
        "Secret s3 does not exist",
    ),
    "wrong credentials": (
        {},
        {"store": StoreLookup(a_store(), "", AccessDenied("the key is refused"))},
        "the key is refused",
    ),
    "a volume in use without force (Cinder: force flag)": (
        {},
        {"pods_using": ("web-0",)},
        "Backing up an in-use volume must use the force flag.",
    ),
    "a forced backup without snapshots": (
        {"spec": {"force": True}},
        {"pods_using": ("web-0",), "snapshot_class": None},
        "no VolumeSnapshotClass for driver csi.example.org",
    ),
    "a missing snapshot": (
        {"spec": {"snapshotId": "snap-9"}},
        {},
        "Snapshot snap-9 could not be found.",
    ),
    "an incremental backup without a parent (Cinder: 400)": (
        {"spec": {"incremental": True}},
        {},
        "No backups available to do an incremental backup.",
    ),
}


@pytest.mark.parametrize(("backup", "fields", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_invalid_request_fails_at_once(backup: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    status, decision = decide(observed_backup(a_backup(finalizer=False, **backup), **fields))
    assert status.phase == "error"
    assert status.fail_reason is not None
    assert message in status.fail_reason
    assert [type(action) for action in decision.actions] == [RecordEvent]


def test_fail_reason_is_cut_to_255_characters() -> None:
    """Cinder: the column is 255 characters long (cinder/objects/backup.py); the condition has it all."""
    status, _ = decide(observed_backup(a_backup(), store=StoreLookup(a_store(), "", AccessDenied("no " * 200))))
    assert status.fail_reason is not None
    assert len(status.fail_reason) == 255
    assert status.conditions[0].message == "no " * 200


def test_acceptance_adds_the_finalizer_and_records_the_manifest_key() -> None:
    status, decision = decide(observed_backup(a_backup(finalizer=False)))
    assert decision.actions == (AddFinalizer(BACKUP_FINALIZER),)
    assert (status.phase, status.volume_id, status.container) == ("creating", "c-1", "volumebackups")
    assert status.manifest_key == "backups/c-1/b-1.manifest"


def test_silent_store_delays_the_acceptance() -> None:
    lookup = StoreLookup(a_store(), "", StoreUnreachable("no answer"))
    status, decision = decide(observed_backup(a_backup(finalizer=False), store=lookup))
    assert (status.phase, reason(status), status.manifest_key) == ("creating", "StoreUnreachable", None)
    assert decision.requeue_after == 10.0


def test_silent_store_fails_the_backup_after_the_deadline() -> None:
    lookup = StoreLookup(a_store(), "", StoreUnreachable("no answer"))
    first, _ = decide(observed_backup(a_backup(), store=lookup))
    waiting = a_backup().model_copy(update={"status": first})
    later = backup_decide.decide(observed_backup(waiting, store=lookup), NOW + timedelta(minutes=6))
    assert isinstance(later.status, VolumeBackupStatus)
    assert later.status.phase == "error"
    assert later.status.fail_reason == "no answer (waited 300 s)"


def test_steps_are_snapshot_then_claim_and_mover() -> None:
    _, first = decide(observed_backup(accepted()))
    assert [body["kind"] for body in created(first)] == ["VolumeSnapshot"]
    _, waiting = decide(observed_backup(accepted(), snapshot=a_snapshot(ready=False)))
    assert created(waiting) == []
    _, second = decide(observed_backup(accepted(), snapshot=a_snapshot()))
    assert [body["kind"] for body in created(second)] == ["PersistentVolumeClaim"]
    assert created(second)[0]["spec"]["dataSource"]["name"] == "cinderblock-b-1"
    _, third = decide(observed_backup(accepted(), snapshot=a_snapshot(), snapshot_claim=our_claim()))
    assert [body["kind"] for body in created(third)] == ["Job"]


def our_claim(**spec: Any) -> PersistentVolumeClaim:
    """Return the claim that is made from the snapshot, bound a moment ago or as the status says."""
    metadata = {"ownerReferences": [{"uid": "b-1"}], "creationTimestamp": NOW - timedelta(seconds=1)}
    metadata |= spec.pop("meta", {})
    return a_claim("hidden", "c-2", metadata=metadata, **spec)


UNBOUND: dict[str, Any] = {"status": {"phase": "Pending"}, "volumeName": ""}


def test_mover_waits_until_its_claim_is_bound() -> None:
    waiting, decision = decide(observed_backup(accepted(), snapshot=a_snapshot(), snapshot_claim=our_claim(**UNBOUND)))
    assert (created(decision), reason(waiting)) == ([], "SnapshotNotReady"), "the status need not be written again"


def test_claim_that_stays_unbound_is_reported_and_fails() -> None:
    mover = ObservedMover(claim_warning="no space left")
    for age, phase in ((timedelta(minutes=1), "creating"), (timedelta(minutes=16), "error")):
        claim = our_claim(meta={"creationTimestamp": NOW - age}, **UNBOUND)
        observed = observed_backup(accepted(), snapshot=a_snapshot(), snapshot_claim=claim, mover=mover)
        status, decision = decide(observed)
        assert (status.phase, reason(status), created(decision)) == (phase, "ClaimNotBound", [])
        assert "hidden is not bound: no space left" in status.conditions[0].message


def test_class_that_binds_late_gets_claim_and_mover_at_once() -> None:
    late = a_class("fast", volumeBindingMode="WaitForFirstConsumer")
    _, decision = decide(observed_backup(accepted(), snapshot=a_snapshot(), classes=(late,)))
    assert [body["kind"] for body in created(decision)] == ["PersistentVolumeClaim", "Job"]
    claim = our_claim(**UNBOUND)
    _, decision = decide(observed_backup(accepted(), snapshot=a_snapshot(), snapshot_claim=claim, classes=(late,)))
    assert [body["kind"] for body in created(decision)] == ["Job"]


def test_volume_without_snapshots_is_mounted_read_only() -> None:
    _, decision = decide(observed_backup(accepted(), snapshot_class=None))
    (job,) = created(decision)
    (volume, *_) = job["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "data", "readOnly": True}


def test_mover_gets_its_task_and_no_secret() -> None:
    _, decision = decide(
        observed_backup(
            accepted(),
            snapshot=a_snapshot(),
            snapshot_claim=a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]}),
        )
    )
    (job,) = created(decision)
    (variable,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
    task = MoverTask.model_validate_json(variable["value"])
    assert variable["name"] == TASK_VARIABLE
    assert (task.manifest, task.backup.volume_id, task.path) == ("backups/c-1/b-1.manifest", "c-1", "/volume")


def test_foreign_child_is_neither_used_nor_changed() -> None:
    status, decision = decide(observed_backup(accepted(), snapshot=a_snapshot(owner="stranger")))
    assert status.phase == "error"
    assert reason(status) == "NameTaken"
    assert status.fail_reason == (
        "Cannot create VolumeSnapshot cinderblock-b-1: an object of this name exists,"
        " and VolumeBackup backup-b-1 does not own it. Delete it."
    )
    assert not [action for action in decision.actions if isinstance(action, CreateChild | DeleteChild)]


def test_success_requires_a_readable_manifest() -> None:
    pod = a_pod("Succeeded", MoverReport(succeeded=True))
    mover = ObservedMover(job=a_job(), pods=(pod,))
    missing, _ = decide(observed_backup(accepted(), mover=mover))
    assert (missing.phase, reason(missing)) == ("error", "ManifestMissing")
    whole, decision = decide(observed_backup(accepted(), mover=mover, manifest=a_manifest()))
    assert (whole.phase, whole.object_count, whole.size) == ("available", 2, 1)
    assert [type(action) for action in decision.actions] == [RecordEvent]


def test_missed_changes_are_recorded_once_and_kept_in_the_status() -> None:
    manifest = replace(a_manifest("b-0"), reread_files=7, missed_changes=1)
    first, decision = decide(observed_backup(accepted(), manifest=manifest))
    recorded = [action for action in decision.actions if isinstance(action, RecordEvent)]
    assert [(event.type, event.reason) for event in recorded] == [("Warning", "ChangeMissed"), ("Normal", "Available")]
    assert "content of 1 file had changed" in recorded[0].note
    assert (first.reread_files, first.missed_changes) == (7, 1)
    later, decision = decide(observed_backup(available(), manifest=manifest))
    assert not [action for action in decision.actions if isinstance(action, RecordEvent)]
    assert later.missed_changes == 1


def test_children_are_removed_after_the_result_is_recorded() -> None:
    observed = observed_backup(available(), mover=ObservedMover(job=a_job()), snapshot=a_snapshot())
    _, decision = decide(observed)
    assert [action.kind for action in decision.actions if isinstance(action, DeleteChild)] == ["Job", "VolumeSnapshot"]


def test_permanent_mover_failure_fails_the_backup() -> None:
    report = MoverReport(succeeded=False, permanent=True, reason="KeyUnavailable", message="key k1 is not there")
    failed = a_job(conditions=[{"type": "Failed", "status": "True"}])
    status, _ = decide(observed_backup(accepted(), mover=ObservedMover(job=failed, pods=(a_pod("Failed", report),))))
    assert (status.phase, status.fail_reason, reason(status)) == ("error", "key k1 is not there", "KeyUnavailable")


def test_lost_status_is_read_from_the_store() -> None:
    status, _ = decide(observed_backup(a_backup(), manifest=a_manifest()))
    assert (status.phase, status.object_count, status.manifest_key) == ("available", 2, "backups/c-1/b-1.manifest")


def test_status_of_a_copied_object_is_ignored() -> None:
    copied = available("other").model_copy(update={"metadata": a_backup(finalizer=False).metadata})
    status, decision = decide(observed_backup(copied))
    assert (status.phase, status.id) == ("creating", "b-1")
    assert decision.actions == (AddFinalizer(BACKUP_FINALIZER),)


def test_wait_of_a_copied_status_does_not_count() -> None:
    """The wait of the original must not make a copy of the object exceed the deadline at once."""
    waiting, _ = decide(
        observed_backup(a_backup("other"), store=StoreLookup(a_store(), "", StoreUnreachable("silent")))
    )
    copied = a_backup(finalizer=False).model_copy(update={"status": waiting})
    observed = observed_backup(copied, store=StoreLookup(a_store(), "", StoreUnreachable("silent")))
    decision = backup_decide.decide(observed, NOW + timedelta(hours=1))
    assert isinstance(decision.status, VolumeBackupStatus)
    assert (decision.status.phase, reason(decision.status)) == ("creating", "StoreUnreachable")


def test_parent_is_the_latest_complete_backup_of_volume_and_store() -> None:
    siblings = (
        available("old", dataTimestamp=NOW - timedelta(days=2)),
        available("new", dataTimestamp=NOW - timedelta(days=1)),
        available("newest-but-going", deleting=True, dataTimestamp=NOW),
        available("other-volume", volumeId="c-9", dataTimestamp=NOW),
        available("other-store", storeName="offsite", dataTimestamp=NOW),
        accepted("unfinished", created=NOW),
    )
    status, _ = decide(observed_backup(a_backup(spec={"incremental": True}), siblings=siblings))
    assert (status.parent_id, status.is_incremental) == ("new", True)


def test_deleted_parent_fails_the_incremental_backup() -> None:
    child = accepted(spec={"incremental": True}, parentId="p")
    status, _ = decide(observed_backup(child, siblings=(available("p", deleting=True),), snapshot=a_snapshot()))
    assert (status.phase, reason(status)) == ("error", "ParentGone")


def test_older_backup_of_a_volume_goes_first() -> None:
    older, younger = a_backup("b-0", created=NOW - timedelta(hours=1)), a_backup("b-1")
    status, _ = decide(observed_backup(younger, siblings=(older,)))
    assert reason(status) == "VolumeBusy"
    status, _ = decide(observed_backup(older, siblings=(younger,)))
    assert reason(status) == "Accepted"


@pytest.mark.parametrize(
    "error", [StoreUnreachable("no answer"), StoreUnreachable("a proxy", reason="NotS3")], ids=["silent", "no S3"]
)
def test_backup_without_store_does_not_block_others(error: StoreUnreachable) -> None:
    unreachable = observed_backup(
        a_backup("b-0", created=NOW - timedelta(hours=1)), store=StoreLookup(a_store(), "", error)
    )
    held_up, _ = decide(unreachable)
    older = unreachable.backup.model_copy(update={"status": held_up})
    status, _ = decide(observed_backup(a_backup("b-1"), siblings=(older,)))
    assert reason(status) == "Accepted"


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["restoring"], "restoring"),
        (["error_restoring"], "error_restoring"),
        (["error_restoring", "available"], "available"),
        (["available", "error_restoring"], "error_restoring"),
        ([], "available"),
    ],
)
def test_phase_of_a_complete_backup_follows_its_restores(phases: list[str], expected: str) -> None:
    restores = tuple(_made(a_restore(f"r-{number}", phase=phase), number) for number, phase in enumerate(phases))
    status, _ = decide(observed_backup(available(), restores=restores))
    assert status.phase == expected


def _made(restore: VolumeRestore, second: int) -> VolumeRestore:
    created = {"creation_timestamp": NOW + timedelta(seconds=second)}
    return restore.model_copy(update={"metadata": restore.metadata.model_copy(update=created)})


def test_successful_restore_counts_among_simultaneous_ones() -> None:
    for failed, whole in (("r-1", "r-2"), ("r-2", "r-1")):
        restores = (a_restore(failed, phase="error_restoring"), a_restore(whole, phase="available"))
        status, _ = decide(observed_backup(available(), restores=restores))
        assert status.phase == "available"


def test_has_dependent_backups_follows_existing_backups() -> None:
    child = available("b-2", parentId="b-1")
    with_child, _ = decide(observed_backup(available(), siblings=(child,)))
    alone, _ = decide(observed_backup(available()))
    assert (with_child.has_dependent_backups, alone.has_dependent_backups) == (True, False)


STATES = {
    "accepted": lambda: observed_backup(accepted()),
    "snapshot pending": lambda: observed_backup(accepted(), snapshot=a_snapshot(ready=False)),
    "copying": lambda: observed_backup(accepted(), mover=ObservedMover(job=a_job(), pods=(a_pod(),))),
    "waiting for the store": lambda: observed_backup(
        a_backup(), store=StoreLookup(a_store(), "", StoreUnreachable("x"))
    ),
    "available": lambda: observed_backup(available()),
    "refused": lambda: observed_backup(a_backup(), claim=None),
}


@pytest.mark.parametrize("observed", STATES.values(), ids=STATES.keys())
def test_repeated_decision_keeps_the_status(observed: Any) -> None:
    first: ObservedBackup = observed()
    status, _ = decide(first)
    again: VolumeBackup = first.backup.model_copy(update={"status": status})
    second = backup_decide.decide(replace(first, backup=again), NOW + timedelta(seconds=5))
    assert second.status == status


def test_failure_is_recorded_as_event_once() -> None:
    refused = observed_backup(a_backup(), claim=None)
    status, first = decide(refused)
    again = backup_decide.decide(replace(refused, backup=refused.backup.model_copy(update={"status": status})), NOW)
    assert [type(action) for action in first.actions] == [RecordEvent]
    assert again.actions == ()
    assert again.requeue_after is None


@pytest.mark.parametrize("phase", ["available", "error"])
def test_finalizer_removed_by_an_uninstallation_is_added_again(phase: str) -> None:
    _, decision = decide(observed_backup(accepted(finalizer=False, phase=phase)))
    assert AddFinalizer(BACKUP_FINALIZER) in decision.actions
    _, nothing_stored = decide(observed_backup(a_backup(finalizer=False, phase="error")))
    assert nothing_stored.actions == ()


@pytest.mark.parametrize("pods", [(a_pod("Succeeded", MoverReport(succeeded=True)),), (a_pod("Running"),)])
@pytest.mark.parametrize("error", [ForeignManifest, ManifestReplaced, SealBroken, SealedTooLate])
def test_replaced_manifest_fails_an_unfinished_backup(pods: tuple[Pod, ...], error: type[IntegrityError]) -> None:
    replaced = error("backups/c-1/b-1.manifest is not it")
    status, _ = decide(
        observed_backup(accepted(), mover=ObservedMover(job=a_job(), pods=pods), manifest_error=replaced)
    )
    assert (status.phase, reason(status), status.pins) == ("error", error.__name__, None)
    assert status.fail_reason == replaced.message
