"""Level Restore in the simulated cluster: it proves what it says, catches every mutation, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.labels import VERIFICATION_FINALIZER
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import KEPT, LATE, NAMESPACE
from tests.support.simulation.moments import Moments, some_or_all_moments
from tests.support.simulation.simulation import Simulation, summary
from tests.support.simulation.write_faults import FAULTS, run_scenario
from tests.support.store.faults import Crash

KIND = "BackupVerification"
CHECK = {"check": {"cronJobName": "check"}}


def add_check(simulation: Simulation, *, suspend: bool = True, **pod: Any) -> Object:
    """Create the CronJob of a check."""
    container = {"name": "check", "image": "example/check:1", "command": ["sh", "-c", "test -s /restored/today"]}
    spec = {"serviceAccountName": "checker", "restartPolicy": "OnFailure", "containers": [container], **pod}
    template = {"metadata": {"labels": {"app": "check"}}, "spec": spec}
    job = {"backoffLimit": 6, "ttlSecondsAfterFinished": 1, "template": template}
    body = {"schedule": "0 0 1 1 *", "suspend": suspend, "jobTemplate": {"spec": job}}
    return simulation.make("CronJob", {"metadata": {"name": "check", "namespace": NAMESPACE}, "spec": body})


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.claim("data", "today")
        simulation.backup("full", "data")
        simulation.settle()
        add_check(simulation)
        simulation.cluster.check.program = lambda content: 0 if content == "today" else 1
        yield simulation


def drill(simulation: Simulation, name: str = "drill", /, **rule: Any) -> Object:
    """Run a drill, and return the status at the end."""
    simulation.verify(name, "Restore", volumeId="data", restore=CHECK | rule)
    simulation.settle()
    status: Object = simulation.get(KIND, name)["status"]
    return status


def reason(status: Object) -> str:
    return str(status["conditions"][0]["reason"])


def known(simulation: Simulation, backup: str = "full") -> Object:
    found: Object = simulation.get("VolumeBackup", backup)["status"].get("verification", {})
    return found


def left_over(simulation: Simulation) -> list[str]:
    """Return what a drill has left behind: anything besides the user's claim and its volume."""
    kinds = ("Job", "Pod", "VolumeRestore", "PersistentVolumeClaim", "PersistentVolume")
    found = [f"{kind} {item['metadata']['name']}" for kind in kinds for item in simulation.objects.all(kind)]
    volume = simulation.get("PersistentVolumeClaim", "data")["spec"]["volumeName"]
    return [name for name in found if name not in ("PersistentVolumeClaim data", f"PersistentVolume {volume}")]


def packs(simulation: Simulation) -> list[str]:
    return [key for key in simulation.stored() if key.startswith("packs/")]


# What it proves


def test_drill_restores_and_checks_the_newest_backup(simulation: Simulation) -> None:
    status = drill(simulation)
    assert (status["phase"], status["backupName"], status["checkExitCode"]) == ("verified", "full", 0)
    assert status["restoredBytes"] == 5
    assert status["restoreDuration"]
    assert "mover" not in status
    assert (known(simulation)["result"], known(simulation)["level"]) == ("Verified", "Restore")
    assert simulation.cluster.check.mounts == [True], "the restored volume must be read-only in every container"
    assert left_over(simulation) == []
    assert VERIFICATION_FINALIZER not in simulation.get(KIND, "drill")["metadata"].get("finalizers", ())


def test_drill_without_a_check_proves_the_restore(simulation: Simulation) -> None:
    simulation.verify("drill", "Restore", volumeId="data")
    simulation.settle()
    status = simulation.get(KIND, "drill")["status"]
    assert (status["phase"], "checkExitCode" in status) == ("verified", False)
    assert known(simulation)["result"] == "Verified"
    assert left_over(simulation) == []


@pytest.mark.parametrize("storage_class", [KEPT, LATE])
def test_volume_of_any_class_is_removed(simulation: Simulation, storage_class: str) -> None:
    assert drill(simulation, storageClassName=storage_class)["phase"] == "verified"
    assert left_over(simulation) == []


def test_check_is_made_from_the_template_and_nothing_else(simulation: Simulation) -> None:
    simulation.verify("drill", "Restore", volumeId="data", restore=CHECK | {"timeout": "1h"})
    simulation.until(KIND, "drill", "CheckRunning")
    (job,) = (j for j in simulation.objects.all("Job") if j["metadata"]["ownerReferences"][0]["kind"] == KIND)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert set(spec) == {"backoffLimit", "activeDeadlineSeconds", "template"}
    assert (spec["backoffLimit"], pod["restartPolicy"], pod["automountServiceAccountToken"]) == (0, "Never", False)
    assert 3000 < spec["activeDeadlineSeconds"] <= 3600
    assert pod["serviceAccountName"] == "checker"
    assert job["spec"]["template"]["metadata"]["labels"]["app"] == "check"
    assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "cinderblock"


# Mutations: a drill that cannot fail is a defect


def test_data_of_yesterday_fails_the_check(simulation: Simulation) -> None:
    simulation.cluster.check.program = lambda content: 0 if content == "tomorrow" else 1
    simulation.write("data", "tomorrow")
    status = drill(simulation)
    assert (status["phase"], reason(status), status["checkExitCode"]) == ("damaged", "CheckFailed", 1)
    assert known(simulation)["result"] == "Damaged"
    simulation.backup("new", "data")
    simulation.settle()
    assert drill(simulation, "again")["phase"] == "verified"


def test_old_backup_fails_the_limit_of_its_age(simulation: Simulation) -> None:
    simulation.advance(timedelta(hours=27).total_seconds())
    status = drill(simulation, maxDataAge="26h")
    assert (status["phase"], reason(status)) == ("error", "DataTooOld")
    assert "full" in status["failReason"]
    assert drill(simulation, "patient", maxDataAge="30h")["phase"] == "verified"
    assert left_over(simulation) == []


def test_missing_pack_is_damage(simulation: Simulation) -> None:
    [pack] = packs(simulation)
    simulation.cluster.store.delete([pack])
    status = drill(simulation)
    assert (status["phase"], reason(status), status["objects"]) == ("damaged", "Damaged", [pack])
    assert (known(simulation)["result"], known(simulation)["objects"]) == ("Damaged", [pack])
    assert left_over(simulation) == []


def test_flipped_byte_is_damage(simulation: Simulation) -> None:
    [pack] = packs(simulation)
    simulation.cluster.store.put(pack, b"pacK")
    status = drill(simulation)
    assert (status["phase"], status["objects"]) == ("damaged", [pack])


def test_missing_manifest_is_damage(simulation: Simulation) -> None:
    simulation.cluster.store.delete([key for key in simulation.stored() if key.endswith(".manifest")])
    assert drill(simulation)["phase"] == "damaged"
    assert left_over(simulation) == []


@pytest.mark.parametrize("code", [1, 2, 77, 255])
def test_check_that_exits_with_another_code_than_0_fails(simulation: Simulation, code: int) -> None:
    simulation.cluster.check.program = lambda _content: code
    status = drill(simulation)
    assert (status["phase"], reason(status), status["checkExitCode"]) == ("damaged", "CheckFailed", code)
    assert known(simulation)["damagedObjects"] == 0
    condition = {c["type"]: c for c in simulation.get("VolumeBackup", "full")["status"]["conditions"]}["Verified"]
    assert (condition["status"], "check" in condition["message"]) == ("False", True)
    assert left_over(simulation) == []


def test_failed_check_is_not_forgotten_by_reading_the_data(simulation: Simulation) -> None:
    simulation.cluster.check.program = lambda _content: 1
    drill(simulation)
    simulation.verify("read", "Data", volumeId="data")
    simulation.settle()
    assert simulation.get(KIND, "read")["status"]["phase"] == "verified"
    assert known(simulation)["result"] == "Damaged"
    simulation.cluster.check.program = lambda _content: 0
    assert drill(simulation, "again")["phase"] == "verified"
    assert known(simulation)["result"] == "Verified"


def test_image_that_does_not_exist_is_an_error(simulation: Simulation) -> None:
    simulation.cluster.check.no_image = True
    status = drill(simulation)
    assert (status["phase"], reason(status)) == ("error", "ImagePullFailed")
    assert "no such image" in status["failReason"]
    assert not known(simulation)
    assert left_over(simulation) == []


def test_check_that_never_ends_is_an_error(simulation: Simulation) -> None:
    simulation.cluster.check.hangs = True
    status = drill(simulation, timeout="10m")
    assert (status["phase"], reason(status)) == ("error", "TimedOut")
    assert not known(simulation)
    assert left_over(simulation) == []


def test_time_limit_is_at_most_a_day(simulation: Simulation) -> None:
    simulation.cluster.check.hangs = True
    simulation.verify("drill", "Restore", volumeId="data", restore=CHECK | {"timeout": "900h"})
    simulation.until(KIND, "drill", "CheckRunning")
    (job,) = (j for j in simulation.objects.all("Job") if j["metadata"]["ownerReferences"][0]["kind"] == KIND)
    assert 86_000 < job["spec"]["activeDeadlineSeconds"] <= 86_400


def test_cause_of_a_failed_restore_outlives_its_volume_restore(simulation: Simulation) -> None:
    simulation.cluster.store.delete([key for key in simulation.stored() if key.endswith(".manifest")])
    status = drill(simulation)
    assert status["restoreFailReason"].startswith("ManifestMissing: ")
    assert left_over(simulation) == []
    simulation.resync()
    simulation.settle()
    assert simulation.get(KIND, "drill")["status"]["restoreFailReason"] == status["restoreFailReason"]


def test_failed_drill_counts_as_a_verification(simulation: Simulation) -> None:
    drill(simulation, maxDataAge="1s")
    found = simulation.metrics()
    assert found.value("last_failure_timestamp_seconds", operation="verification") is not None
    assert found.value("last_failure_timestamp_seconds", operation="restore") is None


def test_drill_shows_when_each_level_was_passed(simulation: Simulation) -> None:
    drill(simulation)
    first = known(simulation)
    simulation.advance(86_400)
    simulation.verify("read", "Data", volumeId="data")
    simulation.settle()
    simulation.advance(86_400)
    simulation.verify("look", "Structure", volumeId="data")
    simulation.settle()
    later = known(simulation)
    assert later["level"] == "Restore"
    assert first["restoredAt"] == later["restoredAt"] < later["dataAt"] < later["structureAt"]
    where = {"volume": "data", "volume_namespace": NAMESPACE}
    name = "volume_last_verified_level_timestamp_seconds"
    times = [simulation.metrics().value(name, **where, level=level) for level in ("Restore", "Data", "Structure")]
    assert all(times)
    assert times == sorted(times, key=float)  # type: ignore[arg-type]


def test_evicted_check_is_an_error(simulation: Simulation) -> None:
    simulation.verify("drill", "Restore", volumeId="data", restore=CHECK)
    simulation.until(KIND, "drill", "CheckRunning")
    (move,) = (move for move in simulation.cluster.moves() if move.name.endswith("is evicted") and move.is_bad)
    simulation.move(move)
    simulation.settle()
    status = simulation.get(KIND, "drill")["status"]
    assert (status["phase"], reason(status)) == ("error", "CheckInterrupted")
    assert not known(simulation)
    assert left_over(simulation) == []


# Refusals


def refused(simulation: Simulation, name: str, expected: str, *words: str) -> None:
    status = drill(simulation, name)
    assert (status["phase"], reason(status)) == ("error", expected)
    assert all(word in status["conditions"][0]["message"] for word in words), status["conditions"][0]["message"]
    assert left_over(simulation) == []


def test_missing_cron_job_is_refused(simulation: Simulation) -> None:
    simulation.delete("CronJob", "check")
    refused(simulation, "drill", "CheckNotFound", "CronJob check")


def test_cron_job_that_is_not_suspended_is_refused(simulation: Simulation) -> None:
    simulation.delete("CronJob", "check")
    add_check(simulation, suspend=False)
    refused(simulation, "drill", "CheckNotPermitted", "not suspended")


TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
MOUNTED = [{"name": "check", "image": "x", "volumeMounts": [{"name": "a", "mountPath": "/restored/deep"}]}]


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        ({"volumes": [TOKEN]}, "token"),
        ({"volumes": [{"name": "cinderblock-restored", "emptyDir": {}}]}, "cinderblock-restored"),
        ({"containers": MOUNTED}, "/restored"),
        ({"initContainers": MOUNTED}, "/restored"),
    ],
)
def test_template_with_what_a_check_may_not_have_is_refused(simulation: Simulation, pod: Object, word: str) -> None:
    simulation.delete("CronJob", "check")
    add_check(simulation, **pod)
    refused(simulation, "drill", "CheckNotPermitted", word)


def test_template_with_marks_of_cinderblock_is_refused(simulation: Simulation) -> None:
    cron_job = simulation.get("CronJob", "check")
    spec = cron_job["spec"]
    spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"] = {"cinderblock.io/owner-uid": "x"}
    simulation.objects.update(cron_job, spec=spec)
    refused(simulation, "drill", "CheckNotPermitted", "cinderblock.io/owner-uid")


def test_missing_role_binding_is_named(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    read = KubeClient.get

    async def get(self: KubeClient, kind: Kind, *args: Any) -> Any:
        if kind == kinds.CRON_JOB:
            raise AccessDenied('cronjobs.batch "check" is forbidden')
        return await read(self, kind, *args)

    monkeypatch.setattr(KubeClient, "get", get)
    refused(
        simulation, "drill", "CheckNotPermitted", "kubectl create rolebinding", f"--namespace={NAMESPACE}", "-checks"
    )


def test_quota_is_an_error_with_a_clear_sentence(simulation: Simulation) -> None:
    simulation.quota.add("PersistentVolumeClaim")
    status = drill(simulation)
    assert (status["phase"], reason(status)) == ("error", "QuotaExceeded")
    assert "counts in the quota of the namespace" in status["failReason"]
    assert status["restoreFailReason"].startswith("QuotaExceeded: ")
    simulation.quota.clear()
    simulation.settle()
    assert left_over(simulation) == []


# Crashes, deletions, forged objects


def run(fault: tuple[int, BaseException, bool] | None = None, *, code: int = 0) -> tuple[Simulation, int]:
    """Run a drill to its end, with an optional fault at one write."""

    def prepare(simulation: Simulation) -> None:
        simulation.claim("data", "today")
        simulation.backup("full", "data")
        simulation.settle()
        add_check(simulation)
        simulation.cluster.check.program = lambda _content: code

    def start(simulation: Simulation) -> None:
        simulation.verify("drill", "Restore", volumeId="data", restore=CHECK)

    return run_scenario(prepare, start, fault)


@pytest.mark.parametrize(
    ("how", "code", "first", "step"),
    [
        ("loses the answer to", 0, 0, 2),
        ("dies after", 1, 1, 2),
        *(pytest.param(how, code, 0, 1, marks=pytest.mark.long) for how in FAULTS for code in (0, 1)),
    ],
)
def test_operator_faults_do_not_change_the_end(how: str, code: int, first: int, step: int) -> None:
    """The first two runs share the writes. In `make test-long`, each fault happens at each write."""
    reference, writes = run(code=code)
    assert left_over(reference) == []
    done, error = FAULTS[how]
    for at in range(first, writes, step):
        simulation, _ = run((at, error(), done), code=code)
        assert left_over(simulation) == [], f"write {at}\n{simulation.story()}"
        assert summary(simulation) == summary(reference), f"write {at}\n{simulation.story()}"
        results = [known(s)["result"] for s in (simulation, reference)]
        assert results[0] == results[1], f"write {at}\n{simulation.story()}"


@some_or_all_moments
def test_drill_that_is_deleted_after_any_step_leaves_nothing(moments: Moments) -> None:
    has_ended, steps = False, 0
    while not has_ended:
        for at in moments(steps, (0, 1, 2, 3, 5, 8)):
            with Simulation() as simulation:
                simulation.claim("data", "today")
                simulation.backup("full", "data")
                simulation.settle()
                add_check(simulation)
                simulation.verify("drill", "Restore", volumeId="data", restore=CHECK | {"storageClassName": KEPT})
                for _ in range(steps):
                    simulation.step()
                has_ended = simulation.phase(KIND, "drill") == "verified"
                if at is not None:
                    simulation.faults.plan(at, Crash("scripted"), done=at % 2 == 0)
                simulation.delete(KIND, "drill")
                simulation.settle()
                story = f"step {steps}, write {at}\n{simulation.story()}"
                assert simulation.phase(KIND, "drill") == "gone", story
                assert left_over(simulation) == [], story
        steps += 1
    assert steps > 10


@pytest.mark.parametrize("kind", ["VolumeRestore", "Job"])
def test_child_that_somebody_deletes_is_an_error(simulation: Simulation, kind: str) -> None:
    simulation.verify("drill", "Restore", volumeId="data", restore=CHECK)
    simulation.until(KIND, "drill", "CheckRunning")
    uid = simulation.get(KIND, "drill")["metadata"]["uid"]
    simulation.delete(kind, f"cinderblock-{uid}")
    simulation.settle()
    status = simulation.get(KIND, "drill")["status"]
    assert (status["phase"], reason(status)) == ("error", "CheckInterrupted")
    assert not known(simulation)
    assert left_over(simulation) == []


def test_forged_check_reports_nothing(simulation: Simulation) -> None:
    """Somebody makes a Job with the name, the owner and the labels of the check, which succeeds at once."""
    simulation.cluster.check.program = lambda _content: 1
    verification = simulation.verify("drill", "Restore", volumeId="data", restore=CHECK)
    simulation.until(KIND, "drill", "DrillRestoring")
    metadata = verification["metadata"]
    forged = {
        "metadata": {
            "name": f"cinderblock-{metadata['uid']}",
            "namespace": NAMESPACE,
            "labels": {
                "app.kubernetes.io/managed-by": "cinderblock",
                "cinderblock.io/owner-kind": KIND,
                "cinderblock.io/owner-uid": metadata["uid"],
            },
            "ownerReferences": [
                {"apiVersion": "cinderblock.io/v1alpha1", "kind": KIND, "name": "drill", "uid": metadata["uid"]}
            ],
        },
        "spec": {},
    }
    job = simulation.make("Job", forged)
    simulation.objects.update(job, status={"conditions": [{"type": "Complete", "status": "True"}]})
    simulation.settle()
    status = simulation.get(KIND, "drill")["status"]
    assert (status["phase"], status["checkExitCode"]) == ("damaged", 1)
    assert left_over(simulation) == []


def test_drills_of_one_store_run_one_after_the_other(simulation: Simulation) -> None:
    for number in range(3):
        simulation.verify(f"drill-{number}", "Restore", volumeId="data", restore=CHECK)
    most = 0
    while any(simulation.phase(KIND, f"drill-{number}") != "verified" for number in range(3)):
        simulation.step()
        most = max(most, len(simulation.objects.all("VolumeRestore")))
    assert most == 1
    simulation.settle()
    assert left_over(simulation) == []


def test_backup_that_is_deleted_during_a_drill_is_not_called_damaged(simulation: Simulation) -> None:
    simulation.verify("drill", "Restore", volumeId="data", restore=CHECK)
    simulation.until(KIND, "drill", "DrillRestoring")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    status = simulation.get(KIND, "drill")["status"]
    assert status["phase"] in ("verified", "error")
    assert not simulation.exists("VolumeBackup", "full")
    assert left_over(simulation) == []
