"""The verdict on a check: only an exit code that the check itself chose is a statement about the data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.api.kubernetes import Job, Pod
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Wait
from cinderblock.lifecycle.verification.check_state import Ended, evaluate
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill
from cinderblock.reasons import Reason

AT = "2026-05-04T12:00:00Z"
INSTANT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def a_job(*, main: tuple[str, ...] = ("check",), **status: Any) -> Job:
    first = [{"name": "get"}, {"name": "database", "restartPolicy": "Always"}]
    spec = {"template": {"spec": {"containers": [{"name": name} for name in main], "initContainers": first}}}
    return Job.model_validate({"metadata": {"name": "job", "uid": "job"}, "spec": spec, "status": status})


def condition(kind: str, reason: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": reason}]}


def ended(name: str = "check", code: int = 0, reason: str = "") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "finishedAt": AT}
    return {"name": name, "state": {"terminated": state}}


def running(name: str) -> dict[str, Any]:
    return {"name": name, "state": {"running": {"startedAt": AT}}}


def waiting(reason: str) -> dict[str, Any]:
    return {"name": "check", "state": {"waiting": {"reason": reason, "message": "no such image"}}}


def a_pod(phase: str, *containers: dict[str, Any], owner: str = "job", **status: Any) -> Pod:
    metadata = {"name": "pod", "ownerReferences": [{"kind": "Job", "uid": owner}]}
    return Pod.model_validate(
        {"metadata": metadata, "status": {"phase": phase, "containerStatuses": list(containers), **status}}
    )


def verdict(job: Job, *pods: Pod, warning: str = "") -> Ended | Fail | Wait:
    return evaluate(ObservedDrill(job=job, pods=pods, warning=warning), Deadlines())


def reason_of(found: Ended | Fail | Wait) -> str:
    assert not isinstance(found, Ended), found
    return str(found.reason)


def test_complete_job_has_passed() -> None:
    assert verdict(a_job(**condition("Complete")), a_pod("Succeeded", ended())) == Ended(0, INSTANT)
    assert verdict(a_job(**condition("Complete"))) == Ended(0, None)


def test_message_of_the_check_is_kept_as_plain_text() -> None:
    failed = ended(code=3)
    failed["state"]["terminated"]["message"] = "x" * 2000 + "\x1b[31m\ttables missing:\nusers\n"
    found = verdict(a_job(), a_pod("Failed", failed))
    assert isinstance(found, Ended)
    assert found.message.endswith("x[31mtables missing:\nusers")
    assert len(found.message) == 1024
    passed = ended()
    passed["state"]["terminated"]["message"] = "42 tables"
    assert verdict(a_job(**condition("Complete")), a_pod("Succeeded", passed)) == Ended(0, INSTANT, "", "42 tables")


@pytest.mark.parametrize("code", [1, 2, 127, 255])
@pytest.mark.parametrize("status", [{}, condition("Failed", "BackoffLimitExceeded")], ids=["pod", "job"])
def test_exit_code_of_the_check_counts(code: int, status: dict[str, Any]) -> None:
    assert verdict(a_job(**status), a_pod("Failed", ended(code=code))) == Ended(code, INSTANT, "check")


def test_first_container_that_fails_decides() -> None:
    pod = a_pod("Running", ended("one", 0), ended("two", 4), running("three"))
    assert verdict(a_job(main=("one", "two", "three")), pod) == Ended(4, INSTANT, "two")


def test_init_container_of_the_template_counts() -> None:
    pod = a_pod("Failed", initContainerStatuses=[ended("get", 5)])
    assert verdict(a_job(), pod) == Ended(5, INSTANT, "get")


@pytest.mark.parametrize("code", [143, 137, 1])
def test_sidecar_that_is_ended_after_the_check_says_nothing(code: int) -> None:
    sidecar = [ended("get"), ended("database", code)]
    assert verdict(a_job(), a_pod("Succeeded", ended(), initContainerStatuses=sidecar)) == Ended(0, INSTANT)
    failed = a_pod("Failed", ended(code=3), initContainerStatuses=sidecar)
    assert verdict(a_job(), failed) == Ended(3, INSTANT, "check")


def test_injected_container_neither_decides_nor_delays() -> None:
    job = a_job()
    assert verdict(job, a_pod("Running", ended("check", 0), running("istio-proxy"))) == Ended(0, INSTANT)
    assert verdict(job, a_pod("Running", ended("check", 3), running("istio-proxy"))) == Ended(3, INSTANT, "check")
    assert reason_of(verdict(job, a_pod("Running", running("check"), ended("istio-init", 1)))) == Reason.CHECK_RUNNING


@pytest.mark.parametrize("reason", ["OOMKilled", "StartError", "ContainerCannotRun", "ContainerStatusUnknown"])
def test_end_that_the_program_did_not_choose_is_no_verdict(reason: str) -> None:
    found = verdict(a_job(**condition("Failed")), a_pod("Failed", ended(code=137, reason=reason)))
    assert (type(found), reason_of(found)) == (Fail, Reason.CHECK_INTERRUPTED)


DISRUPTION = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize("status", [DISRUPTION, {"reason": "Evicted"}, {"reason": "Terminated"}])
@pytest.mark.parametrize("containers", [(), (ended(code=137),), (ended(code=143),)], ids=["none", "killed", "stopped"])
def test_disrupted_pod_is_no_verdict(status: dict[str, Any], containers: tuple[dict[str, Any], ...]) -> None:
    found = verdict(a_job(**condition("Failed")), a_pod("Failed", *containers, **status))
    assert (type(found), reason_of(found)) == (Fail, Reason.CHECK_INTERRUPTED)


def test_check_that_failed_before_the_disruption_has_failed() -> None:
    assert verdict(a_job(), a_pod("Failed", ended(code=1), **DISRUPTION)) == Ended(1, INSTANT, "check")


def test_deadline_of_the_job_is_no_verdict() -> None:
    job = a_job(**condition("Failed", "DeadlineExceeded"))
    assert reason_of(verdict(job)) == Reason.TIMED_OUT
    assert reason_of(verdict(job, a_pod("Failed", ended(code=143)))) == Reason.TIMED_OUT


def test_pods_that_the_job_does_not_own_report_nothing() -> None:
    foreign = a_pod("Failed", ended(code=1), owner="other")
    assert reason_of(verdict(a_job(), foreign)) == Reason.CHECK_PENDING
    assert reason_of(verdict(a_job(**condition("Failed")), foreign)) == Reason.CHECK_INTERRUPTED


def test_check_waits_with_a_limit_until_it_runs() -> None:
    found = verdict(a_job(), warning="exceeded quota: pods")
    assert isinstance(found, Wait)
    assert (found.reason, found.limit, "exceeded quota" in found.message) == (
        Reason.CHECK_PENDING,
        Deadlines().mover_start,
        True,
    )
    image = verdict(a_job(), a_pod("Pending", waiting("ImagePullBackOff")))
    assert isinstance(image, Wait)
    assert (image.reason, image.limit is not None) == (Reason.IMAGE_PULL_FAILED, True)
    runs = verdict(a_job(), a_pod("Running", running("check")))
    assert isinstance(runs, Wait)
    assert (runs.reason, runs.limit) == (Reason.CHECK_RUNNING, None)
