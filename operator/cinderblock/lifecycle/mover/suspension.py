"""The start of a mover's Job, by the operator, or by a queue that adopts Jobs, such as Kueue.

Kueue suspends a Job until a queue admits it, and suspends it again if anybody else starts it. With a LocalQueue named
``default``, it adopts every Job of the namespace. So the operator starts a Job at most once, and never a Job with the
label of a queue.

A queue can also hold the pod of a Job back, with scheduling gates. The operator waits for it in the same way.
"""

from __future__ import annotations

from typing import Final

from cinderblock.api import labels
from cinderblock.api.kubernetes import Job
from cinderblock.lifecycle.actions import StartMover
from cinderblock.lifecycle.observed import ObservedMover
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.reasons import Reason

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
JOB_CONTROLLER: Final = "kubernetes.io/job-controller"


def start(mover: ObservedMover) -> StartMover | None:
    """Return the action that starts a suspended mover Job, if the operator has to start it."""
    job = mover.job
    if job is None or not job.spec.suspend or job.metadata.is_being_deleted or is_held(job):
        return None
    return StartMover(job.name, job.uid)


def is_held(job: Job) -> bool:
    """Return whether another controller suspends the Job."""
    is_foreign = QUEUE_LABEL in job.metadata.labels or labels.STARTED_ANNOTATION in job.metadata.annotations
    return job.spec.suspend and is_foreign


def is_gated(mover: ObservedMover) -> bool:
    """Return whether a queue holds back the newest pod of the mover, and not its Job."""
    return bool(mover.pods) and mover.pods[-1].is_gated


def is_waiting(mover: ObservedMover) -> bool:
    """Return whether a mover is yet to start, or to start again, by the operator or by a queue."""
    return mover.job is not None and (mover.job.spec.suspend or is_gated(mover))


def check(job: Job) -> Fail | Wait | None:
    """Wait for a controller that suspends the Job, without a limit. Fail if the Job is to run elsewhere."""
    if job.spec.managed_by not in ("", JOB_CONTROLLER):
        cause = f"The mover Job is managed by {job.spec.managed_by}, which may run it without its volume."
        return Fail(Reason.MOVER_REFUSED, f"{cause} Exempt the Jobs of Cinderblock from it.")
    if not is_held(job):
        return None
    queue = job.metadata.labels.get(QUEUE_LABEL)
    if queue:
        return Wait(Reason.MOVER_SUSPENDED, f"The mover Job waits until LocalQueue {queue} admits it")
    cause = "Another controller suspends the mover Job, and the operator does not start it again"
    return Wait(Reason.MOVER_SUSPENDED, f"{cause}. Find out which one, or exempt the Jobs of Cinderblock from it")


def check_gates(mover: ObservedMover) -> Wait | None:
    """Wait for a queue that holds the mover's pod back, without a limit."""
    if not is_gated(mover):
        return None
    message = "The mover pod has scheduling gates, and waits until a queue such as Kueue removes them"
    return Wait(Reason.MOVER_SUSPENDED, message)
