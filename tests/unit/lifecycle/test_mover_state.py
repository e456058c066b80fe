"""The verdict on each state of a mover Job, and how long the state may last."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.kubernetes import Job, Pod
from cinderblock.api.mover import MoverProgress, MoverReport
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import MoverSettings, ObservedMover, OperatorPolicy, RunningMover
from cinderblock.lifecycle.verdicts import Fail, Wait
from tests.support.simulation.observed_builders import NOW, POLICY, a_job, a_store, accepted

JOB_BEGAN, POD_BEGAN = NOW - timedelta(hours=5), NOW - timedelta(minutes=2)
START = POLICY.deadlines.mover_start
SUCCESS = MoverReport(succeeded=True, restored_bytes=7)
PERMANENT = MoverReport(succeeded=False, permanent=True, reason="KeyUnavailable", message="key k1 is not there")
TRANSIENT = MoverReport(succeeded=False, reason="StoreUnreachable", message="https://s3 does not answer")


def a_pod(phase: str = "Running", *, began: datetime = POD_BEGAN, **status: Any) -> Pod:
    metadata = {"name": "mover-x", "creationTimestamp": began}
    return Pod.model_validate({"metadata": metadata, "status": {"phase": phase} | status})


def ended(phase: str, report: MoverReport | str, code: int = 1, reason: str = "Error") -> Pod:
    words = report if isinstance(report, str) else report.model_dump_json(by_alias=True)
    state = {"terminated": {"exitCode": code, "reason": reason, "message": words}}
    return a_pod(phase, containerStatuses=[{"name": "mover", "state": state}])


def waiting(reason: str, message: str = "", scheduled: datetime | None = None) -> Pod:
    state = {"waiting": {"reason": reason, "message": message}}
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": scheduled}
    conditions = [condition] if scheduled else []
    return a_pod("Pending", containerStatuses=[{"name": "mover", "state": state}], conditions=conditions)


def unschedulable(message: str, reason: str = "Unschedulable") -> Pod:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return a_pod("Pending", conditions=[condition])


def failed(message: str = "BackoffLimitExceeded") -> Job:
    return a_job(conditions=[{"type": "Failed", "status": "True", "reason": message, "message": message}])


def complete(kind: str = "Complete") -> Job:
    return a_job(conditions=[{"type": kind, "status": "True"}])


def deleted() -> Job:
    job = a_job()
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"deletion_timestamp": NOW})})


def judge(job: Job, *pods: Pod, warning: str = "") -> mover_state.Succeeded | Fail | Wait:
    return mover_state.evaluate(ObservedMover(job=job, pods=pods, warning=warning), POLICY)


WAITS: dict[str, tuple[mover_state.Succeeded | Fail | Wait, Wait]] = {
    "no pod yet": (judge(a_job()), Wait("MoverPending", "The mover is being started", None, START, 5.0)),
    "no pod, and a warning": (
        judge(a_job(), warning="the API server is busy"),
        Wait("MoverPending", "The mover is being started: the API server is busy", None, START, 5.0),
    ),
    "an unschedulable pod": (
        judge(a_job(), unschedulable("0/3 nodes are available")),
        Wait("MoverUnschedulable", "Cannot schedule the mover pod: 0/3 nodes are available", None, START),
    ),
    "a pod that a queue holds back": (
        judge(a_job(), unschedulable("blocked by scheduling gates", "SchedulingGated")),
        Wait(
            "MoverSuspended", "The mover pod has scheduling gates, and waits until a queue such as Kueue removes them"
        ),
    ),
    "an image that cannot be pulled": (
        judge(a_job(), waiting("ImagePullBackOff", "no such image")),
        Wait("ImagePullFailed", "Cannot pull the mover image: no such image", POD_BEGAN, START),
    ),
    "an image that cannot be pulled on a node that was found late": (
        judge(a_job(), waiting("ImagePullBackOff", "no such image", scheduled=NOW)),
        Wait("ImagePullFailed", "Cannot pull the mover image: no such image", NOW, START),
    ),
    "a container that is being created": (
        judge(a_job(), waiting("ContainerCreating")),
        Wait("MoverPending", "The mover is being started", None, START, 5.0),
    ),
    "a container that cannot be created": (
        judge(a_job(), waiting("ContainerCreating"), warning="volume cannot be attached"),
        Wait(
            "MoverStarting", "The mover pod is starting: volume cannot be attached", POD_BEGAN, START, 5.0
        ),
    ),
    "a running mover": (judge(a_job(), a_pod()), Wait("MoverRunning", "The mover is copying", None, None, 5.0)),
    "a pod that failed and will be replaced": (
        judge(a_job(), ended("Failed", TRANSIENT)),
        Wait(
            "MoverRetrying",
            "Attempt 1 of the mover failed, and another one follows: https://s3 does not answer",
            POD_BEGAN,
            START,
            5.0,
        ),
    ),
    "a pod that left no report and will be replaced": (
        judge(a_job(), a_pod("Failed")),
        Wait(
            "MoverRetrying",
            "Attempt 1 of the mover failed, and another one follows: it left no report",
            POD_BEGAN,
            START,
            5.0,
        ),
    ),
    "the second pod running": (
        judge(a_job(), ended("Failed", TRANSIENT), a_pod()),
        Wait("MoverRunning", "The mover is copying", None, None, 5.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("verdict", "expected"), WAITS.values(), ids=WAITS.keys())
def test_unfinished_mover_is_waited_for(verdict: mover_state.Succeeded | Fail | Wait, expected: Wait) -> None:
    assert verdict == expected


FAILURES: dict[str, tuple[mover_state.Succeeded | Fail | Wait, str, str]] = {
    "a mover that reports a reason": (
        judge(failed(), ended("Failed", PERMANENT)),
        "KeyUnavailable",
        "key k1 is not there",
    ),
    "the last of several movers": (
        judge(failed(), ended("Failed", TRANSIENT), ended("Failed", PERMANENT)),
        "KeyUnavailable",
        "key k1 is not there",
    ),
    "a mover that failed without a reason": (
        judge(failed(), ended("Failed", MoverReport(succeeded=False, message="hm"))),
        "MoverFailed",
        "hm",
    ),
    "a mover without enough memory": (
        judge(failed(), ended("Failed", "", 137, "OOMKilled")),
        "MoverOutOfMemory",
        "The mover exceeded its memory limit. Raise spec.mover.resources of the BackupStore.",
    ),
    "a mover that died with a log": (
        judge(failed(), ended("Failed", "first\nlast words\n", 139)),
        "MoverDied",
        "The mover ended with exit code 139 (Error) and without a report. Last log line: last words",
    ),
    "a mover that died without a log": (
        judge(failed(), ended("Failed", "", 139, "")),
        "MoverDied",
        "The mover ended with exit code 139 (no reason) and without a report. Last log line: none",
    ),
    "a pod that was evicted": (
        judge(failed(), a_pod("Failed", reason="Evicted", message="the node was low on memory")),
        "Evicted",
        "the node was low on memory",
    ),
    "a pod that failed without a message": (judge(failed(), a_pod("Failed")), "MoverFailed", "The mover pod failed"),
    "a Job whose pods are gone": (
        judge(failed("DeadlineExceeded")),
        "MoverFailed",
        "The mover failed: DeadlineExceeded",
    ),
    "a Job that somebody deleted": (
        judge(deleted(), a_pod()),
        "MoverDeleted",
        "The mover Job was deleted by somebody else before it had finished",
    ),
}


@pytest.mark.parametrize(("verdict", "reason", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_failed_mover_fails_the_operation(
    verdict: mover_state.Succeeded | Fail | Wait, reason: str, message: str
) -> None:
    assert verdict == Fail(reason, message)


SUCCESSES = {
    "the pod's report, before the Job says anything": judge(a_job(), ended("Running", SUCCESS, 0)),
    "the report of one pod, although the Job gave up": judge(failed(), ended("Succeeded", SUCCESS, 0)),
    "an earlier pod's report, although a later one failed": judge(
        a_job(), ended("Succeeded", SUCCESS, 0), ended("Failed", TRANSIENT)
    ),
    "the report, although somebody deleted the Job": judge(deleted(), ended("Succeeded", SUCCESS, 0)),
}


@pytest.mark.parametrize("verdict", SUCCESSES.values(), ids=SUCCESSES.keys())
def test_reported_success_counts(verdict: mover_state.Succeeded | Fail | Wait) -> None:
    assert verdict == mover_state.Succeeded(SUCCESS)


@pytest.mark.parametrize("kind", ["Complete", "SuccessCriteriaMet"])
def test_complete_job_has_succeeded_without_a_pod(kind: str) -> None:
    assert judge(complete(kind)) == mover_state.Succeeded(MoverReport(succeeded=True))


def test_every_pod_has_the_full_time_to_start() -> None:
    later = NOW + timedelta(hours=1)
    young, old = a_pod("Pending", began=later), a_pod("Pending", began=JOB_BEGAN)
    first, second = judge(a_job(), young), judge(a_job(), old)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert (first.since, second.since) == (later, None), "without an instant, the wait counts from its first report"


@pytest.mark.parametrize("words", ["", "Killed", "{", "[]", '{"succeeded": "perhaps"}', '{"message": "no result"}'])
def test_malformed_report_is_ignored(words: str) -> None:
    assert mover_state.read_report(ended("Failed", words)) is None


@given(st.text(max_size=5000))
def test_long_log_is_cut_to_a_short_message(words: str) -> None:
    found = judge(failed(), ended("Failed", words, 139))
    assert isinstance(found, Fail)
    assert len(found.message) < 300


@pytest.mark.parametrize(
    ("job", "pods", "may"),
    [
        (a_job(), (), False),
        (a_job(), (a_pod(),), False),
        (a_job(), (a_pod("Pending"),), False),
        (a_job(), (ended("Running", SUCCESS, 0),), True),
        (a_job(), (ended("Failed", "Killed", 137),), True),
        (complete(), (), True),
        (failed(), (), True),
        (None, (ended("Succeeded", SUCCESS, 0),), True),
        (None, (), False),
    ],
)
def test_manifest_may_exist_once_a_container_has_ended(job: Job | None, pods: tuple[Pod, ...], may: bool) -> None:
    assert mover_state.may_have_committed(ObservedMover(job=job, pods=pods)) is may


@pytest.mark.parametrize(
    ("phase", "at_work"), [("Pending", True), ("Running", True), ("Succeeded", False), ("Failed", False)]
)
def test_pod_is_at_work_until_it_has_ended(phase: str, at_work: bool) -> None:
    assert mover_state.is_at_work(ObservedMover(pods=(a_pod(phase),))) is at_work


@pytest.mark.parametrize(("minutes", "advises"), [(1, False), (3, True)])
def test_stop_message_mentions_the_node_of_a_stuck_pod(minutes: int, advises: bool) -> None:
    metadata = {"name": "mover-x", "deletionTimestamp": NOW - timedelta(minutes=minutes)}
    lost = Pod.model_validate({"metadata": metadata, "status": {"phase": "Running"}})
    message = mover_state.stop_message("The restore is being stopped", ObservedMover(pods=(lost,)), NOW)
    assert ("pod mover-x does not end. If its node is permanently gone" in message) is advises


def test_pod_in_unknown_phase_is_at_work() -> None:
    assert mover_state.is_at_work(ObservedMover(pods=(a_pod("Unknown"),)))


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        (("x/a", "y/b", "z/c"), "No more than 3 movers may run in the cluster, and namespaces take turns"),
        (("shop/b", "shop/c"), "No more than 2 movers may run in namespace shop, and older operations go first"),
        (("shop/default",), "No more than 1 movers may use BackupStore default, and older operations go first"),
        (("x/default", "shop/b"), None),
        ((), None),
    ],
)
def test_movers_are_limited_per_cluster_namespace_and_store(stores: tuple[str, ...], words: str | None) -> None:
    policy = OperatorPolicy(MoverSettings("image", limit=3, namespace_limit=2))
    others = [RunningMover(f"b-{number}", *store.split("/")) for number, store in enumerate(stores, 2)]
    found = mover_state.wait_for_slot(ObservedMover(others=frozenset(others)), policy, a_store(limits={"movers": 1}))
    assert found == (Wait("Queued", words, requeue_after=5.0) if words else None)


def test_long_queue_polls_less_often_with_the_same_message() -> None:
    policy = OperatorPolicy(MoverSettings("image", limit=2))
    first = mover_state.wait_for_slot(ObservedMover(waiting_before=2), policy, a_store())
    last = mover_state.wait_for_slot(ObservedMover(waiting_before=1000), policy, a_store())
    assert first is not None
    assert last is not None
    assert (first.message, first.requeue_after, last.requeue_after) == (last.message, 10.0, 60.0)


@given(done=st.integers(0, 2**60), total=st.integers(0, 2**60))
def test_progress_is_between_0_and_100_percent(done: int, total: int) -> None:
    shown = mover_state.to_progress(MoverProgress(bytes_done=done, bytes_total=total))
    assert shown is not None
    assert 0 <= shown.percent <= 100
    assert shown.percent < 100 or done >= total


@pytest.mark.parametrize(
    ("pod", "line"),
    [
        (ended("Failed", TRANSIENT), TRANSIENT.message),
        (ended("Failed", "first\nlast words\n", 137), "last words"),
        (ended("Failed", "", 137), "follows: it ended with exit code 137 (Error) and without a report"),
    ],
)
def test_retry_reports_the_last_line_and_the_time_limit(pod: Pod, line: str) -> None:
    wait = judge(a_job(), pod)
    assert isinstance(wait, Wait)
    assert wait.reason == "MoverRetrying"
    assert wait.message.endswith(line)
    assert "Attempt 1" in wait.message
    assert (wait.since, wait.limit) == (POD_BEGAN, START)


@pytest.mark.parametrize(
    ("mover", "reason", "recorded", "counts"),
    [
        ({"uid": "j-1"}, "MoverRunning", True, True),
        ({"uid": "another"}, "MoverRunning", False, True),
        (None, "MoverRunning", True, True),
        (None, "Rebinding", True, False),
        (None, "Queued", False, False),
        (None, "SnapshotNotReady", False, False),
    ],
)
def test_status_decides_which_job_is_the_mover(
    mover: dict[str, str] | None, reason: str, recorded: bool, counts: bool
) -> None:
    """Release 0.1.0 recorded no UID, but its reason shows that it had created the Job."""
    condition = {"type": "Reconciling", "status": "True", "reason": reason, "message": "x", "lastTransitionTime": NOW}
    backup = accepted(mover=mover, conditions=[condition])
    assert mover_state.is_recorded(backup.status, a_job()) is recorded
    assert mover_state.has_mover(backup) is counts


def test_copied_status_counts_no_mover() -> None:
    assert not mover_state.has_mover(accepted(id="of-another", mover={"uid": "j-1"}))


RECORDED = {"mover": {"uid": "j-1", "storeName": "default"}}
BEFORE, AFTER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
IMPORTED = {"volumeId": None, "import": {"id": "b-0"}}
OWN_JOB = ("Job", "cinderblock-b-1", "j-1")


def shown(kind: str) -> dict[str, Any]:
    """Return a status with one condition that has been true since NOW, and without completedAt."""
    condition = {"type": kind, "status": "True", "reason": "X", "message": "x", "lastTransitionTime": NOW}
    return {"conditions": [condition]}


@pytest.mark.parametrize(
    ("owner", "status", "created", "expected"),
    [
        (("Job", "cinderblock-b-1", "j-1"), RECORDED, NOW, True),
        (("Job", "cinderblock-b-1", "j-2"), RECORDED, NOW, False),
        (("Job", "cinderblock-b-2", "j-1"), RECORDED, NOW, False),
        (("ReplicaSet", "cinderblock-b-1", "j-1"), RECORDED, NOW, False),
        (("Job", "cinderblock-b-1", "j-1"), {}, NOW, False),
        (("Job", "cinderblock-b-1", "j-1"), {"phase": "error", "completedAt": NOW}, BEFORE, True),
        (("Job", "cinderblock-b-1", "j-1"), {"phase": "error", "completedAt": NOW}, AFTER, False),
        (OWN_JOB, {"phase": "error", "updatedAt": AFTER} | shown("Stalled"), BEFORE, True),
        (OWN_JOB, {"phase": "error", "updatedAt": AFTER} | shown("Stalled"), AFTER, False),
        (OWN_JOB, {"phase": "available", "updatedAt": AFTER} | shown("Ready"), BEFORE, True),
        (OWN_JOB, {"phase": "available", "updatedAt": AFTER} | shown("Ready"), AFTER, False),
        (OWN_JOB, {"phase": "error"}, BEFORE, False),
        (OWN_JOB, {"phase": "deleting", "deleting": True, "asked": AFTER}, NOW, True),
        (OWN_JOB, {"phase": "deleting", "deleting": True, "asked": AFTER, "completedAt": BEFORE}, NOW, False),
        (OWN_JOB, {"importedBy": "b-1", "phase": "error", "spec": IMPORTED, "completedAt": NOW}, BEFORE, False),
    ],
    ids=[
        "its own",
        "another Job",
        "of another backup",
        "a ReplicaSet",
        "no Job recorded",
        "ending",
        "later",
        "failed before its time was recorded",
        "made after a failure",
        "complete before its time was recorded",
        "made for a complete backup",
        "no time recorded",
        "deleted during the copy",
        "made before the deletion of a complete backup",
        "imported",
    ],
)
def test_pod_is_a_mover_only_by_what_the_status_records(
    owner: tuple[str, str, str], status: dict[str, Any], created: datetime, *, expected: bool
) -> None:
    kind, name, uid = owner
    reference = {"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": True}
    metadata = {"name": "x", "creationTimestamp": created, "ownerReferences": [reference]}
    backup = accepted("b-1", **status)
    assert mover_state.is_pod_of(backup, Pod.model_validate({"metadata": metadata})) is expected
