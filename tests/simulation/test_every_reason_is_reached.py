"""Every reason that is documented can be had: for each there is a course of events after which it has been told.

A reason without a course fails here, so one that nothing can reach is neither added nor left behind. What other rooms
say (a store, the API server, a mover) comes here as they would say it; that they do is for tests of theirs, which must
name it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock import errors
from cinderblock.api import labels
from cinderblock.api.mover import MoverReport
from cinderblock.errors import CinderblockError, ContainerNotFound, NotFound, PermanentError, StoreUnreachable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from tests.support.mover.backups import KEYS, key_ring
from tests.support.reasons import IN_LOGS_ONLY, of_rooms, reasons
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE, Move
from tests.support.simulation.simulation import Simulation

Course = Callable[[Simulation], None]
HELD = "example.org/held"
"""A finalizer of somebody who never takes it off."""
TESTS = Path(__file__).parents[1]
OTHER_ROOMS = ("kube", "store", "format", "volume", "archiver", "restorer", "repository", "mover")


# -- what the courses have in common


def a_backup(running: Simulation, **spec: Any) -> None:
    running.backup("full", "data", **spec)
    running.settle()


def copying(running: Simulation, **spec: Any) -> None:
    running.backup("full", "data", **spec)
    running.until("VolumeBackup", "full", "MoverRunning")


def restored(running: Simulation, **spec: Any) -> None:
    a_backup(running)
    running.restore("back", "full", **spec)
    running.settle()


def claim_in(running: Simulation, **status: Any) -> None:
    """The claim to back up is in another state."""
    running.objects.update(running.get("PersistentVolumeClaim", "data"), status=status)
    a_backup(running)


def mover_says(reason: str) -> Course:
    """A mover gives up with this reason."""

    def course(running: Simulation) -> None:
        copying(running)
        running.end_mover(MoverReport(succeeded=False, permanent=True, reason=reason, message="as it says"))
        running.settle()

    return course


def store_says(error: CinderblockError) -> Course:
    """The store answers every request with this error."""

    def course(running: Simulation) -> None:
        running.store.trouble = error
        a_backup(running)

    return course


def api_says(code: int, sentence: str) -> Course:
    """The API server refuses every Job."""

    def course(running: Simulation) -> None:
        running.refusals["Job"] = (code, sentence)
        a_backup(running)

    return course


def pod_of_mover(running: Simulation, **status: Any) -> Object:
    """The mover's pod, which does not start."""
    moves = running.cluster.moves

    def moves_without_a_start() -> list[Move]:
        return [move for move in moves() if not move.name.endswith(" runs")]

    running.cluster.moves = moves_without_a_start  # type: ignore[method-assign]
    running.backup("full", "data")
    while not running.objects.all("Pod"):
        running.step()
    (pod,) = running.objects.all("Pod")
    running.objects.update(pod, status={"phase": "Pending"} | status)
    return pod


def pod_waits(**status: Any) -> Course:
    def course(running: Simulation) -> None:
        pod_of_mover(running, **status)
        running.settle()

    return course


def adopts(backup_id: str, **spec: Any) -> Course:
    """A backup is adopted that is not, or not so, in the store."""

    def course(running: Simulation) -> None:
        running.adopt("again", backup_id, **spec)
        running.settle()

    return course


def snapshot_of(running: Simulation, claim: str, **status: Any) -> None:
    """A VolumeSnapshot of the user's."""
    spec = {"source": {"persistentVolumeClaimName": claim}}
    made = running.make("VolumeSnapshot", {"metadata": {"name": "mine", "namespace": NAMESPACE}, "spec": spec})
    running.objects.update(made, status=status)


def hold_child(running: Simulation, kind: str) -> None:
    (child,) = running.objects.all(kind)
    running.objects.update(child, metadata=child["metadata"] | {"finalizers": [HELD]})


def tear_away(running: Simulation, kind: str, name: str) -> None:
    """Somebody removes an object of ours by force."""
    running.delete(kind, name)
    found = running.get(kind, name)
    running.objects.update(found, metadata=found["metadata"] | {"finalizers": []})


# -- the courses that need more than one line


def accepts_and_ends(running: Simulation) -> None:
    a_backup(running)


def deletes(running: Simulation) -> None:
    a_backup(running)
    running.delete("VolumeBackup", "full")
    running.settle()


def retains(running: Simulation) -> None:
    a_backup(running, deletionPolicy="Retain")
    running.delete("VolumeBackup", "full")
    running.settle()


def leaves_data(running: Simulation) -> None:
    a_backup(running)
    full = running.get("VolumeBackup", "full")
    given_up = full["metadata"] | {"annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}
    running.objects.update(full, metadata=given_up)
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_while_copying(running: Simulation) -> None:
    copying(running)
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_with_a_child_that_hangs(running: Simulation) -> None:
    copying(running)
    hold_child(running, "VolumeSnapshot")
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_a_parent(running: Simulation) -> None:
    a_backup(running)
    running.backup("child", "data", incremental=True)
    running.settle()
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_while_it_is_restored(running: Simulation) -> None:
    a_backup(running)
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "MoverRunning")
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_with_a_foreign_manifest(running: Simulation) -> None:
    a_backup(running)
    running.backup("other", "data")
    running.settle()
    uids = {name: running.get("VolumeBackup", name)["metadata"]["uid"] for name in ("full", "other")}
    mine, theirs = (next(key for key in running.stored("backups/") if uids[name] in key) for name in ("full", "other"))
    running.cluster.store.put(mine, running.cluster.store.get(theirs))
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_beside_a_damaged_one(running: Simulation) -> None:
    a_backup(running)
    running.backup("child", "data", incremental=True, deletionPolicy="Retain")
    running.settle()
    running.break_manifest("child")
    running.delete("VolumeBackup", "child")
    running.settle()
    running.delete("VolumeBackup", "full")
    running.settle()


def deletes_while_manifests_are_read(running: Simulation) -> None:
    a_backup(running)
    running.backup("second", "data")
    running.settle()
    running.delete("VolumeBackup", "full")
    with running.reading_references("data"):
        running.until("VolumeBackup", "full", "ReadingReferences")
    running.settle()


def cancels_a_restore(running: Simulation) -> None:
    a_backup(running)
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "MoverRunning")
    running.delete("VolumeRestore", "back")
    running.settle()


def tears_a_restore_away(running: Simulation) -> None:
    a_backup(running)
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "reserving the volume")
    tear_away(running, "VolumeRestore", "back")
    running.settle()


def tears_a_restore_away_whose_claim_has_been(running: Simulation) -> None:
    a_backup(running)
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "creating claim")
    (binding,) = [move for move in running.cluster.moves() if move.name == "bind PersistentVolumeClaim new"]
    running.move(binding)
    running.delete("PersistentVolumeClaim", "new")
    tear_away(running, "VolumeRestore", "back")
    running.settle()


def loses_the_status_of_a_restore(running: Simulation) -> None:
    restored(running, name="new")
    running.erase_status("VolumeRestore", "back")
    running.settle()


def loses_the_status_while_the_store_is_away(running: Simulation) -> None:
    a_backup(running)
    running.erase_status("VolumeBackup", "full")
    running.store.trouble = StoreUnreachable("no answer")
    running.settle()


def loses_the_seal(running: Simulation) -> None:
    a_backup(running)
    full = running.get("VolumeBackup", "full")
    running.objects.update(full, status=full["status"] | {"sealed": True})
    running.restore("back", "full", name="new")
    running.settle()


def is_rolled_back(running: Simulation) -> None:
    a_backup(running)
    full = running.get("VolumeBackup", "full")
    pins = full["status"]["pins"] | {"salt": "0" * 32}
    running.objects.update(full, status=full["status"] | {"pins": pins})
    running.restore("back", "full", name="new")
    running.settle()


def marks_its_key_too_early(running: Simulation) -> None:
    running.encrypt(key_ring("2024"))
    a_backup(running)
    marks = {"2024": running.now - timedelta(days=365)}
    running.cluster.keys = KeyRing(KEYS, "2025", "the Secret", marks)
    running.restore("back", "full", name="new")
    running.settle()


def adds_keys_to_a_store(running: Simulation) -> None:
    a_backup(running)
    running.encrypt(key_ring())
    running.settle()


def has_no_key_to_seal_with(running: Simulation) -> None:
    running.encrypt(KeyRing({"2024": KEYS["2024"]}, None, "the Secret", {"2024": running.now}))
    running.backup("full", "data")
    running.settle()


def loses_the_parent(running: Simulation) -> None:
    a_backup(running)
    running.backup("child", "data", incremental=True)
    running.until("VolumeBackup", "child", "SnapshotNotReady")
    tear_away(running, "VolumeBackup", "full")
    running.settle()


def keeps_the_store(running: Simulation) -> None:
    a_backup(running)
    running.delete("BackupStore", "default")
    running.settle()


def asks_a_store_that_goes(running: Simulation) -> None:
    keeps_the_store(running)
    running.backup("next", "data", storeName="default")
    running.settle()


def is_noticed(running: Simulation) -> None:
    running.backup("full", "data")
    running.notice()
    running.settle()


def waits_for_a_turn(running: Simulation) -> None:
    for number in range(3):
        running.claim(f"data-{number}", "content")
        running.backup(f"backup-{number}", f"data-{number}")
    running.settle()


def waits_for_the_volume(running: Simulation) -> None:
    running.backup("full", "data")
    running.backup("next", "data")
    running.settle()


def waits_for_a_claim(running: Simulation) -> None:
    running.unbound_claim("young")
    running.backup("full", "young")
    running.settle()


def waits_for_a_detachment(running: Simulation) -> None:
    running.attach("data", "node-1")
    a_backup(running)


def is_in_use(running: Simulation) -> None:
    running.pod("web", "data")
    a_backup(running)


def is_in_use_without_snapshots(running: Simulation) -> None:
    running.objects.delete(running.get("VolumeSnapshotClass", "snap"))
    running.pod("web", "data")
    a_backup(running, force=True)


def restores_into_a_pod(running: Simulation) -> None:
    running.claim("used", "theirs")
    running.pod("web", "used")
    restored(running, volumeId="used")


def restores_into_a_device(running: Simulation) -> None:
    claim = running.claim("disk", "theirs")
    running.objects.update(claim, spec=claim["spec"] | {"volumeMode": "Block"})
    restored(running, volumeId="disk")


def restores_a_failed_one(running: Simulation) -> None:
    running.backup("failed", "nowhere")
    running.settle()
    running.restore("back", "failed", name="new")
    running.settle()


def restores_nothing(running: Simulation) -> None:
    running.restore("back", "nowhere", name="new")
    running.settle()


def finds_no_manifest(running: Simulation) -> None:
    a_backup(running)
    for key in running.stored("backups/"):
        running.cluster.store.delete([key])
    running.restore("back", "full", name="new")
    running.settle()


def adopts_what_is_there(running: Simulation) -> None:
    a_backup(running)
    running.adopt("again", running.get("VolumeBackup", "full")["metadata"]["uid"])
    running.settle()


def finds_a_strangers_claim(running: Simulation) -> None:
    running.claim("new", "theirs")
    restored(running, name="new")


def backs_up_another_volumes_snapshot(running: Simulation) -> None:
    running.claim("other", "theirs")
    snapshot_of(running, "other", readyToUse=True)
    a_backup(running, snapshotId="mine")


def backs_up_a_broken_snapshot(running: Simulation) -> None:
    snapshot_of(running, "data", readyToUse=False, error={"message": "the array is busy"})
    a_backup(running, snapshotId="mine")


def starts_slowly(running: Simulation) -> None:
    pod = pod_of_mover(running)
    event = {"regarding": {"uid": pod["metadata"]["uid"]}, "type": "Warning", "note": "FailedMount: no such Secret"}
    running.make("Event", {"metadata": {"name": "slow", "namespace": NAMESPACE}} | event)
    running.settle()


def stalls(running: Simulation) -> None:
    copying(running)
    running.cluster.moves = list  # type: ignore[method-assign]
    for _ in range(300):
        running.step()


def is_retried(running: Simulation) -> None:
    copying(running)
    running.end_mover(MoverReport(succeeded=False, reason="StoreUnreachable", message="no answer"), 4)
    running.settle()


def dies(reason: str) -> Course:
    """A mover ends without a report, and its Job is not tried again."""

    def course(running: Simulation) -> None:
        copying(running)
        running.end_mover(None, reason=reason)
        running.settle()

    return course


def is_deleted(running: Simulation) -> None:
    copying(running)
    (job,) = running.objects.all("Job")
    running.objects.delete(job)
    running.settle()


def fails_without_a_pod(running: Simulation) -> None:
    copying(running)
    for pod in running.objects.all("Pod"):
        running.objects.delete(pod)
    (job,) = running.objects.all("Job")
    running.objects.update(job, status={"conditions": [{"type": "Failed", "status": "True", "message": "too old"}]})
    running.settle()


def keeps_not_all(running: Simulation) -> None:
    copying(running)
    (pod,) = running.objects.all("Pod")
    report = running.cluster.work(pod)
    running.end_mover(report.model_copy(update={"warnings": ["2 sockets were skipped."]}), 0)
    running.settle()


def finds_what_stamps_hid(running: Simulation) -> None:
    a_backup(running)
    running.cluster.found = Comparison(dirty_window_seconds=3600, compared=True, missed_changes=2)
    running.backup("child", "data", incremental=True)
    running.settle()


def cannot_read_all(running: Simulation) -> None:
    running.cluster.unreadable = UnreadableRecord(files=2, examples=["broken", "closed/"])
    a_backup(running, unreadable="Skip")


COURSES: dict[str, Course] = {
    "Accepted": accepts_and_ends,
    "AccessDenied": store_says(errors.AccessDenied("the key is refused")),
    "Answers": accepts_and_ends,
    "Available": accepts_and_ends,
    "BackupInUse": deletes_while_it_is_restored,
    "BackupNotAvailable": restores_a_failed_one,
    "BackupNotFound": restores_nothing,
    "ChangeMissed": finds_what_stamps_hid,
    "Cancelled": cancels_a_restore,
    "Cancelling": cancels_a_restore,
    "CertificateNotTrusted": store_says(PermanentError("of an unknown authority", reason="CertificateNotTrusted")),
    "ChildrenRemain": deletes_with_a_child_that_hangs,
    "Conflict": mover_says("Conflict"),
    "ContainerNotFound": store_says(ContainerNotFound("there is no container")),
    "DataLeft": leaves_data,
    "Deleted": deletes,
    "DeletingData": deletes,
    "FilesUnreadable": cannot_read_all,
    "ForeignManifest": deletes_with_a_foreign_manifest,
    "HasDependentBackups": deletes_a_parent,
    "IdTaken": adopts_what_is_there,
    "ImagePullFailed": pod_waits(
        containerStatuses=[{"name": "mover", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}]
    ),
    "InUse": keeps_the_store,
    "IntegrityError": mover_says("IntegrityError"),
    "InvalidInput": api_says(422, "spec.template: Invalid value"),
    "KeyUnavailable": mover_says("KeyUnavailable"),
    "KubeUnavailable": store_says(errors.KubeUnavailable("the API server does not tell the Secret")),
    "ManifestMisplaced": adopts("0f8fad5b-d9cb-469f-a165-70867728950e", manifest="elsewhere/of.manifest"),
    "ManifestReplaced": is_rolled_back,
    "ManifestMissing": finds_no_manifest,
    "MoverDeleted": is_deleted,
    "MoverDied": dies("Error"),
    "MoverFailed": fails_without_a_pod,
    "MoverOutOfMemory": dies("OOMKilled"),
    "MoverPending": accepts_and_ends,
    "MoverRetrying": is_retried,
    "MoverRunning": accepts_and_ends,
    "MoverStalled": stalls,
    "MoverStarted": accepts_and_ends,
    "MoverStarting": starts_slowly,
    "MoverUnschedulable": pod_waits(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),
    "NameTaken": finds_a_strangers_claim,
    "NamespaceTerminating": api_says(403, "unable to create new content because it is being terminated"),
    "NoParent": lambda running: a_backup(running, incremental=True),
    "NotAllKept": keeps_not_all,
    "NotEncrypted": adds_keys_to_a_store,
    "NotFound": mover_says("NotFound"),
    "Noticed": is_noticed,
    "NotS3": store_says(StoreUnreachable("no S3 server", reason="NotS3")),
    "NotTls": store_says(PermanentError("does not speak TLS", reason="NotTls")),
    "Overtaken": mover_says("Overtaken"),
    "ParentGone": loses_the_parent,
    "PodSecurityViolation": api_says(403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
    "Queued": waits_for_a_turn,
    "QuotaExceeded": api_says(403, 'jobs.batch "x" is forbidden: exceeded quota: jobs'),
    "ReadingReferences": deletes_while_manifests_are_read,
    "ReadOnlyKey": has_no_key_to_seal_with,
    "Rebinding": lambda running: restored(running, name="new"),
    "Recalling": loses_the_status_while_the_store_is_away,
    "ReferencesUnknown": deletes_beside_a_damaged_one,
    "Restored": lambda running: restored(running, name="new"),
    "Retained": retains,
    "SealBroken": loses_the_seal,
    "SealedTooLate": marks_its_key_too_early,
    "SecretIncomplete": store_says(NotFound("Secret s3 has no such key", reason="SecretIncomplete")),
    "SecretNotFound": store_says(NotFound("Secret s3 does not exist", reason="SecretNotFound")),
    "SnapshotClassNotFound": is_in_use_without_snapshots,
    "SnapshotMismatch": backs_up_another_volumes_snapshot,
    "SnapshotNotAvailable": backs_up_a_broken_snapshot,
    "SnapshotNotFound": lambda running: a_backup(running, snapshotId="nowhere"),
    "SnapshotNotReady": accepts_and_ends,
    "SnapshotRequested": accepts_and_ends,
    "SourceChanging": mover_says("SourceChanging"),
    "SourceError": mover_says("SourceError"),
    "StatusLost": loses_the_status_of_a_restore,
    "StoppingMover": deletes_while_copying,
    "StorageClassNotFound": lambda running: restored(running, name="new", storageClassName="nowhere"),
    "StoreBeingDeleted": asks_a_store_that_goes,
    "StoreFull": store_says(PermanentError("no room left", reason="StoreFull")),
    "StoreNotFound": lambda running: a_backup(running, storeName="nowhere"),
    "StoreRefuses": store_says(PermanentError("the request is refused", reason="StoreRefuses")),
    "StoreUnreachable": store_says(StoreUnreachable("no answer")),
    "TargetError": mover_says("TargetError"),
    "Terminated": mover_says("Terminated"),
    "Unauthorized": api_says(401, "Unauthorized"),
    "Unexpected": mover_says("Unexpected"),
    "UnsupportedFormat": mover_says("UnsupportedFormat"),
    "VolumeAbandoned": tears_a_restore_away,
    "VolumeBusy": waits_for_the_volume,
    "VolumeInUse": is_in_use,
    "VolumeKept": tears_a_restore_away_whose_claim_has_been,
    "VolumeLost": lambda running: claim_in(running, phase="Lost"),
    "VolumeModeMismatch": restores_into_a_device,
    "VolumeNotAvailable": restores_into_a_pod,
    "VolumeNotBound": waits_for_a_claim,
    "VolumeNotFound": restores_a_failed_one,
    "VolumeStillAttached": waits_for_a_detachment,
    "VolumeTooSmall": lambda running: restored(running, name="new", size="1Mi"),
}


@pytest.mark.parametrize("reason", COURSES)
def test_the_reason_is_told(reason: str) -> None:
    with Simulation() as running:
        running.claim("data", "first")
        COURSES[reason](running)
        assert reason in running.told, running.story()


def test_every_reason_has_a_course_and_no_other_word_has() -> None:
    assert set(COURSES) == reasons() - IN_LOGS_ONLY


def test_what_other_rooms_say_is_named_by_a_test_of_theirs() -> None:
    folders = [TESTS / "contract", *(TESTS / "unit" / room for room in ("controller", *OTHER_ROOMS))]
    named = {word for folder in folders for path in folder.glob("test_*.py") for word in _words(path)}
    assert of_rooms(OTHER_ROOMS) - named == set()


def _words(path: Path) -> Iterator[str]:
    """Names and texts in the source of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
