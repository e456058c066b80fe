"""Decisions about a deleted VolumeBackup. When in doubt, the data is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.errors import AccessDenied, ObjectLocked, StoreUnreachable, TransientError
from cinderblock.lifecycle.actions import Decision, DeleteChild, DeleteStoredData, RecordEvent, RemoveFinalizer
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup, ObservedMover, StoreLookup
from tests.support.simulation.observed_builders import (
    NOW,
    a_backup,
    a_job,
    a_pod,
    a_restore,
    a_store,
    accepted,
    available,
    observed_backup,
)


def decide(observed: ObservedBackup) -> Decision:
    return backup_decide.decide(observed, NOW)


def is_released(decision: Decision) -> bool:
    return any(isinstance(action, RemoveFinalizer) for action in decision.actions)


def removes_data(decision: Decision) -> bool:
    return any(isinstance(action, DeleteStoredData) for action in decision.actions)


def phase(decision: Decision) -> str:
    assert isinstance(decision.status, VolumeBackupStatus)
    return str(decision.status.phase)


def test_finalizer_is_removed_after_the_data() -> None:
    removing = decide(observed_backup(available(deleting=True), data_present=True))
    assert removes_data(removing)
    assert not is_released(removing)
    assert is_released(decide(observed_backup(available(deleting=True), data_present=False)))


def test_nothing_is_done_without_our_finalizer() -> None:
    decision = decide(observed_backup(available(deleting=True, finalizer=False), data_present=True))
    assert decision.actions == ()


def test_data_location_is_recorded_before_the_deletion() -> None:
    decision = decide(observed_backup(a_backup(deleting=True)))
    assert isinstance(decision.status, VolumeBackupStatus)
    assert decision.status.manifest_key == "backups/c-1/b-1.manifest"
    assert (phase(decision), decision.actions) == ("deleting", ())


def test_backup_without_status_is_kept_until_the_store_answers() -> None:
    decision = decide(observed_backup(a_backup(deleting=True), manifest_error=AccessDenied("refused")))
    assert phase(decision) == "error_deleting"
    assert not is_released(decision)


def test_backup_without_any_trace_is_released() -> None:
    assert is_released(decide(observed_backup(a_backup(deleting=True), claim=None)))


def test_deletion_waits_for_dependents_and_names_them() -> None:
    decision = decide(
        observed_backup(available(deleting=True), siblings=(available("b-2", parentId="b-1"),), data_present=True)
    )
    assert isinstance(decision.status, VolumeBackupStatus)
    assert decision.status.conditions[0].reason == "HasDependentBackups"
    assert "backup-b-2" in decision.status.conditions[0].message
    assert not removes_data(decision)


def test_deletion_waits_for_a_running_restore() -> None:
    decision = decide(
        observed_backup(available(deleting=True), restores=(a_restore(phase="restoring"),), data_present=True)
    )
    assert not removes_data(decision)
    assert phase(decision) == "deleting"


def test_mover_is_stopped_before_the_data_is_removed() -> None:
    running = ObservedMover(job=a_job(), pods=(a_pod(),))
    stopping = decide(observed_backup(accepted(deleting=True), mover=running, data_present=True))
    assert [action.kind for action in stopping.actions if isinstance(action, DeleteChild)] == ["Job"]
    assert not removes_data(stopping)
    still_there = decide(
        observed_backup(accepted(deleting=True), mover=ObservedMover(pods=(a_pod(),)), data_present=True)
    )
    assert not removes_data(still_there)


def test_retained_data_stays_in_the_store() -> None:
    retained = available(deleting=True, spec={"deletionPolicy": "Retain"})
    decision = decide(observed_backup(retained, manifest_present=True, data_present=True))
    assert is_released(decision)
    assert not removes_data(decision)


def test_retained_backup_in_an_earlier_place_is_released_at_once() -> None:
    moved = StoreLookup(a_store(), error=TransientError("elsewhere", reason="ManifestMisplaced"))
    decision = decide(observed_backup(available(deleting=True, spec={"deletionPolicy": "Retain"}), store=moved))
    assert is_released(decision)
    assert not removes_data(decision)
    assert not is_released(decide(observed_backup(available(deleting=True), store=moved)))


def test_leftovers_are_removed_even_with_retain() -> None:
    retained = accepted(deleting=True, spec={"deletionPolicy": "Retain"})
    assert removes_data(decide(observed_backup(retained, manifest_present=False, data_present=True)))


def test_data_needed_by_a_retained_backup_stays() -> None:
    decision = decide(observed_backup(available(deleting=True), needed_by=("b-7",), data_present=True))
    assert is_released(decision)
    assert not removes_data(decision)


def test_silent_store_leads_to_error_deleting() -> None:
    error = StoreLookup(a_store(), "", StoreUnreachable("no answer"))
    observed = observed_backup(available(deleting=True, asked=NOW - timedelta(hours=1)), store=error)
    early = decide(observed)
    waiting = replace(observed, backup=observed.backup.model_copy(update={"status": early.status}))
    late = backup_decide.decide(waiting, NOW + timedelta(minutes=6))
    assert (phase(early), phase(late)) == ("deleting", "error_deleting")
    assert not is_released(early)
    assert not is_released(late)
    assert late.requeue_after == 60.0


def test_wrong_credentials_lead_to_error_deleting_at_once() -> None:
    decision = decide(
        observed_backup(available(deleting=True), store=StoreLookup(a_store(), "", AccessDenied("refused")))
    )
    assert phase(decision) == "error_deleting"


def test_annotation_releases_the_backup_and_leaves_the_data() -> None:
    given_up = available(deleting=True, annotations={"cinderblock.io/let-go": "leave-data"})
    decision = decide(observed_backup(given_up, store=StoreLookup(a_store(), "", AccessDenied("refused"))))
    assert is_released(decision)
    assert not removes_data(decision)


def test_terminating_namespace_does_not_wait_for_a_missing_store() -> None:
    decision = decide(
        observed_backup(available(deleting=True), store=StoreLookup(missing="gone"), namespace_ending=True)
    )
    assert is_released(decision)


def locked_until(delay: timedelta | None) -> ObjectLocked:
    error = ObjectLocked("Object Lock keeps packs/1. Nothing was deleted.")
    error.until = NOW + delay if delay is not None else None
    return error


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (timedelta(days=10), 3600.0),
        (timedelta(minutes=5), 300.0),
        (timedelta(seconds=5), 60.0),
        (timedelta(days=-1), 60.0),
        (None, 3600.0),
    ],
)
def test_locked_data_is_checked_again_at_its_date(delay: timedelta | None, seconds: float) -> None:
    observed = observed_backup(available(deleting=True), data_present=True)
    decision = backup_decide.on_action_error(observed, NOW, locked_until(delay))
    assert (phase(decision), decision.requeue_after) == ("deleting", seconds)
    assert isinstance(decision.status, VolumeBackupStatus)
    waits = [c for c in decision.status.conditions if c.type == "Reconciling"]
    assert [(c.status, c.reason) for c in waits] == [("True", "Locked")]
    assert "cinderblock.io/let-go=leave-data" in waits[0].message


def test_locked_data_ends_an_earlier_error_deleting() -> None:
    """Earlier releases took a locked object for a missing permission."""
    observed = observed_backup(available(deleting=True), data_present=True)
    failed = backup_decide.on_action_error(observed, NOW, AccessDenied("refused"))
    assert phase(failed) == "error_deleting"
    waiting = replace(observed, backup=observed.backup.model_copy(update={"status": failed.status}))
    decision = backup_decide.on_action_error(waiting, NOW, locked_until(timedelta(days=1)))
    assert phase(decision) == "deleting"
    assert isinstance(decision.status, VolumeBackupStatus)
    assert "Stalled" not in [c.type for c in decision.status.conditions]


def test_locked_data_does_not_hold_a_namespace_that_ends() -> None:
    observed = observed_backup(available(deleting=True), data_present=True, namespace_ending=True)
    decision = backup_decide.on_action_error(observed, NOW, locked_until(timedelta(days=1)))
    assert is_released(decision)
    (note,) = [action.note for action in decision.actions if isinstance(action, RecordEvent)]
    assert "Object Lock keeps packs/1" in note
