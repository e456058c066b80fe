"""``completedAt`` and ``duration``: recorded once, by the decision that completes an operation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.labels import ENDED_ANNOTATION
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedMover
from cinderblock.lifecycle.restore import decide as restore_decide
from tests.support.simulation.observed_builders import (
    NOW,
    a_backup,
    a_claim,
    a_job,
    a_manifest,
    a_pod,
    a_restore,
    accepted,
    available,
    observed_backup,
    observed_restore,
)

EARLIER = NOW - timedelta(seconds=20)
AFTER = NOW + timedelta(hours=1)


def ended_mover(owner: str = "b-1", **pod: Any) -> ObservedMover:
    """Return a mover that ended successfully twenty seconds ago."""
    ended = a_pod("Succeeded", MoverReport(succeeded=True), **pod)
    (container,) = ended.status.container_statuses
    assert container.state.terminated is not None
    terminated = container.state.terminated.model_copy(update={"finished_at": EARLIER})
    container = container.model_copy(update={"state": container.state.model_copy(update={"terminated": terminated})})
    pod_status = ended.status.model_copy(update={"container_statuses": (container,)})
    return ObservedMover(job=a_job(owner), pods=(ended.model_copy(update={"status": pod_status}),))


def backup_status(backup: VolumeBackup, **seen: Any) -> VolumeBackupStatus:
    status = backup_decide.decide(observed_backup(backup, **seen), NOW).status
    assert isinstance(status, VolumeBackupStatus)
    return status


def restore_status(restore: VolumeRestore, **seen: Any) -> VolumeRestoreStatus:
    status = restore_decide.decide(observed_restore(restore, **seen), NOW).status
    assert isinstance(status, VolumeRestoreStatus)
    return status


def times(status: VolumeBackupStatus | VolumeRestoreStatus) -> tuple[object, object]:
    return status.completed_at, status.duration


def test_available_backup_has_completed_now() -> None:
    status = backup_status(accepted(), manifest=a_manifest())
    assert (status.phase, *times(status)) == ("available", NOW, "1m")


def test_running_backup_has_not_completed() -> None:
    status = backup_status(accepted())
    assert (status.phase, *times(status)) == ("creating", None, None)


def test_failed_backup_has_completed_now() -> None:
    status = backup_status(a_backup(finalizer=False), claim=None)
    assert (status.phase, *times(status)) == ("error", NOW, "1m")


def test_backup_whose_child_is_refused_has_completed_now() -> None:
    decision = backup_decide.on_action_error(observed_backup(accepted()), NOW, InvalidInput("refused"))
    assert isinstance(decision.status, VolumeBackupStatus)
    assert (decision.status.phase, *times(decision.status)) == ("error", NOW, "1m")


def test_fractions_of_a_second_are_left_out() -> None:
    decision = backup_decide.decide(
        observed_backup(accepted(), manifest=a_manifest()), NOW + timedelta(milliseconds=5900)
    )
    assert isinstance(decision.status, VolumeBackupStatus)
    assert times(decision.status) == (NOW + timedelta(seconds=5), "1m5s")


def test_clock_behind_the_api_server_gives_no_negative_duration() -> None:
    status = backup_status(accepted(created=NOW + timedelta(seconds=3)), manifest=a_manifest())
    assert times(status) == (NOW, "0s")


@pytest.mark.parametrize(
    "seen", [{}, {"restores": (a_restore(phase="restoring"),)}, {"restores": (a_restore(phase="error_restoring"),)}]
)
def test_later_decisions_keep_the_time_of_a_backup(seen: dict[str, Any]) -> None:
    backup = available(completedAt=EARLIER, duration="40s")
    decision = backup_decide.decide(observed_backup(backup, **seen), AFTER)
    assert isinstance(decision.status, VolumeBackupStatus)
    assert times(decision.status) == (EARLIER, "40s")


def test_failed_backup_keeps_its_time() -> None:
    status = backup_status(a_backup(phase="error", completedAt=EARLIER, duration="40s", manifestKey="k"))
    assert (status.phase, *times(status)) == ("error", EARLIER, "40s")


@pytest.mark.parametrize("completed", [{}, {"completedAt": EARLIER, "duration": "40s"}])
def test_deletion_changes_no_time(completed: dict[str, Any]) -> None:
    status = backup_status(available(deleting=True, **completed), manifest_present=True)
    assert status.phase == "deleting"
    assert times(status) == ((EARLIER, "40s") if completed else (None, None))


@pytest.mark.parametrize("phase", ["available", "error", "restoring", "error_restoring"])
def test_backup_of_an_earlier_release_gets_no_time(phase: str) -> None:
    assert times(backup_status(available(phase=phase), manifest=a_manifest())) == (None, None)


@pytest.mark.parametrize("manifest", [a_manifest(), None])
def test_imported_backup_has_no_time(manifest: Any) -> None:
    backup = a_backup(spec={"volumeId": None, "import": {"id": "b-1"}})
    assert times(backup_status(backup, manifest=manifest)) == (None, None)


def test_copied_status_gives_no_time() -> None:
    copied = a_backup(finalizer=False, id="another", phase="available", completedAt=EARLIER, duration="40s")
    status = backup_status(copied)
    assert (status.phase, *times(status)) == ("creating", None, None)


def test_backup_without_status_has_no_time() -> None:
    status = backup_status(a_backup(), manifest=a_manifest())
    assert (status.phase, *times(status)) == ("available", None, None)


def test_backup_without_status_gets_the_time_of_its_mover() -> None:
    status = backup_status(a_backup(), manifest=a_manifest(), mover=ended_mover())
    assert (status.phase, *times(status)) == ("available", EARLIER, "40s")


def test_running_pod_has_no_end_time() -> None:
    ended = ended_mover()
    mover = ObservedMover(job=ended.job, pods=(*ended.pods, a_pod("Running")))
    assert times(backup_status(a_backup(), manifest=a_manifest(), mover=mover)) == (None, None)


def in_place(**status: Any) -> VolumeRestore:
    return a_restore(spec={"volumeId": "old"}, **status)


TARGET = a_claim("old", "c-7")


def test_available_restore_has_completed_now() -> None:
    status = restore_status(in_place(phase="restoring"), target=TARGET, mover=ended_mover("r-1"))
    assert (status.phase, *times(status)) == ("available", NOW, "1m")


def test_running_restore_has_not_completed() -> None:
    assert times(restore_status(a_restore(finalizer=False))) == (None, None)


def test_failed_restore_has_completed_now() -> None:
    status = restore_status(a_restore(finalizer=False), backup=None)
    assert (status.phase, *times(status)) == ("error_restoring", NOW, "1m")


@pytest.mark.parametrize("phase", ["available", "error_restoring"])
@pytest.mark.parametrize("completed", [{}, {"completedAt": EARLIER, "duration": "40s"}])
def test_completed_restore_keeps_its_time_or_none(phase: str, completed: dict[str, Any]) -> None:
    decision = restore_decide.decide(observed_restore(a_restore(phase=phase, **completed)), AFTER)
    assert isinstance(decision.status, VolumeRestoreStatus)
    assert times(decision.status) == ((EARLIER, "40s") if completed else (None, None))


def test_deleted_restore_that_cannot_stop_has_no_time() -> None:
    restore = a_restore(phase="restoring", deleting=True)
    mover = ObservedMover(job=a_job("r-1"), pods=(a_pod("Running"),))
    decision = restore_decide.decide(observed_restore(restore, mover=mover), AFTER)
    assert isinstance(decision.status, VolumeRestoreStatus)
    assert (decision.status.phase, *times(decision.status)) == ("error_restoring", None, None)


def test_restore_without_status_gets_the_time_of_its_mover() -> None:
    status = restore_status(in_place(), target=TARGET, mover=ended_mover("r-1"))
    assert (status.phase, *times(status)) == ("available", EARLIER, "40s")


def test_ended_restore_without_status_has_no_time() -> None:
    restore = a_restore(finalizer=False)
    annotated = restore.metadata.model_copy(update={"annotations": {ENDED_ANNOTATION: "r-1/available"}})
    status = restore_status(restore.model_copy(update={"metadata": annotated}))
    assert (status.phase, *times(status)) == ("available", None, None)
