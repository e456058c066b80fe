"""The state of the Job of a check: it passed, it failed, it could not decide, or it still runs.

Only an exit code that the check itself chose is a statement about the data. A check that was evicted, killed, or never
started says nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cinderblock.api.kubernetes import ContainerTerminated, ContainerWaiting, Job, Pod
from cinderblock.api.v1alpha1.verification import MESSAGE_LIMIT as TERMINATION_LIMIT
from cinderblock.lifecycle.mover.state import IMAGE_PULL_REASONS
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Wait
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill
from cinderblock.reasons import Reason

NOT_OF_THE_CHECK: Final = frozenset(
    {"OOMKilled", "StartError", "ContainerCannotRun", "ContainerStatusUnknown", "DeadlineExceeded"}
)
"""Reasons of the kubelet and the runtime for the end of a container that its program did not choose."""
KILLED: Final = frozenset({137, 143})
"""Exit codes of a program that SIGKILL or SIGTERM has ended."""
DISRUPTED: Final = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated"})
"""Reasons of a pod that its node or the cluster has ended."""
MESSAGE_LIMIT: Final = 300
"""Characters of a message of the cluster that are passed on."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The check has decided.

    Attributes:
        exit_code: 0 if it passed.
        at: when it ended; None: not known.
        container: name of the container with the exit code; empty: not known.
        message: what it has left in its terminationMessagePath, for a person. Nothing of its log is read, which may
            contain secrets.
    """

    exit_code: int
    at: datetime | None
    container: str = ""
    message: str = ""


def evaluate(drill: ObservedDrill, deadlines: Deadlines) -> Ended | Fail | Wait:
    """Return the verdict on the Job of a check."""
    job = drill.job
    if job is None:
        raise ValueError("there is no Job to evaluate")
    pod = drill.own_pods[-1] if drill.own_pods else None
    if job.is_complete:
        return _passed([end for _, end in _ends(pod, job)])
    if job.failure is not None and job.failure.reason == "DeadlineExceeded":
        return Fail(Reason.TIMED_OUT, "The check did not end in time. Increase spec.restore.timeout, or shorten it.")
    verdict = _of_pod(pod, job) if pod is not None else None
    if verdict is not None:
        return verdict
    if job.failure is not None:
        return _interrupted(f"its pod is gone ({job.failure.message[:MESSAGE_LIMIT]})")
    if job.metadata.is_being_deleted:
        return _interrupted("somebody deleted its Job")
    return _waiting(pod, drill.warning, deadlines)


def _of_pod(pod: Pod, job: Job) -> Ended | Fail | None:
    """Return the verdict on a pod whose containers have decided; None: they have not yet."""
    ends = dict(_ends(pod, job))
    failed = next(((name, end) for name, end in ends.items() if end.exit_code), None)
    if _is_disrupted(pod) and (failed is None or failed[1].exit_code in KILLED):
        return _interrupted(f"the cluster ended its pod ({pod.status.reason or 'disruption'})")
    if failed is not None:
        name, end = failed
        if end.reason in NOT_OF_THE_CHECK:
            return _interrupted(f"its container {name} ended with {end.reason}: {end.message[:MESSAGE_LIMIT]}")
        if pod.metadata.is_being_deleted and end.exit_code in KILLED:
            return _interrupted("somebody deleted its pod")
        return Ended(end.exit_code, end.finished_at, name, _message(end))
    own = job.spec.template.spec.containers
    if own and all(container.name in ends for container in own):
        # An injected container may keep the pod alive.
        return _passed(list(ends.values()))
    return _interrupted("its pod ended without an exit code") if pod.has_ended else None


def _passed(ends: Collection[ContainerTerminated]) -> Ended:
    at = max((end.finished_at for end in ends if end.finished_at), default=None)
    return Ended(0, at, message=next((message for end in ends if (message := _message(end))), ""))


def _message(end: ContainerTerminated) -> str:
    """Return the end of a message as plain text: a terminal must not obey what is in it."""
    text = "".join(letter for letter in end.message if letter.isprintable() or letter == "\n")
    return text.strip()[-TERMINATION_LIMIT:]


def _ends(pod: Pod | None, job: Job) -> Iterator[tuple[str, ContainerTerminated]]:
    """Yield the containers of the template that have ended. Others may have injected further ones.

    Sidecars do not count: the kubelet ends them after the check, mostly with a signal.
    """
    if pod is None:
        return
    spec = job.spec.template.spec
    steps = (container for container in spec.init_containers if not container.is_sidecar)
    names = {container.name for container in (*steps, *spec.containers)}
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        if status.name in names and status.state.terminated is not None:
            yield status.name, status.state.terminated


def _is_disrupted(pod: Pod) -> bool:
    conditions = pod.status.conditions
    has_condition = any(c.type == "DisruptionTarget" and c.status == "True" for c in conditions)
    return has_condition or pod.status.reason in DISRUPTED


def _interrupted(cause: str) -> Fail:
    return Fail(Reason.CHECK_INTERRUPTED, f"The check ended without a result: {cause}. The data may be fine.")


def _waiting(pod: Pod | None, warning: str, deadlines: Deadlines) -> Wait:
    limit = deadlines.mover_start
    if pod is None or pod.status.phase != "Running":
        image = _image_problem(pod.waiting_containers if pod is not None else ())
        if image:
            return Wait(Reason.IMAGE_PULL_FAILED, image, limit=limit)
        cause = (pod.unschedulable if pod is not None else None) or warning
        detail = f": {cause[:MESSAGE_LIMIT]}" if cause else ""
        return Wait(Reason.CHECK_PENDING, f"The check is being started{detail}", limit=limit)
    return Wait(Reason.CHECK_RUNNING, "The check is running")


def _image_problem(waiting: Collection[tuple[str, ContainerWaiting]]) -> str:
    for name, state in waiting:
        if state.reason in IMAGE_PULL_REASONS:
            cause = state.message[:MESSAGE_LIMIT] or state.reason
            return f"Cannot pull the image of container {name} of the check: {cause}"
    return ""
