"""BackupVerifications in the simulated cluster: what they choose, start, find and record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.mover import MoverReport, MoverTask, VerifyReport
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle.observed import OperatorPolicy
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import POLICY, Simulation, summary
from tests.support.simulation.verification import part_of

KIND = "BackupVerification"


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "first")
        yield simulation


def chain(simulation: Simulation, *names: str) -> None:
    """Make a full backup and incremental ones."""
    for number, name in enumerate(names):
        simulation.backup(name, "data", incremental=number > 0)
        simulation.settle()


def verify(simulation: Simulation, name: str, level: str = "Data", /, **spec: Any) -> Object:
    """Verify, and return the status at the end."""
    simulation.verify(name, level, **(spec or {"volumeId": "data"}))
    simulation.settle()
    status: Object = simulation.get(KIND, name)["status"]
    return status


def known(simulation: Simulation, backup: str) -> Object:
    found: Object = simulation.get("VolumeBackup", backup)["status"].get("verification", {})
    return found


def condition(simulation: Simulation, backup: str) -> tuple[str, str] | None:
    conditions = simulation.get("VolumeBackup", backup)["status"]["conditions"]
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == "Verified"), None)


def task_of_mover(simulation: Simulation, kind: str = KIND) -> MoverTask:
    (job,) = (j for j in simulation.objects.all("Job") if j["metadata"]["ownerReferences"][0]["kind"] == kind)
    (variable,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return MoverTask.model_validate_json(variable["value"])


# The choice


def test_newest_available_backup_of_a_volume_is_chosen(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    status = verify(simulation, "proof", "Structure")
    assert (status["phase"], status["backupName"], status["packsVerified"]) == ("verified", "new", 2)
    assert known(simulation, "new")["level"] == "Structure"
    assert not known(simulation, "old")


@pytest.mark.parametrize("way", ["name", "uid"])
def test_backup_can_be_named(simulation: Simulation, way: str) -> None:
    chain(simulation, "old", "new")
    uid = simulation.get("VolumeBackup", "old")["metadata"]["uid"]
    assert verify(simulation, "proof", backupId="old" if way == "name" else uid)["backupName"] == "old"


def test_backups_of_a_volume_that_is_gone_are_verified(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    assert verify(simulation, "by-name")["phase"] == "verified"
    volume = simulation.get("VolumeBackup", "full")["status"]["volumeId"]
    assert verify(simulation, "by-uid", volumeId=volume)["phase"] == "verified"


def test_choice_is_recorded_before_anything_is_created(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "Accepted")
    status = simulation.get(KIND, "proof")["status"]
    assert (status["backupName"], status["part"], status["phase"]) == ("full", 1, "verifying")
    assert not simulation.objects.all("Job")


def test_mover_has_no_volume_and_no_privileges(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.verify("proof", "Data", volumeId="data", data={"parts": 3, "maxBytes": 7, "maxDuration": "2m"})
    simulation.until(KIND, "proof", "MoverRunning")
    (job,) = simulation.objects.all("Job")
    pod = job["spec"]["template"]["spec"]
    assert not [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    context = pod["containers"][0]["securityContext"]
    assert (context["runAsNonRoot"], context["capabilities"]) == (True, {"drop": ["ALL"]})
    task = task_of_mover(simulation)
    assert task.verify is not None
    assert (task.verify.parts, task.verify.max_bytes, task.verify.max_seconds) == (3, 7, 120)
    assert task.manifest == simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    assert task.expected is not None
    assert task.expected.pins is not None, "the mover must refuse another manifest"


@pytest.mark.parametrize(
    ("level", "spec", "reason"),
    [
        ("Data", {"backupId": "none"}, "BackupNotFound"),
        ("Data", {"volumeId": "empty"}, "BackupNotFound"),
        ("Data", {"backupId": "failed"}, "BackupNotAvailable"),
    ],
)
def test_impossible_verification_ends_in_error(simulation: Simulation, level: str, spec: Object, reason: str) -> None:
    simulation.claim("empty", "")
    chain(simulation, "full")
    simulation.backup("failed", "nowhere")
    simulation.settle()
    assert verify(simulation, "proof", level, **spec)["phase"] == "error"
    assert simulation.reason(KIND, "proof") == reason
    assert not simulation.objects.all("Job")


def test_overfull_namespace_begins_no_verification() -> None:
    with Simulation(policy=replace(POLICY, object_limit=2)) as simulation:
        simulation.claim("data", "first")
        chain(simulation, "full")
        simulation.verify("first", "Data", volumeId="data")
        simulation.until(KIND, "first", "MoverRunning")
        for name in ("second", "third"):
            simulation.verify(name, "Data", volumeId="data")
        simulation.until(KIND, "third", "TooManyObjects")
        simulation.delete(KIND, "second")
        simulation.settle()
        assert {simulation.phase(KIND, name) for name in ("first", "third")} == {"verified"}


# Findings


def test_flipped_byte_is_found_and_named(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    key = simulation.damage_pack("old")
    assert verify(simulation, "structure", "Structure")["phase"] == "verified"
    status = verify(simulation, "data")
    assert (status["phase"], status["objects"], status["damagedObjects"]) == ("damaged", [key], 1)
    assert key in status["failReason"]
    for backup in ("old", "new"):
        assert (known(simulation, backup)["result"], known(simulation, backup)["objects"]) == ("Damaged", [key])
        assert condition(simulation, backup) == ("False", "Damaged")
        assert simulation.phase("VolumeBackup", backup) == "available", "the rest can still be restored"
    assert [reason for reason, _ in simulation.events()].count("Damaged") == 3


@pytest.mark.parametrize("level", ["Structure", "Data"])
def test_lost_manifest_is_a_damage_of_its_backup(simulation: Simulation, level: str) -> None:
    """The mover finds no manifest. The VolumeBackup is still there, so nobody has deleted the backup."""
    chain(simulation, "old", "new")
    key = simulation.get("VolumeBackup", "new")["status"]["manifestKey"]
    simulation.cluster.store.delete([key])
    status = verify(simulation, "proof", level)
    assert (status["phase"], status["objects"]) == ("damaged", [key])
    assert condition(simulation, "new") == ("False", "Damaged")
    [shown] = [c for c in simulation.get("VolumeBackup", "new")["status"]["conditions"] if c["type"] == "Verified"]
    assert shown["message"].startswith(f"Its manifest {key} is damaged or missing")
    assert "keep this one" not in shown["message"]
    assert not known(simulation, "old")
    simulation.backup("next", "data", incremental=True)
    simulation.settle()
    old = simulation.get("VolumeBackup", "old")["metadata"]["uid"]
    assert simulation.get("VolumeBackup", "next")["status"]["parentId"] == old


def test_missing_pack_is_found_by_structure(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    simulation.damage_pack("old", None)
    assert verify(simulation, "proof", "Structure")["phase"] == "damaged"
    assert condition(simulation, "old") == condition(simulation, "new") == ("False", "Damaged")


def test_backup_is_verified_when_every_part_was_read(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    parts = []
    for number in range(3):
        assert condition(simulation, "new") == (("Unknown", "NotAllRead") if number else None)
        parts.append(verify(simulation, f"proof-{number}", volumeId="data", data={"parts": 3})["part"])
    assert sorted(parts) == [1, 2, 3]
    assert [part % 3 + 1 for part in parts[:2]] == parts[1:], "parts follow one another"
    assert condition(simulation, "new") == ("True", "Verified")
    assert known(simulation, "new")["coverage"] == known(simulation, "old")["coverage"] == 100
    assert not simulation.objects.all("Job")


def test_part_is_remembered_without_old_verifications(simulation: Simulation) -> None:
    chain(simulation, "full")
    parts = []
    for number in range(4):
        parts.append(verify(simulation, "proof", volumeId="data", data={"parts": 4})["part"])
        simulation.delete(KIND, "proof")
        simulation.advance(number * 86_400)
    assert sorted(parts) == [1, 2, 3, 4]


def test_part_is_remembered_when_all_backups_are_replaced(simulation: Simulation) -> None:
    parts = []
    for number in range(3):
        chain(simulation, f"backup-{number}")
        parts.append(verify(simulation, f"proof-{number}", volumeId="data", data={"parts": 3})["part"])
        simulation.delete("VolumeBackup", f"backup-{number}")
        simulation.settle()
    assert sorted(parts) == [1, 2, 3]


def test_flipped_byte_is_found_within_one_round_of_parts(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    key = simulation.damage_pack("old")
    found = []
    for number in range(5):
        status = verify(simulation, f"proof-{number}", volumeId="data", data={"parts": 5})
        found += [status["part"]] if status["phase"] == "damaged" else []
    assert found == [part_of(key, 5)]


def test_backup_made_during_a_verification_is_not_covered(simulation: Simulation) -> None:
    chain(simulation, "old")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "Accepted")
    simulation.advance(2)
    simulation.backup("new", "data")
    simulation.settle()
    assert known(simulation, "old")["result"] == "Verified"
    assert not known(simulation, "new")


def test_lost_status_of_a_backup_is_read_again(simulation: Simulation) -> None:
    chain(simulation, "full")
    verify(simulation, "first")
    simulation.erase_status("VolumeBackup", "full")
    simulation.settle()
    assert not known(simulation, "full")
    assert condition(simulation, "full") is None
    verify(simulation, "second")
    assert condition(simulation, "full") == ("True", "Verified")


def test_status_of_a_backup_is_not_written_each_time(simulation: Simulation) -> None:
    chain(simulation, "full")
    verify(simulation, "first")
    before = len([call for call in simulation.faults.log if call.kind.kind == "VolumeBackup"])
    verify(simulation, "second")
    writes = [call for call in simulation.faults.log if call.kind.kind == "VolumeBackup"][before:]
    assert len(writes) == 1, "the time of the verification, and nothing else"


# Errors


@pytest.mark.parametrize("reason", ["StoreUnreachable", "KeyUnavailable", "IntegrityError"])
def test_failed_mover_claims_no_damage(simulation: Simulation, reason: str) -> None:
    chain(simulation, "full")
    verify(simulation, "good")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "MoverRunning")
    simulation.end_mover(MoverReport(succeeded=False, permanent=True, reason=reason, message="no answer"))
    simulation.settle()
    assert (simulation.phase(KIND, "proof"), simulation.reason(KIND, "proof")) == ("error", reason)
    assert condition(simulation, "full") == ("True", "Verified")


def test_mover_without_findings_is_an_error(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "MoverRunning")
    simulation.end_mover(MoverReport(succeeded=True), code=0)
    simulation.settle()
    assert (simulation.phase(KIND, "proof"), simulation.reason(KIND, "proof")) == ("error", "MoverFailed")
    assert not known(simulation, "full")


def test_silent_store_is_waited_for_and_then_an_error(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.store.error = StoreUnreachable("no route to host")
    assert verify(simulation, "proof")["phase"] == "error"
    assert not known(simulation, "full")


# Deletions during a verification


@pytest.mark.parametrize("expires", [False, True])
def test_deleted_backup_is_not_damaged(simulation: Simulation, *, expires: bool) -> None:
    """The mover finds no manifest, because the backup was deleted while it looked."""
    chain(simulation, "old", "new")
    simulation.verify("proof", "Data", backupId="new")
    simulation.until(KIND, "proof", "MoverRunning")
    if expires:
        simulation.expire("new")
    else:
        simulation.delete("VolumeBackup", "new")
    while simulation.exists("VolumeBackup", "new"):
        simulation.reconcile(simulation.due()[0]) if simulation.due() else simulation.advance(5)
    simulation.settle()
    assert (simulation.phase(KIND, "proof"), simulation.reason(KIND, "proof")) == ("error", "BackupNotFound")
    assert known(simulation, "old").get("result") != "Damaged"


def test_damage_of_a_backup_in_deletion_is_not_claimed(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    simulation.verify("proof", "Data", backupId="new")
    simulation.until(KIND, "proof", "MoverRunning")
    old = simulation.get("VolumeBackup", "old")["metadata"]["uid"]
    simulation.objects.update(
        simulation.get("VolumeBackup", "old"),
        metadata=simulation.get("VolumeBackup", "old")["metadata"] | {"finalizers": [labels.BACKUP_FINALIZER, "held"]},
    )
    simulation.delete("VolumeBackup", "old")
    found = VerifyReport(damaged=["packs/v/x/1"], damaged_count=1, affected=[old], affected_count=1)
    simulation.end_mover(MoverReport(succeeded=True, verification=found), code=0)
    for _ in range(40):
        simulation.step()
    assert simulation.phase(KIND, "proof") == "verified"
    assert known(simulation, "new")["result"] == "Verified"


# Movers


def test_backups_do_not_wait_for_verifications() -> None:
    policy = OperatorPolicy(replace(POLICY.mover, limit=1, namespace_limit=1))
    with Simulation(policy=policy) as simulation:
        simulation.claim("data", "first")
        chain(simulation, "full")
        simulation.verify("proof", "Data", volumeId="data")
        simulation.until(KIND, "proof", "MoverRunning")
        uid = simulation.get(KIND, "proof")["metadata"]["uid"]
        simulation.backup("next", "data", incremental=True)
        for _ in range(200):
            moves = [m for m in simulation.cluster.moves() if not m.is_bad and uid not in m.name]
            if simulation.due():
                simulation.reconcile(simulation.due()[0])
            elif moves:
                simulation.move(moves[0])
            else:
                simulation.advance(1)
        assert simulation.phase("VolumeBackup", "next") == "available", simulation.story()
        assert simulation.reason(KIND, "proof") == "MoverRunning"
        simulation.settle()
        assert simulation.phase(KIND, "proof") == "verified"


def test_verification_waits_for_backups() -> None:
    policy = OperatorPolicy(replace(POLICY.mover, limit=1, namespace_limit=1))
    with Simulation(policy=policy) as simulation:
        simulation.claim("data", "first")
        simulation.claim("more", "first")
        chain(simulation, "full")
        simulation.backup("one", "data")
        simulation.until("VolumeBackup", "one", "MoverRunning")
        simulation.verify("proof", "Data", volumeId="data")
        simulation.until(KIND, "proof", "Queued")
        simulation.backup("two", "more")
        simulation.until("VolumeBackup", "two", "MoverRunning")
        assert simulation.reason(KIND, "proof") == "Queued", "it lets younger backups go first"
        simulation.settle()
        assert simulation.phase(KIND, "proof") == "verified"


def test_one_verification_at_a_time_uses_a_store(simulation: Simulation) -> None:
    chain(simulation, "full")
    for number in range(3):
        simulation.verify(f"proof-{number}", "Data", volumeId="data")
        simulation.advance(1)
    for _ in range(400):
        simulation.step()
        assert len([job for job in simulation.objects.all("Job") if "status" not in job]) <= 1, simulation.story()
    assert {simulation.phase(KIND, f"proof-{number}") for number in range(3)} == {"verified"}


def test_new_leader_counts_running_verifications_apart(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "MoverRunning")
    assert simulation.movers_of_a_new_leader() == [], "they use up no slot of a backup"
    simulation.restart()
    simulation.verify("other", "Data", volumeId="data")
    simulation.until(KIND, "other", "Queued")
    simulation.settle()


def test_mover_that_fails_for_now_is_tried_again(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "MoverRunning")
    simulation.end_mover(MoverReport(succeeded=False, reason="StoreUnreachable", message="away"), code=4)
    simulation.settle()
    assert simulation.phase(KIND, "proof") == "verified"


def test_suspended_mover_waits_for_its_queue(simulation: Simulation) -> None:
    chain(simulation, "full")
    simulation.cluster.gates = True
    simulation.verify("proof", "Data", volumeId="data")
    simulation.until(KIND, "proof", "MoverSuspended")
    simulation.cluster.gates = False
    simulation.settle()
    assert simulation.phase(KIND, "proof") == "verified"


# Forged objects


def test_copied_status_is_ignored(simulation: Simulation) -> None:
    chain(simulation, "full")
    original = verify(simulation, "original")
    copy = simulation.verify("copy", "Data", volumeId="data")
    simulation.objects.update(copy, status=original)
    simulation.settle()
    status = simulation.get(KIND, "copy")["status"]
    assert status["id"] == simulation.get(KIND, "copy")["metadata"]["uid"] != original["id"]
    assert status["startedAt"] != original["startedAt"], "it has verified by itself"


def test_summary_of_another_backup_is_ignored(simulation: Simulation) -> None:
    chain(simulation, "full")
    verify(simulation, "proof")
    simulation.backup("copy", "data")
    simulation.settle()
    copied = simulation.get("VolumeBackup", "full")["status"]
    simulation.objects.update(simulation.get("VolumeBackup", "copy"), status=copied)
    simulation.settle()
    assert condition(simulation, "copy") is None


def test_forged_mover_reports_nothing(simulation: Simulation) -> None:
    """Anybody may create a Job with the name, the owner and the labels of a mover, and pods that report anything."""
    chain(simulation, "full")
    simulation.damage_pack("full")
    made = simulation.verify("proof", "Data", volumeId="data")
    uid = made["metadata"]["uid"]
    owner = {"apiVersion": "cinderblock.io/v1alpha1", "kind": KIND, "name": "proof", "uid": uid}
    marks = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY, labels.OWNER_UID_LABEL: uid, labels.OWNER_KIND_LABEL: KIND}
    metadata = {"name": labels.child_name(uid), "namespace": NAMESPACE, "labels": marks, "ownerReferences": [owner]}
    simulation.make("Job", {"metadata": metadata, "spec": {}})
    said = MoverReport(succeeded=True, verification=VerifyReport(packs_verified=99)).model_dump_json(by_alias=True)
    ended = {"exitCode": 0, "message": said, "reason": "Completed", "finishedAt": "2026-05-04T12:00:00Z"}
    state = {"phase": "Succeeded", "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}]}
    pod = {"name": "liar", "namespace": NAMESPACE, "labels": marks}
    simulation.make("Pod", {"metadata": pod, "spec": {"volumes": []}, "status": state})
    simulation.settle()
    assert simulation.phase(KIND, "proof") == "damaged"


# What damage means for the next backups


def test_damaged_backup_is_no_parent(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    simulation.damage_pack("new")
    verify(simulation, "proof")
    simulation.backup("next", "data", incremental=True)
    simulation.settle()
    old = simulation.get("VolumeBackup", "old")["metadata"]["uid"]
    assert simulation.get("VolumeBackup", "next")["status"]["parentId"] == old


def test_backup_is_full_if_all_possible_parents_are_damaged(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    simulation.damage_pack("old")
    verify(simulation, "proof")
    simulation.backup("next", "data", incremental=True)
    simulation.settle()
    status = simulation.get("VolumeBackup", "next")["status"]
    assert (status["phase"], status["isIncremental"]) == ("available", False)
    simulation.backup("after", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "after")["status"]["parentId"] == status["id"]


def test_known_damaged_packs_are_avoided(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    key = simulation.damage_pack("new")
    verify(simulation, "proof")
    simulation.backup("next", "data", incremental=True)
    simulation.until("VolumeBackup", "next", "MoverRunning")
    assert task_of_mover(simulation, "VolumeBackup").avoid_packs == [key]


def test_volume_with_very_many_backups_gets_the_same_parent(simulation: Simulation) -> None:
    """With more than a hundred backups, only those are read that matter."""
    chain(simulation, "old", "new")
    simulation.damage_pack("old")
    verify(simulation, "proof")
    for number in range(110):
        simulation.backup(f"failed-{number}", "nowhere")
    simulation.settle()
    simulation.backup("next", "data", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "next")["status"]["isIncremental"] is False


# Metrics


def test_metrics_show_damage_and_verifications(simulation: Simulation) -> None:
    chain(simulation, "old", "new")
    verify(simulation, "proof")
    volume = {"volume": "data", "volume_namespace": NAMESPACE}
    at = simulation.metrics().value("volume_last_verified_timestamp_seconds", **volume)
    assert at is not None
    assert 0 < simulation.now.timestamp() - at < 3600
    simulation.damage_pack("new")
    verify(simulation, "again")
    figures = simulation.metrics()
    assert figures.value("backups_damaged", volume_namespace=NAMESPACE) == 1
    assert figures.value("objects", kind=KIND, phase="damaged") == 1
    assert figures.value("operation_duration_seconds_count", operation="verification", result="success") == 2


def test_very_many_backups_are_recorded_in_several_steps(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinderblock.controller.verifications.findings.MAX_CHANGES", 2)
    names = [f"backup-{number}" for number in range(7)]
    chain(simulation, *names)
    verify(simulation, "proof")
    assert {known(simulation, name)["coverage"] for name in names} == {100}
    assert summary(simulation)["children"] == []
