"""What the state of a mover Job means for the operation that it serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from cinderblock.api.kubernetes import Pod
from cinderblock.api.mover import MoverProgress, MoverReport
from cinderblock.api.v1alpha1.backup import Progress, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import StartMover
from cinderblock.lifecycle.observed import ObservedMover, OperatorPolicy
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Wait

IMAGE_PULL_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
QUEUED = "Queued"
"""What an operation says while it waits until fewer movers run."""
FIRST_IN_QUEUE = 5.0
LAST_IN_QUEUE = 60.0
"""Seconds between looks of those who wait for a mover: the next ones, and those who have many before them."""
WITH_ITS_JOB = timedelta(minutes=1)
"""A pod that is so much younger than its Job is not the first, or a quota or a policy has held it up."""
OVERDUE = timedelta(minutes=2)
"""How long after its time has run out a pod is still there before somebody is asked to look at its node."""
RUNNING = "MoverRunning"
STALLED = "MoverStalled"
TERMINATION_MESSAGE_LIMIT = 200
"""Characters of a mover's last log line that go into a message when it left no report."""


Reported = VolumeBackupStatus | VolumeRestoreStatus


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The mover says that it has succeeded. The store, not the mover, is then asked whether there is a backup."""

    report: MoverReport


def evaluate(mover: ObservedMover, policy: OperatorPolicy) -> Succeeded | Fail | Wait:
    """What to make of a mover Job that exists."""
    if mover.job is None:
        raise ValueError("there is no Job to judge")
    report = success(mover)
    if report is not None:
        return Succeeded(report)
    if mover.job.failure is not None:
        return _failure(mover)
    if mover.job.is_complete:
        return Succeeded(MoverReport(succeeded=True))
    if mover.job.metadata.is_being_deleted:
        return Fail("MoverDeleted", "The mover Job was deleted by somebody else before it had finished")
    return _waiting(mover, policy)


def start(mover: ObservedMover) -> StartMover | None:
    """What lets a mover run that was created and waits for that."""
    job = mover.job
    if job is None or not job.spec.suspend or job.metadata.is_being_deleted:
        return None
    return StartMover(job.name, job.uid)


def check_stall(
    verdict: Fail | Wait, mover: ObservedMover, before: Reported, now: datetime, limits: Deadlines
) -> Fail | Wait:
    """The verdict about a mover, but for one that runs and gets nowhere: that is said, and has an end.

    ``before`` is the status as it was written last: it changes with every progress, and ``updatedAt`` says when.
    """
    if not isinstance(verdict, Wait) or verdict.reason != RUNNING:
        return verdict
    progress = to_progress(mover.progress)
    if progress is not None and progress != before.progress:
        return verdict
    told = conditions.waiting_since(before.conditions, STALLED) is not None
    ran = conditions.waiting_since(before.conditions, RUNNING) is not None
    quiet = ran and before.updated_at is not None and now - before.updated_at >= limits.stall
    if not told and not quiet:
        return verdict
    minutes = int(limits.stall.total_seconds() // 60)
    message = (
        f"The mover runs, but has told of no progress for {minutes} minutes or more: look at its pod and its volume"
    )
    return Wait("MoverStalled", message, limit=limits.stalled, requeue_after=30.0)


def success(mover: ObservedMover) -> MoverReport | None:
    """The report of the pod that has succeeded, if one has."""
    reports = (read_report(pod) for pod in reversed(mover.pods))
    return next((report for report in reports if report and report.succeeded), None)


def is_at_work(mover: ObservedMover) -> bool:
    """Whether a pod of the mover may still touch the volume or the store."""
    return any(not pod.has_ended for pod in mover.pods)


def stop_message(words: str, mover: ObservedMover, now: datetime) -> str:
    """What is said while pods of a mover are to end. One that does not end is never passed over: it may still write.

    Only its kubelet can tell that it has ended; of a node that is lost for good, an administrator must say so
    (Kubernetes: "Non-graceful node shutdown handling").
    """
    stuck = [pod.name for pod in mover.pods if not pod.has_ended and _is_overdue(pod, now)]
    if not stuck:
        return words
    return (
        f"{words}, but pod {', '.join(stuck)} does not end. If its node is gone for good, say so with the taint"
        " node.kubernetes.io/out-of-service, or delete the pod with --force"
    )


def _is_overdue(pod: Pod, now: datetime) -> bool:
    """Whether a pod was to be gone long ago; its deletionTimestamp is when its time to end in order runs out."""
    end = pod.metadata.deletion_timestamp
    return end is not None and now - end > OVERDUE


def unfinished(mover: ObservedMover) -> str:
    """The pods of a mover that may still be at work, and where, for a person; empty: there are none."""
    return ", ".join(
        f"Pod {pod.name}" + (f" on node {pod.spec.node_name}" if pod.spec.node_name else "")
        for pod in mover.pods
        if not pod.has_ended
    )


def may_have_committed(mover: ObservedMover) -> bool:
    """Whether a manifest may have been written: a container has ended, or the Job says that one had.

    A container that has ended is enough: its pod says so in its phase only later.
    """
    job = mover.job
    ended = any(pod.has_ended or pod.terminated is not None for pod in mover.pods)
    return ended or (job is not None and (job.is_complete or job.failure is not None))


def read_report(pod: Pod) -> MoverReport | None:
    """The report that a mover left as its termination message, if it left one."""
    ended = pod.terminated
    if ended is None or not ended.message.startswith("{"):
        return None
    try:
        return MoverReport.model_validate_json(ended.message)
    except ValidationError:
        return None


def to_progress(line: MoverProgress | None) -> Progress | None:
    """Progress as the status shows it."""
    if line is None:
        return None
    share = 100 * line.bytes_done // line.bytes_total if line.bytes_total else 0
    return Progress(bytes_done=line.bytes_done, bytes_total=line.bytes_total, percent=min(100, share))


def wait_for_slot(mover: ObservedMover, policy: OperatorPolicy, store: BackupStore) -> Wait | None:
    """Wait while as many movers run as may, or while older operations wait for those that may still be started."""
    limit = policy.mover.limit
    if not has_room(mover, limit):
        return _queue(f"No more than {limit} movers may run in the cluster", mover.waiting_before, limit)
    limit = store.spec.limits.movers or limit
    if sum(other.store == store.uid for other in mover.others) + mover.waiting_before_for_store >= limit:
        words = f"No more than {limit} movers may use BackupStore {store.name}"
        return _queue(words, mover.waiting_before_for_store, limit)
    return None


def has_room(mover: ObservedMover, limit: int) -> bool:
    """Whether the limit of the cluster lets one more mover start, those counted that have waited for longer."""
    return len(mover.others) + mover.waiting_before < limit


def _queue(words: str, before: int, limit: int) -> Wait:
    """Wait in line. Who stands at its end looks less often; the words stay the same, so nothing is written."""
    requeue_after = min(LAST_IN_QUEUE, FIRST_IN_QUEUE * (1 + before / limit))
    return Wait(QUEUED, f"{words}, and older operations go first", requeue_after=requeue_after)


def _failure(mover: ObservedMover) -> Fail:
    """Why a Job has given up: in the words of its last pod, else of the Job."""
    for pod in reversed(mover.pods):
        report = read_report(pod)
        if report:
            return Fail(report.reason or "MoverFailed", report.message)
        ended = pod.terminated
        if ended is not None:
            return _died(ended.exit_code, ended.reason, ended.message)
        if pod.status.phase == "Failed":
            return Fail(pod.status.reason or "MoverFailed", pod.status.message or "The mover's pod failed")
    failure = mover.job.failure if mover.job else None
    return Fail("MoverFailed", f"The mover failed: {failure.message if failure else 'no pod of it is left'}")


def _died(exit_code: int, reason: str, words: str) -> Fail:
    """A container that ended without a report."""
    if reason == "OOMKilled":
        return Fail("MoverOutOfMemory", "The mover ran out of memory: raise spec.mover.resources of the BackupStore")
    return Fail(
        "MoverDied",
        f"The mover ended with exit code {exit_code} ({reason or 'no reason'}) and no report: {_cut(words)}",
    )


def _termination_message(pod: Pod) -> str:
    """What a mover that has ended said: its report, or its last line."""
    report, ended = read_report(pod), pod.terminated
    if report:
        return report.message
    return _cut(ended.message) if ended else pod.status.message or "it left no word"


def _cut(words: str) -> str:
    """The last line of a log, of a length that fits into a message."""
    return words.strip().splitlines()[-1][:TERMINATION_MESSAGE_LIMIT] if words.strip() else "it said nothing"


def _waiting(mover: ObservedMover, policy: OperatorPolicy) -> Wait:
    """What a Job that goes on is doing. Every pod of it has the same time to start, however old the Job is."""
    start = policy.deadlines.mover_start
    if not mover.pods:
        return starting(policy, _with_warning(mover))
    pod = mover.pods[-1]
    since = pod.metadata.creation_timestamp
    if pod.has_ended:
        again = f"Attempt {len(mover.pods)} of the mover failed, and it is started again: {_termination_message(pod)}"
        ended = pod.terminated
        return Wait("MoverRetrying", again, (ended.finished_at if ended else None) or since, start, 5.0)
    if pod.unschedulable:
        return Wait("MoverUnschedulable", f"No node for the mover: {pod.unschedulable}{_volume(mover)}", since, start)
    if pod.waiting and pod.waiting.reason in IMAGE_PULL_REASONS:
        return Wait("ImagePullFailed", f"The mover's image cannot be had: {pod.waiting.message}", since, start)
    if pod.status.phase != "Running" and not _with_warning(mover):
        return starting(policy, since=since if _started_late(mover, pod) else None)
    if pod.status.phase != "Running":
        return Wait("MoverStarting", f"The mover's pod is starting{_with_warning(mover)}", since, start, 5.0)
    return Wait("MoverRunning", "The mover is copying", None, None, 5.0)


def starting(policy: OperatorPolicy, because: str = "", since: datetime | None = None) -> Wait:
    """Wait for a mover that is being started: the same status from its Job to its container, so it is written once."""
    return Wait("MoverPending", f"The mover is being started{because}", since, policy.deadlines.mover_start, 5.0)


def _started_late(mover: ObservedMover, pod: Pod) -> bool:
    """Whether a pod did not come with its Job: it has its own time to start then."""
    made, began = pod.metadata.creation_timestamp, mover.job.metadata.creation_timestamp if mover.job else None
    return made is not None and began is not None and made - began > WITH_ITS_JOB


def _with_warning(mover: ObservedMover) -> str:
    """What the cluster says against the mover's start, if it says anything."""
    return (f": {mover.warning}" if mover.warning else "") + _volume(mover)


def _volume(mover: ObservedMover) -> str:
    """What the cluster says against the volume that the mover waits for, if it says anything."""
    return f". Its volume: {mover.claim_warning}" if mover.claim_warning else ""
