"""Movers in clusters that refuse their pods, inject containers into them, or hold their Jobs back.

The words are those of Kubernetes 1.35, as its Job controller and its admission plugins write them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.kubernetes import Job, Pod
from cinderblock.api.labels import STARTED_ANNOTATION
from cinderblock.api.mover import EXIT_PERMANENT, EXIT_TRANSIENT, MoverReport
from cinderblock.errors import AccessDenied
from cinderblock.lifecycle import verdicts
from cinderblock.lifecycle.actions import StartMover
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.mover import suspension
from cinderblock.lifecycle.observed import ObservedMover
from cinderblock.lifecycle.verdicts import Fail, Wait
from tests.support.simulation.observed_builders import NOW, POLICY, a_job

POD = 'Error creating: pods "cinderblock-b-1-x7k2p" is forbidden: '
REFUSALS = {
    POD + "exceeded quota: small, requested: requests.memory=128Mi, used: requests.memory=1Gi, limited:"
    " requests.memory=1Gi": ("QuotaExceeded", "requested: requests.memory=128Mi", "Raise the quota"),
    POD + "exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3": (
        "QuotaExceeded",
        "requested: pods=1",
        "Raise the quota, or free some of it",
    ),
    POD + "insufficient quota to match these scopes: [{PriorityClass In [high]}]": (
        "QuotaExceeded",
        "[{PriorityClass In [high]}]",
        "spec.mover.priorityClassName",
    ),
    POD + "failed quota: strict: must specify limits.cpu for: mover": (
        "QuotaExceeded",
        "must specify limits.cpu for: mover",
        "spec.mover.resources",
    ),
    POD + "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000": (
        "LimitRangeViolated",
        "provided ratio is 4.000000",
        "spec.mover.resources",
    ),
    POD + "[maximum memory usage per Pod is 256Mi, but limit is 536870912.]": (
        "LimitRangeViolated",
        "maximum memory usage per Pod is 256Mi",
        "spec.mover.resources",
    ),
    'Error creating: Pod "cinderblock-b-1-x7k2p" is invalid: spec.containers[0].resources.requests: Invalid value:'
    ' "100m": must be less than or equal to cpu limit of 50m': (
        "LimitRangeViolated",
        "cpu limit of 50m",
        "spec.mover.resources",
    ),
    POD + 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false': (
        "PodSecurityViolation",
        'PodSecurity "restricted:latest"',
        "spec.mover",
    ),
    POD + "ValidatingAdmissionPolicy 'team' with binding 'team' denied request: label team is missing": (
        "MoverRefused",
        "label team is missing",
        "spec.mover.labels",
    ),
    'Error creating: admission webhook "v.example.org" denied the request: no owner': (
        "MoverRefused",
        "no owner",
        "spec.mover.labels",
    ),
    POD + 'error looking up service account shop/mover: serviceaccount "mover" not found': (
        "MoverRefused",
        'serviceaccount "mover" not found',
        "accept",
    ),
}


@pytest.mark.parametrize("warning", REFUSALS)
def test_refused_pod_is_reported_with_words_and_remedy(warning: str) -> None:
    reason, words, remedy = REFUSALS[warning]
    verdict = mover_state.evaluate(ObservedMover(job=a_job(), warning=warning), POLICY)
    assert isinstance(verdict, Wait)
    assert (verdict.reason, verdict.limit) == (reason, POLICY.deadlines.mover_start)
    assert words in verdict.message
    assert remedy in verdict.message
    assert "x7k2p" not in verdict.message, "the name of a pod changes with every attempt"


TEMPORARY = "Cannot create persistentvolumeclaims shop/cinderblock-00000000-0000-0000-0000-000000000001: the API server"
RESTORED = "Cannot create persistentvolumeclaims shop/new: the API server"
JOB = "Cannot create jobs.batch shop/cinderblock-00000000-0000-0000-0000-000000000001: the API server"
LABELS = 'refused it: admission webhook "v.example.org" denied the request: the label team is missing'
OWN = (
    "refused it: ValidatingAdmissionPolicy 'backups-operator-jobs' with binding 'backups-operator-jobs' denied request"
)


@pytest.mark.parametrize(
    ("asked", "cause", "remedy"),
    [
        (TEMPORARY, "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi", "Raise the limit"),
        (TEMPORARY, "minimum storage usage per PersistentVolumeClaim is 10Gi, but request is 5Gi", "Lower the minimum"),
        (TEMPORARY, "minimum storage usage per PersistentVolumeClaim is 10Gi, but request is 5Gi", "spec.size"),
        (TEMPORARY, "exceeded quota: small, requested: requests.storage=5Gi, used: requests.storage=0", "free some"),
        (TEMPORARY, "insufficient quota to consume: requests.storage", "Create a quota"),
        (TEMPORARY, LABELS, "set spec.mover.labels"),
        (JOB, LABELS, "set spec.mover.labels"),
        (RESTORED, LABELS, "set spec.labels or spec.annotations of the VolumeRestore"),
        (JOB, f"{OWN}: The operator must run one container, with the mover's image", "admissionPolicies of the chart"),
        (JOB, f"{OWN}: The operator must run one container, with the mover's image", "A webhook of the cluster"),
    ],
)
def test_refused_child_is_reported_with_a_remedy(asked: str, cause: str, remedy: str) -> None:
    verdict = verdicts.from_api_error(AccessDenied(f"{asked}: {cause}"), POLICY.deadlines)
    assert isinstance(verdict, Wait)
    assert cause in verdict.message
    assert remedy in verdict.message


def test_policy_of_another_chart_is_not_taken_for_our_own() -> None:
    denial = "ValidatingAdmissionPolicy 'team-operator-jobs' with binding 'x' denied request: the label team is missing"
    verdict = verdicts.from_api_error(AccessDenied(f"{JOB}: {denial}"), POLICY.deadlines)
    assert isinstance(verdict, Wait)
    assert "admissionPolicies" not in verdict.message


def a_pod(code: int, finished: datetime, *others: dict[str, Any], report: MoverReport | None = None) -> Pod:
    """Return a pod whose mover has ended. Injected containers come first, as meshes like to be."""
    words = report.model_dump_json(by_alias=True) if report else "Killed"
    ended = {"exitCode": code, "message": words, "finishedAt": finished}
    statuses = [*others, {"name": "mover", "state": {"terminated": ended}}]
    phase = "Running" if others and "running" in others[0]["state"] else "Failed"
    metadata = {"name": "mover-x", "creationTimestamp": NOW - timedelta(minutes=9)}
    return Pod.model_validate({"metadata": metadata, "status": {"phase": phase, "containerStatuses": statuses}})


PROXY = {"name": "proxy", "state": {"running": {}}}
DEAD_PROXY = {"name": "proxy", "state": {"terminated": {"exitCode": 137, "message": "proxy was killed"}}}
BROKEN = MoverReport(succeeded=False, permanent=True, reason="SourceError", message="the disk is broken")
AWAY = MoverReport(succeeded=False, reason="StoreUnreachable", message="the store is away")


def judge(pod: Pod) -> mover_state.Succeeded | Fail | Wait:
    mover = ObservedMover(job=a_job(), pods=(pod,))
    verdict = mover_state.evaluate(mover, POLICY)
    return verdict if isinstance(verdict, mover_state.Succeeded) else mover_state.check_injected(verdict, mover, NOW)


def test_success_counts_while_an_injected_container_runs() -> None:
    verdict = judge(a_pod(0, NOW, PROXY, report=MoverReport(succeeded=True, restored_bytes=7)))
    assert verdict == mover_state.Succeeded(MoverReport(succeeded=True, restored_bytes=7))


def test_permanent_failure_counts_while_an_injected_container_runs() -> None:
    verdict = judge(a_pod(EXIT_PERMANENT, NOW, PROXY, report=BROKEN))
    assert verdict == Fail("SourceError", "the disk is broken")


def test_other_failure_counts_when_the_injected_container_stays() -> None:
    first, later = (
        judge(a_pod(EXIT_TRANSIENT, NOW - age, PROXY, report=AWAY))
        for age in (timedelta(seconds=1), mover_state.INJECTED_GRACE)
    )
    assert isinstance(first, Wait)
    assert first.reason == "MoverRetrying"
    assert later == Fail("StoreUnreachable", "the store is away")


def test_container_that_died_without_a_report_is_the_movers() -> None:
    job = a_job(conditions=[{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}])
    mover = ObservedMover(job=job, pods=(a_pod(137, NOW, DEAD_PROXY),))
    verdict = mover_state.evaluate(mover, POLICY)
    assert isinstance(verdict, Fail)
    assert verdict.message.endswith("Last log line: Killed")


def test_running_mover_with_an_ended_init_container_is_running() -> None:
    init = [{"name": "mesh-init", "state": {"terminated": {"exitCode": 0}}}]
    status = {"phase": "Running", "initContainerStatuses": init, "containerStatuses": [DEAD_PROXY]}
    pod = Pod.model_validate({"metadata": {"name": "mover-x"}, "status": status})
    verdict = judge(pod)
    assert isinstance(verdict, Wait)
    assert verdict.reason == "MoverRunning"


def test_missing_image_of_an_injected_container_is_named() -> None:
    init = [{"name": "mesh-init", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]
    pod = Pod.model_validate({"metadata": {"name": "x"}, "status": {"phase": "Pending", "initContainerStatuses": init}})
    verdict = judge(pod)
    assert isinstance(verdict, Wait)
    assert (verdict.reason, verdict.message) == (
        "ImagePullFailed",
        "Cannot pull the image of injected container mesh-init: not found",
    )


def suspended(*, started: bool = False, queue: str = "", **spec: Any) -> Job:
    job = a_job()
    metadata = {
        "labels": {"kueue.x-k8s.io/queue-name": queue} if queue else {},
        "annotations": {STARTED_ANNOTATION: "true"} if started else {},
    }
    return job.model_copy(
        update={
            "metadata": job.metadata.model_copy(update=metadata),
            "spec": job.spec.model_copy(update={"suspend": True} | spec),
        }
    )


@pytest.mark.parametrize(
    ("job", "starts"),
    [
        (suspended(), True),
        (suspended(started=True), False),
        (suspended(queue="default"), False),
        (a_job(), False),
    ],
    ids=["new", "suspended again", "in a queue", "running"],
)
def test_job_is_started_once_and_never_if_a_queue_does(job: Job, starts: bool) -> None:
    expected = StartMover(job.name, job.uid) if starts else None
    assert suspension.start(ObservedMover(job=job)) == expected


@pytest.mark.parametrize("job", [suspended(started=True), suspended(queue="default")], ids=["somebody", "a queue"])
def test_held_job_is_waited_for_without_a_limit(job: Job) -> None:
    verdict = mover_state.evaluate(ObservedMover(job=job), POLICY)
    assert isinstance(verdict, Wait)
    assert (verdict.reason, verdict.limit) == ("MoverSuspended", None)
    queue = job.metadata.labels.get("kueue.x-k8s.io/queue-name")
    assert ("LocalQueue default" in verdict.message) == (queue is not None)


def test_job_that_runs_elsewhere_fails() -> None:
    job = suspended(managed_by="kueue.x-k8s.io/multikueue")
    verdict = mover_state.evaluate(ObservedMover(job=job), POLICY)
    assert isinstance(verdict, Fail)
    assert verdict.reason == "MoverRefused"
