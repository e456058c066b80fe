"""What the state of a mover Job means, and for how long it may stay like that (DESIGN 4 and 6)."""

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
from tests.support.simulation.observed_builders import NOW, POLICY, a_job, a_store

JOB_BEGAN, POD_BEGAN = NOW - timedelta(hours=5), NOW - timedelta(minutes=2)
START = POLICY.deadlines.mover_start
SUCCESS = MoverReport(succeeded=True, restored_bytes=7)
NEVER = MoverReport(succeeded=False, permanent=True, reason="KeyUnavailable", message="key k1 is not there")
LATER = MoverReport(succeeded=False, reason="StoreUnreachable", message="https://s3 does not answer")


def a_pod(phase: str = "Running", *, began: datetime = POD_BEGAN, **status: Any) -> Pod:
    metadata = {"name": "mover-x", "creationTimestamp": began}
    return Pod.model_validate({"metadata": metadata, "status": {"phase": phase} | status})


def ended(phase: str, report: MoverReport | str, code: int = 1, reason: str = "Error") -> Pod:
    words = report if isinstance(report, str) else report.model_dump_json(by_alias=True)
    state = {"terminated": {"exitCode": code, "reason": reason, "message": words}}
    return a_pod(phase, containerStatuses=[{"name": "mover", "state": state}])


def waiting(reason: str, message: str = "") -> Pod:
    state = {"waiting": {"reason": reason, "message": message}}
    return a_pod("Pending", containerStatuses=[{"name": "mover", "state": state}])


def unschedulable(message: str) -> Pod:
    return a_pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": message}])


def failed(message: str = "BackoffLimitExceeded") -> Job:
    return a_job(conditions=[{"type": "Failed", "status": "True", "reason": message, "message": message}])


def complete(kind: str = "Complete") -> Job:
    return a_job(conditions=[{"type": kind, "status": "True"}])


def going() -> Job:
    job = a_job()
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"deletion_timestamp": NOW})})


def judge(job: Job, *pods: Pod, warning: str = "") -> mover_state.Succeeded | Fail | Wait:
    return mover_state.evaluate(ObservedMover(job=job, pods=pods, warning=warning), POLICY)


WAITS: dict[str, tuple[mover_state.Succeeded | Fail | Wait, Wait]] = {
    "no pod yet": (judge(a_job()), Wait("MoverPending", "The mover is being started", None, START, 5.0)),
    "no pod, and a policy that says why": (
        judge(a_job(), warning="exceeded quota"),
        Wait("MoverPending", "The mover is being started: exceeded quota", None, START, 5.0),
    ),
    "no node": (
        judge(a_job(), unschedulable("0/3 nodes are available")),
        Wait("MoverUnschedulable", "No node for the mover: 0/3 nodes are available", POD_BEGAN, START),
    ),
    "no image": (
        judge(a_job(), waiting("ImagePullBackOff", "no such image")),
        Wait("ImagePullFailed", "The mover's image cannot be had: no such image", POD_BEGAN, START),
    ),
    "a container that is being created": (
        judge(a_job(), waiting("ContainerCreating")),
        Wait("MoverPending", "The mover is being started", None, START, 5.0),
    ),
    "a container that cannot be created": (
        judge(a_job(), waiting("ContainerCreating"), warning="volume cannot be attached"),
        Wait(
            "MoverStarting", "The mover's pod is starting: volume cannot be attached", POD_BEGAN, START, 5.0
        ),
    ),
    "a mover at work": (judge(a_job(), a_pod()), Wait("MoverRunning", "The mover is copying", None, None, 5.0)),
    "a pod that failed and will be replaced": (
        judge(a_job(), ended("Failed", LATER)),
        Wait(
            "MoverRetrying",
            "Attempt 1 of the mover failed, and it is started again: https://s3 does not answer",
            POD_BEGAN,
            START,
            5.0,
        ),
    ),
    "a pod that left no report and will be replaced": (
        judge(a_job(), a_pod("Failed")),
        Wait(
            "MoverRetrying",
            "Attempt 1 of the mover failed, and it is started again: it left no word",
            POD_BEGAN,
            START,
            5.0,
        ),
    ),
    "the second pod at work": (
        judge(a_job(), ended("Failed", LATER), a_pod()),
        Wait("MoverRunning", "The mover is copying", None, None, 5.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "wanted"), WAITS.values(), ids=WAITS.keys())
def test_is_waited_for(found: mover_state.Succeeded | Fail | Wait, wanted: Wait) -> None:
    assert found == wanted


FAILURES: dict[str, tuple[mover_state.Succeeded | Fail | Wait, str, str]] = {
    "a mover that says why": (judge(failed(), ended("Failed", NEVER)), "KeyUnavailable", "key k1 is not there"),
    "the last of several movers": (
        judge(failed(), ended("Failed", LATER), ended("Failed", NEVER)),
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
        "The mover ran out of memory: raise spec.mover.resources of the BackupStore",
    ),
    "a mover that died with last words": (
        judge(failed(), ended("Failed", "first\nlast words\n", 139)),
        "MoverDied",
        "The mover ended with exit code 139 (Error) and no report: last words",
    ),
    "a mover that died in silence": (
        judge(failed(), ended("Failed", "", 139, "")),
        "MoverDied",
        "The mover ended with exit code 139 (no reason) and no report: it said nothing",
    ),
    "a pod that was evicted": (
        judge(failed(), a_pod("Failed", reason="Evicted", message="the node was low on memory")),
        "Evicted",
        "the node was low on memory",
    ),
    "a pod that failed without a word": (judge(failed(), a_pod("Failed")), "MoverFailed", "The mover's pod failed"),
    "a Job whose pods are gone": (
        judge(failed("DeadlineExceeded")),
        "MoverFailed",
        "The mover failed: DeadlineExceeded",
    ),
    "a Job that somebody deletes": (
        judge(going(), a_pod()),
        "MoverDeleted",
        "The mover Job was deleted by somebody else before it had finished",
    ),
}


@pytest.mark.parametrize(("found", "reason", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_is_a_failure(found: mover_state.Succeeded | Fail | Wait, reason: str, words: str) -> None:
    assert found == Fail(reason, words)


SUCCESSES = {
    "the pod's report, before the Job says anything": judge(a_job(), ended("Running", SUCCESS, 0)),
    "the report of one pod, although the Job gave up": judge(failed(), ended("Succeeded", SUCCESS, 0)),
    "an earlier pod's report, although a later one failed": judge(
        a_job(), ended("Succeeded", SUCCESS, 0), ended("Failed", LATER)
    ),
    "the report, although somebody deletes the Job": judge(going(), ended("Succeeded", SUCCESS, 0)),
}


@pytest.mark.parametrize("found", SUCCESSES.values(), ids=SUCCESSES.keys())
def test_success_is_believed_from(found: mover_state.Succeeded | Fail | Wait) -> None:
    assert found == mover_state.Succeeded(SUCCESS)


@pytest.mark.parametrize("kind", ["Complete", "SuccessCriteriaMet"])
def test_a_job_that_is_complete_has_succeeded_even_if_its_pod_is_gone(kind: str) -> None:
    assert judge(complete(kind)) == mover_state.Succeeded(MoverReport(succeeded=True))


def test_every_pod_has_the_same_time_to_start_however_old_the_job_is() -> None:
    later = NOW + timedelta(hours=1)
    young, old = a_pod("Pending", began=later), a_pod("Pending", began=JOB_BEGAN)
    first, second = judge(a_job(), young), judge(a_job(), old)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert (first.since, second.since) == (later, None), "without an instant, it counts from when it was said first"


@pytest.mark.parametrize("words", ["", "Killed", "{", "[]", '{"succeeded": "perhaps"}', '{"message": "no result"}'])
def test_what_is_no_report_is_not_read_as_one(words: str) -> None:
    assert mover_state.read_report(ended("Failed", words)) is None


@given(st.text(max_size=5000))
def test_no_last_words_make_a_message_that_a_status_cannot_hold(words: str) -> None:
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
def test_a_manifest_may_be_there_once_a_container_has_ended(job: Job | None, pods: tuple[Pod, ...], may: bool) -> None:
    assert mover_state.may_have_committed(ObservedMover(job=job, pods=pods)) is may


@pytest.mark.parametrize(
    ("phase", "at_work"), [("Pending", True), ("Running", True), ("Succeeded", False), ("Failed", False)]
)
def test_a_pod_is_at_work_until_its_phase_says_that_it_has_ended(phase: str, at_work: bool) -> None:
    assert mover_state.is_at_work(ObservedMover(pods=(a_pod(phase),))) is at_work


@pytest.mark.parametrize(("minutes", "asks"), [(1, False), (3, True)])
def test_a_pod_that_does_not_end_is_waited_for_and_somebody_is_asked_to_look_at_its_node(
    minutes: int, asks: bool
) -> None:
    metadata = {"name": "mover-x", "deletionTimestamp": NOW - timedelta(minutes=minutes)}
    lost = Pod.model_validate({"metadata": metadata, "status": {"phase": "Running"}})
    said = mover_state.stop_message("The restore is being stopped", ObservedMover(pods=(lost,)), NOW)
    assert ("pod mover-x does not end. If its node is gone for good" in said) is asks


def test_an_unknown_pod_may_still_be_at_work() -> None:
    assert mover_state.is_at_work(ObservedMover(pods=(a_pod("Unknown"),)))


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        (("s-2", "s-3"), "No more than 2 movers may run in the cluster"),
        (("s-1",), "No more than 1 movers may use BackupStore default"),
        (("s-2",), None),
        ((), None),
    ],
)
def test_movers_are_limited_in_the_cluster_and_for_each_store(stores: tuple[str, ...], words: str | None) -> None:
    policy = OperatorPolicy(MoverSettings("image", limit=2))
    view = ObservedMover(others=frozenset(RunningMover(f"b-{number}", store) for number, store in enumerate(stores, 2)))
    found = mover_state.wait_for_slot(view, policy, a_store(limits={"movers": 1}))
    message = f"{words}, and older operations go first"
    assert found == (Wait("Queued", message, requeue_after=5.0) if words else None)


def test_who_has_many_before_it_looks_less_often_and_says_the_same() -> None:
    policy = OperatorPolicy(MoverSettings("image", limit=2))
    first = mover_state.wait_for_slot(ObservedMover(waiting_before=2), policy, a_store())
    last = mover_state.wait_for_slot(ObservedMover(waiting_before=1000), policy, a_store())
    assert first is not None
    assert last is not None
    assert (first.message, first.requeue_after, last.requeue_after) == (last.message, 10.0, 60.0)


@given(done=st.integers(0, 2**60), total=st.integers(0, 2**60))
def test_progress_is_a_share_between_0_and_100(done: int, total: int) -> None:
    shown = mover_state.to_progress(MoverProgress(bytes_done=done, bytes_total=total))
    assert shown is not None
    assert 0 <= shown.percent <= 100
    assert shown.percent < 100 or done >= total


@pytest.mark.parametrize(
    ("pod", "words"),
    [(ended("Failed", LATER), LATER.message), (ended("Failed", "first\nlast words\n", 137), "last words")],
)
def test_while_a_mover_is_started_again_its_last_words_are_told_and_since_when_and_until_when(
    pod: Pod, words: str
) -> None:
    waits = judge(a_job(), pod)
    assert isinstance(waits, Wait)
    assert waits.reason == "MoverRetrying"
    assert waits.message.endswith(words)
    assert "Attempt 1" in waits.message
    assert (waits.since, waits.limit) == (POD_BEGAN, START)
