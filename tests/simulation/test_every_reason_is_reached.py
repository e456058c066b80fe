"""Every documented reason can be reached: each has a scenario after which a condition or an Event has it.

A reason without a scenario fails here, so that no unreachable reason is added or kept. The scenarios script the errors
of other rooms (a store, the API server, a mover). The tests of those rooms show that they give these errors, and must
mention the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
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
from cinderblock.lifecycle.store.container_rules import LifecycleRule
from cinderblock.reasons import Reason
from tests.support.documented_reasons import (
    CLUSTER_STORE_REASONS,
    COPY_REASONS,
    GRANT_REASONS,
    IMPORT_REASONS,
    INTERNAL_REASONS,
    OWNER_REASONS,
    POPULATOR_REASONS,
    SCHEDULE_REASONS,
)
from tests.support.mover.backups import KEYS, key_ring
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE, Move, Sizes
from tests.support.simulation.simulation import Simulation
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore

Scenario = Callable[[Simulation], None]
HELD = "example.org/held"
"""A finalizer that nobody removes."""
TESTS = Path(__file__).parents[1]
_OF_SCHEDULES = "tests/simulation/schedules/test_schedule_reasons.py reaches it"
_OF_CLUSTER_STORES = "tests/simulation/test_shared_stores.py reaches it"
_OF_IMPORTS = "tests/simulation/test_store_imports.py reaches it"
NOT_REACHED = INTERNAL_REASONS | {
    **dict.fromkeys(SCHEDULE_REASONS, _OF_SCHEDULES),
    **dict.fromkeys(CLUSTER_STORE_REASONS, _OF_CLUSTER_STORES),
    **dict.fromkeys(GRANT_REASONS, "tests/simulation/test_backup_grants.py reaches it"),
    **dict.fromkeys(POPULATOR_REASONS, "tests/simulation/test_populator.py reaches it"),
    **dict.fromkeys(IMPORT_REASONS, _OF_IMPORTS),
    **dict.fromkeys(OWNER_REASONS, "tests/simulation/test_owned_stores.py reaches it"),
    **dict.fromkeys(COPY_REASONS, "tests/simulation/test_copies.py reaches it"),
    Reason.NOT_LEADING: "only in logs: a process without the Lease writes neither statuses nor Events",
    Reason.STATUS_RESET: "only the gateway writes it: tests/unit/gateway/test_reset_status.py",
}
"""Documented and undocumented reasons without a scenario, each with the cause."""
ROOMS = {
    Reason.NAMESPACE_TERMINATING: "kube",
    Reason.LIMIT_RANGE_VIOLATED: "kube",
    Reason.POD_SECURITY_VIOLATION: "kube",
    Reason.QUOTA_EXCEEDED: "kube",
    Reason.UNAUTHORIZED: "kube",
    Reason.KUBE_UNAVAILABLE: "kube",
    Reason.ACCESS_DENIED: "kube",
    Reason.CONFLICT: "kube",
    Reason.INVALID_INPUT: "kube",
    Reason.BROKER_UNAVAILABLE: "store",
    Reason.CERTIFICATE_NOT_TRUSTED: "store",
    Reason.CONTAINER_NOT_FOUND: "store",
    Reason.ENDPOINT_NOT_ALLOWED: "store",
    Reason.NOT_FOUND: "store",
    Reason.NOT_GRANTED: "store",
    Reason.NOT_S3: "store",
    Reason.NOT_SUPPORTED: "store",
    Reason.NOT_TLS: "store",
    Reason.SECRET_INCOMPLETE: "store",
    Reason.STORE_FULL: "store",
    Reason.STORE_REFUSES: "store",
    Reason.STORE_UNREACHABLE: "store",
    Reason.STORE_TOO_SLOW: "store",
    Reason.THROTTLED: "store",
    Reason.WRONG_REGION: "store",
    Reason.CREDENTIALS_EXPIRED: "store",
    Reason.CLOCK_SKEWED: "store",
    Reason.ARCHIVED: "store",
    Reason.TOO_LARGE: "store",
    Reason.LOCKED: "store",
    Reason.STORE_READ_ONLY: "store",
    Reason.OBJECT_LOCK_UNAVAILABLE: "store",
    Reason.LOCK_NOT_EXTENDED: "archiver",
    Reason.SECRET_NOT_FOUND: "controller",
    Reason.FOREIGN_MANIFEST: "format",
    Reason.INTEGRITY_ERROR: "format",
    Reason.KEY_UNAVAILABLE: "format",
    Reason.MANIFEST_REPLACED: "format",
    Reason.READ_ONLY_KEY: "format",
    Reason.SEAL_BROKEN: "format",
    Reason.SEALED_TOO_LATE: "format",
    Reason.UNSUPPORTED_FORMAT: "format",
    Reason.SOURCE_CHANGING: "volume",
    Reason.SOURCE_ERROR: "volume",
    Reason.TARGET_ERROR: "volume",
    Reason.OVERTAKEN: "repository",
    Reason.TERMINATED: "mover",
    Reason.UNEXPECTED: "mover",
}
"""The rooms whose errors the scenarios script."""


# Common parts of the scenarios


def a_backup(simulation: Simulation, **spec: Any) -> None:
    simulation.backup("full", "data", **spec)
    simulation.settle()


def copying(simulation: Simulation, **spec: Any) -> None:
    simulation.backup("full", "data", **spec)
    simulation.until("VolumeBackup", "full", "MoverRunning")


def restored(simulation: Simulation, **spec: Any) -> None:
    a_backup(simulation)
    simulation.restore("back", "full", **spec)
    simulation.settle()


def claim_in(simulation: Simulation, **status: Any) -> None:
    """Set the status of the claim to back up."""
    simulation.objects.update(simulation.get("PersistentVolumeClaim", "data"), status=status)
    a_backup(simulation)


def mover_says(reason: str) -> Scenario:
    """Let a mover fail with this reason."""

    def scenario(simulation: Simulation) -> None:
        copying(simulation)
        simulation.end_mover(MoverReport(succeeded=False, permanent=True, reason=reason, message="as it says"))
        simulation.settle()

    return scenario


def store_says(error: CinderblockError) -> Scenario:
    """Let the store answer every request with this error."""

    def scenario(simulation: Simulation) -> None:
        simulation.store.error = error
        a_backup(simulation)

    return scenario


def api_says(code: int, sentence: str) -> Scenario:
    """Let the API server reject every Job."""

    def scenario(simulation: Simulation) -> None:
        simulation.rejections["Job"] = (code, sentence)
        a_backup(simulation)

    return scenario


def pod_of_mover(simulation: Simulation, **status: Any) -> Object:
    """Return the mover's pod, which does not start."""
    moves = simulation.cluster.moves

    def moves_without_a_start() -> list[Move]:
        return [move for move in moves() if not move.name.endswith(" runs")]

    simulation.cluster.moves = moves_without_a_start  # type: ignore[method-assign]
    simulation.backup("full", "data")
    while not simulation.objects.all("Pod"):
        simulation.step()
    (pod,) = simulation.objects.all("Pod")
    simulation.objects.update(pod, status={"phase": "Pending"} | status)
    return pod


def pod_waits(**status: Any) -> Scenario:
    def scenario(simulation: Simulation) -> None:
        pod_of_mover(simulation, **status)
        simulation.settle()

    return scenario


def adopts(backup_id: str, **spec: Any) -> Scenario:
    """Import a backup that the store does not hold like that."""

    def scenario(simulation: Simulation) -> None:
        simulation.import_backup("again", backup_id, **spec)
        simulation.settle()

    return scenario


def snapshot_of(simulation: Simulation, claim: str, **status: Any) -> None:
    """Create a VolumeSnapshot of the user."""
    spec = {"source": {"persistentVolumeClaimName": claim}}
    made = simulation.make("VolumeSnapshot", {"metadata": {"name": "mine", "namespace": NAMESPACE}, "spec": spec})
    simulation.objects.update(made, status=status)


def hold_child(simulation: Simulation, kind: str) -> None:
    (child,) = simulation.objects.all(kind)
    simulation.objects.update(child, metadata=child["metadata"] | {"finalizers": [HELD]})


def remove_by_force(simulation: Simulation, kind: str, name: str) -> None:
    """Remove one of our objects by force."""
    simulation.delete(kind, name)
    found = simulation.get(kind, name)
    simulation.objects.update(found, metadata=found["metadata"] | {"finalizers": []})


# Scenarios


def accepts_and_ends(simulation: Simulation) -> None:
    a_backup(simulation)


def deletes(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def expires(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.expire("full")
    simulation.settle()


def retains(simulation: Simulation) -> None:
    a_backup(simulation, deletionPolicy="Retain")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def leaves_data(simulation: Simulation) -> None:
    a_backup(simulation)
    full = simulation.get("VolumeBackup", "full")
    given_up = full["metadata"] | {"annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}
    simulation.objects.update(full, metadata=given_up)
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_while_copying(simulation: Simulation) -> None:
    copying(simulation)
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_with_a_child_that_hangs(simulation: Simulation) -> None:
    copying(simulation)
    hold_child(simulation, "VolumeSnapshot")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_a_parent(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_while_it_is_restored(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "MoverRunning")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_with_a_foreign_manifest(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.backup("other", "data")
    simulation.settle()
    uids = {name: simulation.get("VolumeBackup", name)["metadata"]["uid"] for name in ("full", "other")}
    own_key, foreign_key = (
        next(key for key in simulation.stored("backups/") if uids[name] in key) for name in ("full", "other")
    )
    simulation.cluster.store.put(own_key, simulation.cluster.store.get(foreign_key))
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_beside_a_damaged_one(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.backup("child", "data", incremental=True, deletionPolicy="Retain")
    simulation.settle()
    simulation.break_manifest("child")
    simulation.delete("VolumeBackup", "child")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.settle()


def deletes_while_manifests_are_read(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.backup("second", "data")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    with simulation.reading_references("data"):
        simulation.until("VolumeBackup", "full", "ReadingReferences")
    simulation.settle()


def cancels_a_restore(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "MoverRunning")
    simulation.delete("VolumeRestore", "back")
    simulation.settle()


def tears_a_restore_away(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "reserving its PersistentVolume")
    remove_by_force(simulation, "VolumeRestore", "back")
    simulation.settle()


def tears_a_restore_away_whose_claim_has_been(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "creating PersistentVolumeClaim")
    (binding,) = [move for move in simulation.cluster.moves() if move.name == "bind PersistentVolumeClaim new"]
    simulation.move(binding)
    simulation.delete("PersistentVolumeClaim", "new")
    remove_by_force(simulation, "VolumeRestore", "back")
    simulation.settle()


def loses_the_status_of_a_restore(simulation: Simulation) -> None:
    restored(simulation, name="new")
    simulation.erase_status("VolumeRestore", "back")
    simulation.settle()


def loses_the_status_while_the_store_is_away(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.erase_status("VolumeBackup", "full")
    simulation.store.error = StoreUnreachable("no answer")
    simulation.settle()


def loses_the_seal(simulation: Simulation) -> None:
    a_backup(simulation)
    full = simulation.get("VolumeBackup", "full")
    simulation.objects.update(full, status=full["status"] | {"sealed": True})
    simulation.restore("back", "full", name="new")
    simulation.settle()


def is_rolled_back(simulation: Simulation) -> None:
    a_backup(simulation)
    full = simulation.get("VolumeBackup", "full")
    pins = full["status"]["pins"] | {"salt": "0" * 32}
    simulation.objects.update(full, status=full["status"] | {"pins": pins})
    simulation.restore("back", "full", name="new")
    simulation.settle()


def marks_its_key_too_early(simulation: Simulation) -> None:
    simulation.encrypt(key_ring("2024"))
    a_backup(simulation)
    marks = {"2024": simulation.now - timedelta(days=365)}
    simulation.cluster.keys = KeyRing(KEYS, "2025", "the Secret", marks)
    simulation.restore("back", "full", name="new")
    simulation.settle()


def adds_keys_to_a_store(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.encrypt(key_ring())
    simulation.settle()


def has_no_key_to_seal_with(simulation: Simulation) -> None:
    simulation.encrypt(KeyRing({"2024": KEYS["2024"]}, None, "the Secret", {"2024": simulation.now}))
    simulation.backup("full", "data")
    simulation.settle()


def loses_the_parent(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.backup("child", "data", incremental=True)
    simulation.until("VolumeBackup", "child", "SnapshotNotReady")
    remove_by_force(simulation, "VolumeBackup", "full")
    simulation.settle()


def keeps_the_store(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.delete("BackupStore", "default")
    simulation.settle()


def asks_a_store_that_goes(simulation: Simulation) -> None:
    keeps_the_store(simulation)
    simulation.backup("next", "data", storeName="default")
    simulation.settle()


def is_noticed(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.acknowledge()
    simulation.settle()


def waits_for_a_turn(simulation: Simulation) -> None:
    for number in range(3):
        simulation.claim(f"data-{number}", "content")
        simulation.backup(f"backup-{number}", f"data-{number}")
    simulation.settle()


def has_too_many_objects(simulation: Simulation) -> None:
    simulation.api.more_objects = 20_000
    simulation.backup("full", "data")
    simulation.settle()


def waits_for_the_volume(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    simulation.backup("next", "data")
    simulation.settle()


def waits_for_a_claim(simulation: Simulation) -> None:
    simulation.unbound_claim("young")
    simulation.backup("full", "young")
    simulation.settle()


def waits_for_a_detachment(simulation: Simulation) -> None:
    simulation.attach("data", "node-1")
    a_backup(simulation)


def is_in_use(simulation: Simulation) -> None:
    simulation.pod("web", "data")
    a_backup(simulation)


def is_in_use_without_snapshots(simulation: Simulation) -> None:
    simulation.objects.delete(simulation.get("VolumeSnapshotClass", "snap"))
    simulation.pod("web", "data")
    a_backup(simulation, force=True)


def restores_into_a_pod(simulation: Simulation) -> None:
    simulation.claim("used", "foreign")
    simulation.pod("web", "used")
    restored(simulation, volumeId="used")


def restores_into_a_device(simulation: Simulation) -> None:
    claim = simulation.claim("disk", "foreign")
    simulation.objects.update(claim, spec=claim["spec"] | {"volumeMode": "Block"})
    restored(simulation, volumeId="disk")


def restores_a_failed_one(simulation: Simulation) -> None:
    simulation.backup("failed", "nowhere")
    simulation.settle()
    simulation.restore("back", "failed", name="new")
    simulation.settle()


def restores_nothing(simulation: Simulation) -> None:
    simulation.restore("back", "nowhere", name="new")
    simulation.settle()


def finds_no_manifest(simulation: Simulation) -> None:
    a_backup(simulation)
    for key in simulation.stored("backups/"):
        simulation.cluster.store.delete([key])
    simulation.restore("back", "full", name="new")
    simulation.settle()


def adopts_what_is_there(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.import_backup("again", simulation.get("VolumeBackup", "full")["metadata"]["uid"])
    simulation.settle()


def finds_a_strangers_claim(simulation: Simulation) -> None:
    simulation.claim("new", "foreign")
    restored(simulation, name="new")


def backs_up_another_volumes_snapshot(simulation: Simulation) -> None:
    simulation.claim("other", "foreign")
    snapshot_of(simulation, "other", readyToUse=True)
    a_backup(simulation, snapshotId="mine")


def backs_up_a_broken_snapshot(simulation: Simulation) -> None:
    snapshot_of(simulation, "data", readyToUse=False, error={"message": "the array is busy"})
    a_backup(simulation, snapshotId="mine")


def starts_slowly(simulation: Simulation) -> None:
    pod = pod_of_mover(simulation)
    event = {"regarding": {"uid": pod["metadata"]["uid"]}, "type": "Warning", "note": "FailedMount: no such Secret"}
    simulation.make("Event", {"metadata": {"name": "slow", "namespace": NAMESPACE}} | event)
    simulation.settle()


def stalls(simulation: Simulation) -> None:
    copying(simulation)
    simulation.cluster.moves = list  # type: ignore[method-assign]
    for _ in range(300):
        simulation.step()


def is_retried(simulation: Simulation) -> None:
    copying(simulation)
    simulation.end_mover(MoverReport(succeeded=False, reason="StoreUnreachable", message="no answer"), 4)
    simulation.settle()


def dies(reason: str) -> Scenario:
    """Let a mover end without a report, and its Job fail."""

    def scenario(simulation: Simulation) -> None:
        copying(simulation)
        simulation.end_mover(None, reason=reason)
        simulation.settle()

    return scenario


def is_deleted(simulation: Simulation) -> None:
    copying(simulation)
    (job,) = simulation.objects.all("Job")
    simulation.objects.delete(job)
    simulation.settle()


def fails_without_a_pod(simulation: Simulation) -> None:
    copying(simulation)
    for pod in simulation.objects.all("Pod"):
        simulation.objects.delete(pod)
    (job,) = simulation.objects.all("Job")
    simulation.objects.update(job, status={"conditions": [{"type": "Failed", "status": "True", "message": "too old"}]})
    simulation.settle()


def changes_its_job(**spec: Any) -> Scenario:
    """Let another controller change the mover's Job while it runs."""

    def scenario(simulation: Simulation) -> None:
        copying(simulation)
        (job,) = simulation.objects.all("Job")
        simulation.objects.update(job, spec=job["spec"] | spec)
        for _ in range(20):
            simulation.step()

    return scenario


def waits_for_a_temporary_volume(simulation: Simulation) -> None:
    simulation.cluster.no_volume = "no space left"
    simulation.backup("full", "data")
    simulation.settle()


def keeps_not_all(simulation: Simulation) -> None:
    copying(simulation)
    (pod,) = simulation.objects.all("Pod")
    report = simulation.cluster.work(pod)
    simulation.end_mover(report.model_copy(update={"warnings": ["2 sockets were skipped."]}), 0)
    simulation.settle()


def finds_what_stamps_hid(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.cluster.found = Comparison(dirty_window_seconds=3600, compared=True, missed_changes=2)
    simulation.backup("child", "data", incremental=True)
    simulation.settle()


USUAL = Sizes(logical=10 << 30, transferred=100 << 20, packs=30 << 20)
ENCRYPTED = replace(USUAL, transferred=5 << 30, packs=5 << 30)


def finds(sizes: Sizes) -> Scenario:
    """Make a full backup and six incremental ones, and then one with other numbers."""

    def scenario(simulation: Simulation) -> None:
        simulation.cluster.sizes = USUAL
        for number in range(8):
            simulation.cluster.sizes = sizes if number == 7 else USUAL
            simulation.backup(f"backup-{number}", "data", incremental=number > 0)
            simulation.settle()

    return scenario


def accepts_an_alarm(simulation: Simulation) -> None:
    finds(ENCRYPTED)(simulation)
    odd = simulation.get("VolumeBackup", "backup-7")
    annotations = {labels.ACCEPT_ANNOTATION: odd["metadata"]["uid"]}
    simulation.objects.update(odd, metadata=odd["metadata"] | {"annotations": annotations})
    simulation.settle()


def loses_an_earlier_status(simulation: Simulation) -> None:
    a_backup(simulation)
    simulation.encrypt(key_ring())
    simulation.erase_status("VolumeBackup", "full")
    simulation.settle()
    simulation.backup("later", "data")
    simulation.settle()


def cannot_read_all(simulation: Simulation) -> None:
    simulation.cluster.unreadable = UnreadableRecord(files=2, examples=["broken", "closed/"])
    a_backup(simulation, unreadable="Skip")


def bucket_has(*rules: LifecycleRule, **bucket: Any) -> Scenario:
    """Keep backups in a bucket with these rules, and delete one."""

    def scenario(simulation: Simulation) -> None:
        store = BucketStore(Bucket(lambda: simulation.now, **bucket))
        store.kept.rules = rules
        simulation.cluster.store = store
        deletes(simulation)

    return scenario


def verifies(*, parts: int = 1, damage: bool = False) -> Scenario:
    """Verify a backup, of which a pack may be damaged."""

    def scenario(simulation: Simulation) -> None:
        a_backup(simulation)
        if damage:
            simulation.damage_pack("full")
        simulation.verify("proof", "Data", volumeId="data", data={"parts": parts})
        simulation.settle()

    return scenario


CHECK_CONTAINER = {"name": "check", "image": "example/check:1"}


def drills(
    *, code: int = 0, cron_job: bool = True, suspend: bool = True, old: bool = False, gone: bool = False
) -> Scenario:
    """Restore a backup to a scratch volume, and check it."""

    def scenario(simulation: Simulation) -> None:
        a_backup(simulation)
        simulation.cluster.check.program = lambda _content: code
        template = {"spec": {"template": {"spec": {"containers": [CHECK_CONTAINER]}}}}
        if cron_job:
            metadata = {"name": "check", "namespace": NAMESPACE}
            body = {"metadata": metadata, "spec": {"suspend": suspend, "jobTemplate": template}}
            simulation.make("CronJob", body)
        rule = {"check": {"cronJobName": "check"}, "timeout": "10m"} | ({"maxDataAge": "1s"} if old else {})
        simulation.advance(60)
        made = simulation.verify("drill", "Restore", volumeId="data", restore=rule)
        if gone:
            simulation.until("BackupVerification", "drill", "CheckRunning")
            simulation.delete("Job", labels.child_name(made["metadata"]["uid"]))
        simulation.settle()

    return scenario


def checks_for_too_long(simulation: Simulation) -> None:
    simulation.cluster.check.hangs = True
    drills()(simulation)


def server_knows_no_rules(simulation: Simulation) -> None:
    store = BucketStore(Bucket(lambda: simulation.now))
    refusal = PermanentError("the server does not support it", reason="NotSupported")
    store.kept.errors = dict.fromkeys(("versioning", "object_lock", "lifecycle"), refusal)
    simulation.cluster.store = store
    a_backup(simulation)


RETENTION = ("COMPLIANCE", timedelta(days=7))


def has_a_privileged_store(simulation: Simulation) -> None:
    store = simulation.get("BackupStore", "default")
    mover = {"securityContext": {"privileged": True}}
    simulation.objects.update(store, spec=store["spec"] | {"mover": mover})
    a_backup(simulation)


def has_a_read_only_store(simulation: Simulation) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"access": "ReadOnly"})
    a_backup(simulation)


def asks_for_locks_in_a_plain_bucket(simulation: Simulation) -> None:
    simulation.cluster.store = BucketStore(Bucket(lambda: simulation.now))
    store = simulation.get("BackupStore", "default")
    lock = {"mode": "COMPLIANCE", "period": "30d"}
    simulation.objects.update(store, spec=store["spec"] | {"objectLock": lock})
    a_backup(simulation)


SCENARIOS: dict[str, Scenario] = {
    "ObjectLockUnavailable": asks_for_locks_in_a_plain_bucket,
    "LockNotExtended": mover_says("LockNotExtended"),
    "Accepted": accepts_and_ends,
    "AccessDenied": store_says(errors.AccessDenied("the key is refused")),
    "Answers": accepts_and_ends,
    "Available": accepts_and_ends,
    "BackupInUse": deletes_while_it_is_restored,
    "BackupNotAvailable": restores_a_failed_one,
    "BackupNotFound": restores_nothing,
    "BackupsArchived": bucket_has(LifecycleRule("cold", archives="to GLACIER 30 days after they were written")),
    "BackupsExpire": bucket_has(LifecycleRule("old", expires="90 days after they were written")),
    "DefaultRetention": bucket_has(versioning="Enabled", has_lock=True, default=RETENTION),
    "Hidden": bucket_has(versioning="Enabled"),
    "NoHarmfulRule": accepts_and_ends,
    "NotGranted": mover_says("NotGranted"),
    "StoreReadOnly": has_a_read_only_store,
    "StorageClassUnknown": bucket_has(LifecycleRule("cold", moves="to ColdArchive 30 days after they were written")),
    "NoObjectLock": accepts_and_ends,
    "NotSupported": server_knows_no_rules,
    "ObjectLockEnabled": bucket_has(versioning="Enabled", has_lock=True),
    "Unversioned": accepts_and_ends,
    "Verified": verifies(),
    "Damaged": verifies(damage=True),
    "NotAllRead": verifies(parts=7),
    "DataTooOld": drills(old=True),
    "DrillRestoring": drills(),
    "CheckPending": drills(),
    "CheckRunning": drills(),
    "CheckFailed": drills(code=1),
    "CheckInterrupted": drills(gone=True),
    "CheckNotFound": drills(cron_job=False),
    "CheckNotPermitted": drills(suspend=False),
    "TimedOut": checks_for_too_long,
    "VersionsExpire": bucket_has(LifecycleRule("versions", version_days=7), versioning="Enabled"),
    "VersionsKept": bucket_has(versioning="Enabled"),
    "Empty": finds(Sizes(0, 0, 0)),
    "Incompressible": finds(ENCRYPTED),
    "Shrunk": finds(replace(USUAL, logical=4 << 30)),
    "FewerEntries": finds(replace(USUAL, entries=400)),
    "ManyChanges": finds(replace(USUAL, transferred=5 << 30, packs=1 << 20)),
    "AlarmAccepted": accepts_an_alarm,
    "AlarmUnknown": loses_an_earlier_status,
    "ChangeMissed": finds_what_stamps_hid,
    "Cancelled": cancels_a_restore,
    "Cancelling": cancels_a_restore,
    "CertificateNotTrusted": store_says(PermanentError("of an unknown authority", reason="CertificateNotTrusted")),
    "ChildrenRemain": deletes_with_a_child_that_hangs,
    "ClaimNotBound": waits_for_a_temporary_volume,
    "Conflict": mover_says("Conflict"),
    "Archived": store_says(errors.ObjectArchived("the object is in an archive")),
    "ClockSkewed": store_says(errors.ClockSkewed("the clocks differ")),
    "CredentialsExpired": store_says(errors.CredentialsExpired("the session token has expired")),
    "Locked": bucket_has(has_lock=True, default=RETENTION),
    "StoreTooSlow": store_says(errors.StoreTooSlow("the call took too long")),
    "Throttled": store_says(errors.StoreThrottled("slow down")),
    "TooLarge": store_says(errors.TooLarge("the answer is too long")),
    "WrongRegion": store_says(errors.WrongRegion("another region")),
    "ContainerNotFound": store_says(ContainerNotFound("there is no container")),
    "DataLeft": leaves_data,
    "Deleted": deletes,
    "DeletingData": deletes,
    "Expired": expires,
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
    "LimitRangeViolated": api_says(403, "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"),
    "ManifestMisplaced": adopts("0f8fad5b-d9cb-469f-a165-70867728950e", manifest="elsewhere/of.manifest"),
    "ManifestReplaced": is_rolled_back,
    "ManifestMissing": finds_no_manifest,
    "MoverDeleted": is_deleted,
    "MoverDied": dies("Error"),
    "MoverFailed": fails_without_a_pod,
    "MoverNotPermitted": has_a_privileged_store,
    "MoverOutOfMemory": dies("OOMKilled"),
    "MoverPending": accepts_and_ends,
    "MoverRefused": changes_its_job(managedBy="kueue.x-k8s.io/multikueue"),
    "MoverRetrying": is_retried,
    "MoverRunning": accepts_and_ends,
    "MoverStalled": stalls,
    "MoverStarted": accepts_and_ends,
    "MoverStarting": starts_slowly,
    "MoverSuspended": changes_its_job(suspend=True),
    "MoverUnschedulable": pod_waits(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),
    "NameTaken": finds_a_strangers_claim,
    "NamespaceTerminating": api_says(403, "unable to create new content because it is being terminated"),
    "NoParent": lambda simulation: a_backup(simulation, incremental=True),
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
    "Rebinding": lambda simulation: restored(simulation, name="new"),
    "Recalling": loses_the_status_while_the_store_is_away,
    "ReferencesUnknown": deletes_beside_a_damaged_one,
    "Restored": lambda simulation: restored(simulation, name="new"),
    "Retained": retains,
    "SealBroken": loses_the_seal,
    "SealedTooLate": marks_its_key_too_early,
    "SecretIncomplete": store_says(NotFound("Secret s3 has no such key", reason="SecretIncomplete")),
    "SecretNotFound": store_says(NotFound("Secret s3 does not exist", reason="SecretNotFound")),
    "SnapshotClassNotFound": is_in_use_without_snapshots,
    "SnapshotMismatch": backs_up_another_volumes_snapshot,
    "SnapshotNotAvailable": backs_up_a_broken_snapshot,
    "SnapshotNotFound": lambda simulation: a_backup(simulation, snapshotId="nowhere"),
    "SnapshotNotReady": accepts_and_ends,
    "SnapshotRequested": accepts_and_ends,
    "SourceChanging": mover_says("SourceChanging"),
    "SourceError": mover_says("SourceError"),
    "StatusLost": loses_the_status_of_a_restore,
    "StoppingMover": deletes_while_copying,
    "StorageClassNotFound": lambda simulation: restored(simulation, name="new", storageClassName="nowhere"),
    "StoreBeingDeleted": asks_a_store_that_goes,
    "EndpointNotAllowed": store_says(PermanentError("not allowed", reason="EndpointNotAllowed")),
    "StoreFull": store_says(PermanentError("no room left", reason="StoreFull")),
    "StoreNotFound": lambda simulation: a_backup(simulation, storeName="nowhere"),
    "StoreRefuses": store_says(PermanentError("the request is refused", reason="StoreRefuses")),
    "StoreUnreachable": store_says(StoreUnreachable("no answer")),
    "TargetError": mover_says("TargetError"),
    "Terminated": mover_says("Terminated"),
    "Unauthorized": api_says(401, "Unauthorized"),
    "TooManyObjects": has_too_many_objects,
    "Unexpected": mover_says("Unexpected"),
    "UnsupportedFormat": mover_says("UnsupportedFormat"),
    "VolumeAbandoned": tears_a_restore_away,
    "VolumeBusy": waits_for_the_volume,
    "VolumeInUse": is_in_use,
    "VolumeKept": tears_a_restore_away_whose_claim_has_been,
    "VolumeLost": lambda simulation: claim_in(simulation, phase="Lost"),
    "VolumeModeMismatch": restores_into_a_device,
    "VolumeNotAvailable": restores_into_a_pod,
    "VolumeNotBound": waits_for_a_claim,
    "VolumeNotFound": restores_a_failed_one,
    "VolumeStillAttached": waits_for_a_detachment,
    "VolumeTooSmall": lambda simulation: restored(simulation, name="new", size="1Mi"),
}


@pytest.mark.parametrize("reason", SCENARIOS)
def test_reason_is_reached(reason: str) -> None:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        SCENARIOS[reason](simulation)
        assert reason in simulation.reasons, simulation.story()


def test_every_reason_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(Reason) - NOT_REACHED.keys()


@pytest.mark.parametrize(("reason", "room"), ROOMS.items(), ids=ROOMS.keys())
def test_external_reasons_are_tested_in_their_rooms(reason: Reason, room: str) -> None:
    folders = [TESTS / "contract", TESTS / "unit" / room]
    words = {word for folder in folders for path in folder.glob("test_*.py") for word in _words(path)}
    assert words & {reason.value, reason.name}


@cache
def _words(path: Path) -> frozenset[str]:
    """Return the names, attributes and strings in the source of a module, which is parsed once for all reasons."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(names | attributes | texts)
