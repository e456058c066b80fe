"""What is decided about a VolumeBackup that somebody deletes. When in doubt, data is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.errors import AccessDenied, StoreUnreachable
from cinderblock.lifecycle.actions import Decision, DeleteChild, DeleteStoredData, RemoveFinalizer
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup, ObservedMover, StoreLookup
from tests.support.scenes import NOW, a_backup, a_job, a_pod, a_restore, a_store, a_world, accepted, available


def decide(world: ObservedBackup) -> Decision:
    return backup_decide.decide(world, NOW)


def lets_go(decision: Decision) -> bool:
    return any(isinstance(action, RemoveFinalizer) for action in decision.actions)


def removes_data(decision: Decision) -> bool:
    return any(isinstance(action, DeleteStoredData) for action in decision.actions)


def phase(decision: Decision) -> str:
    assert isinstance(decision.status, VolumeBackupStatus)
    return str(decision.status.phase)


def test_data_is_removed_first_and_the_finalizer_only_when_none_is_left() -> None:
    removing = decide(a_world(available(deleting=True), data_left=True))
    assert removes_data(removing)
    assert not lets_go(removing)
    assert lets_go(decide(a_world(available(deleting=True), data_left=False)))


def test_without_our_finalizer_nothing_is_done() -> None:
    decision = decide(a_world(available(deleting=True, finalizer=False), data_left=True))
    assert decision.actions == ()


def test_where_the_data_is_is_written_down_again_before_it_is_looked_for() -> None:
    decision = decide(a_world(a_backup(deleting=True)))
    assert isinstance(decision.status, VolumeBackupStatus)
    assert decision.status.manifest_key == "backups/c-1/b-1.manifest"
    assert (phase(decision), decision.actions) == ("deleting", ())


def test_a_backup_without_status_is_kept_until_the_store_says_what_there_is_of_it() -> None:
    decision = decide(a_world(a_backup(deleting=True), manifest_trouble=AccessDenied("refused")))
    assert phase(decision) == "error_deleting"
    assert not lets_go(decision)


def test_a_backup_of_which_nothing_is_known_and_nothing_is_found_goes() -> None:
    assert lets_go(decide(a_world(a_backup(deleting=True), claim=None)))


def test_dependents_are_waited_for_and_named() -> None:
    decision = decide(a_world(available(deleting=True), siblings=(available("b-2", parentId="b-1"),), data_left=True))
    assert isinstance(decision.status, VolumeBackupStatus)
    assert decision.status.conditions[0].reason == "HasDependentBackups"
    assert "backup-b-2" in decision.status.conditions[0].message
    assert not removes_data(decision)


def test_a_backup_that_is_being_restored_is_kept_until_that_has_ended() -> None:
    decision = decide(a_world(available(deleting=True), restores=(a_restore(phase="restoring"),), data_left=True))
    assert not removes_data(decision)
    assert phase(decision) == "deleting"


def test_a_running_mover_is_stopped_before_the_data_is_looked_for() -> None:
    running = ObservedMover(job=a_job(), pods=(a_pod(),))
    stopping = decide(a_world(accepted(deleting=True), mover=running, data_left=True))
    assert [action.kind for action in stopping.actions if isinstance(action, DeleteChild)] == ["Job"]
    assert not removes_data(stopping)
    still_there = decide(a_world(accepted(deleting=True), mover=ObservedMover(pods=(a_pod(),)), data_left=True))
    assert not removes_data(still_there)


def test_retained_data_stays() -> None:
    retained = available(deleting=True, spec={"deletionPolicy": "Retain"})
    decision = decide(a_world(retained, manifest_stands=True, data_left=True))
    assert lets_go(decision)
    assert not removes_data(decision)


def test_what_an_unfinished_backup_left_is_removed_even_with_retain() -> None:
    retained = accepted(deleting=True, spec={"deletionPolicy": "Retain"})
    assert removes_data(decide(a_world(retained, manifest_stands=False, data_left=True)))


def test_data_that_a_retained_backup_needs_stays() -> None:
    decision = decide(a_world(available(deleting=True), needed_by=("b-7",), data_left=True))
    assert lets_go(decision)
    assert not removes_data(decision)


def test_a_store_that_does_not_answer_is_asked_again_and_then_it_is_an_error() -> None:
    trouble = StoreLookup(a_store(), "", StoreUnreachable("no answer"))
    world = a_world(available(deleting=True, asked=NOW - timedelta(hours=1)), store=trouble)
    early = decide(world)
    waiting = replace(world, backup=world.backup.model_copy(update={"status": early.status}))
    late = backup_decide.decide(waiting, NOW + timedelta(minutes=6))
    assert (phase(early), phase(late)) == ("deleting", "error_deleting")
    assert not lets_go(early)
    assert not lets_go(late)
    assert late.look_again == 60.0


def test_wrong_credentials_are_an_error_at_once() -> None:
    decision = decide(a_world(available(deleting=True), store=StoreLookup(a_store(), "", AccessDenied("refused"))))
    assert phase(decision) == "error_deleting"


def test_an_administrator_may_let_go_and_leave_the_data() -> None:
    given_up = available(deleting=True, annotations={"cinderblock.io/let-go": "leave-data"})
    decision = decide(a_world(given_up, store=StoreLookup(a_store(), "", AccessDenied("refused"))))
    assert lets_go(decision)
    assert not removes_data(decision)


def test_an_ending_namespace_does_not_hang_on_a_store_that_is_gone() -> None:
    decision = decide(a_world(available(deleting=True), store=StoreLookup(missing="gone"), namespace_ending=True))
    assert lets_go(decision)
