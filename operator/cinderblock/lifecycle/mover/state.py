"""The state of a mover Job, and what it means for the operation that the Job serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from cinderblock.api.conditions import ConditionType
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, Pod
from cinderblock.api.labels import child_name
from cinderblock.api.mover import EXIT_PERMANENT, MOVER_CONTAINER, MoverProgress, MoverReport
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrantStatus
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.progress import MoverReference, Progress
from cinderblock.api.v1alpha1.restore import VolumeRestore, VolumeRestoreStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSourceStatus
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus
from cinderblock.api.v1alpha1.verification import BackupVerification, BackupVerificationStatus
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import AnyStatus
from cinderblock.lifecycle.mover import refusals, suspension
from cinderblock.lifecycle.observed import MoverSettings, ObservedMover, OperatorPolicy
from cinderblock.lifecycle.verdicts import Deadlines, Fail, Wait
from cinderblock.reasons import Reason, parse_reason

IMAGE_PULL_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
"""Reasons that the kubelet gives for a container without an image."""
MIN_QUEUE_SECONDS = 5.0
MAX_QUEUE_SECONDS = 60.0
"""Seconds between checks for a free mover slot: of the next operations, and of those that wait for many others."""
LATE_POD_AGE = timedelta(minutes=1)
"""A pod that is this much younger than its Job is not the first, or a quota or a policy delayed it."""
LATE_CLAIM_AGE = timedelta(minutes=1)
"""A provisioner takes seconds. From this age on, a claim that is not bound is reported."""
INJECTED_GRACE = timedelta(minutes=1)
"""Time after the end of a mover in which injected containers may end by themselves."""
STUCK_POD_AGE = timedelta(minutes=2)
"""Time after the end of a pod's grace period from which a message asks to check its node."""
LAST_LINE_LIMIT = 200
"""Characters of the last log line of a mover without a report that go into a message."""

MOVER_REASONS = frozenset(
    {
        Reason.MOVER_PENDING,
        Reason.MOVER_STARTING,
        Reason.MOVER_RUNNING,
        Reason.MOVER_RETRYING,
        Reason.MOVER_STALLED,
        Reason.MOVER_UNSCHEDULABLE,
        Reason.IMAGE_PULL_FAILED,
    }
)
"""Reasons of an operation that has a mover which has not ended."""

ReportedStatus = VolumeBackupStatus | VolumeRestoreStatus | BackupVerificationStatus


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The mover reports success. Whether there is a backup is for the store to say, not for the mover."""

    report: MoverReport


def evaluate(mover: ObservedMover, policy: OperatorPolicy) -> Succeeded | Fail | Wait:
    """Return the verdict on a mover Job that exists."""
    if mover.job is None:
        raise ValueError("there is no Job to evaluate")
    report = success(mover)
    if report is not None:
        return Succeeded(report)
    if mover.job.failure is not None:
        return _failure(mover)
    if mover.job.is_complete:
        return Succeeded(MoverReport(succeeded=True))
    if mover.job.metadata.is_being_deleted:
        return Fail(Reason.MOVER_DELETED, "The mover Job was deleted by somebody else before it had finished")
    return suspension.check(mover.job) or suspension.check_gates(mover) or _waiting(mover, policy)


def is_recorded(status: ReportedStatus, job: Job) -> bool:
    """Return whether the operation's own status says that this Job is its mover.

    Nobody but the operator writes a status, while anybody in the namespace can create a Job with any name and owner.
    Release 0.1.0 recorded no UID: the reason of its status shows that it had created the Job.
    """
    return _records(status, job.uid)


def _records(status: ReportedStatus, uid: str) -> bool:
    if status.mover is not None or isinstance(status, BackupVerificationStatus):
        return status.mover is not None and status.mover.uid == uid
    return bool(_reasons(status) & (MOVER_REASONS | {Reason.REBINDING}))


def is_pod_of(operation: VolumeBackup | VolumeRestore, pod: Pod) -> bool:
    """Return whether a pod is the mover of an operation, by the UID of its Job and the operation's own status.

    Anybody can put the labels of a mover into the template of a controller. An operation that has ended, or is being
    deleted, no longer records its mover, so its pods are those that existed before.
    """
    name = child_name(operation.uid)
    jobs = [owner.uid for owner in pod.metadata.owner_references if (owner.kind, owner.name) == ("Job", name)]
    if not jobs or operation.own_phase is None:
        return False
    if _records(operation.status, jobs[0]):
        return True
    ended, created = _ended_at(operation), pod.metadata.creation_timestamp
    return ended is not None and created is not None and created <= ended


def _ended_at(operation: VolumeBackup | VolumeRestore) -> datetime | None:
    """Return when an operation ended or was deleted, whichever came first; None if it has a mover or never had one.

    updatedAt does not tell, because it changes when a user renames a backup that has ended.
    """
    if isinstance(operation, VolumeBackup) and operation.spec.import_:
        return None
    ends = (
        operation.metadata.deletion_timestamp,
        operation.status.completed_at,
        conditions.ended_at(operation.status.conditions) if operation.has_ended else None,
    )
    return min(filter(None, ends), default=None)


def has_mover(operation: VolumeBackup | VolumeRestore | BackupVerification) -> bool:
    """Return whether the operation's own status records a mover, or release 0.1.0 had started one."""
    status = operation.status
    if operation.own_phase is None or isinstance(status, BackupVerificationStatus):
        return operation.own_phase is not None and status.mover is not None
    return bool(status.mover or _reasons(status) & MOVER_REASONS)


def _reasons(status: ReportedStatus) -> set[str]:
    return {condition.reason for condition in status.conditions if condition.type == ConditionType.RECONCILING}


def recorded_uid(status: AnyStatus) -> str | None:
    """Return the UID of the mover Job that a status records."""
    mover = None if isinstance(status, BackupStoreStatus | BackupGrantStatus | RestoreSourceStatus) else status.mover
    return mover.uid if mover is not None else None


def reference(status: ReportedStatus, mover: ObservedMover) -> MoverReference | None:
    """Return what a status records about the mover Job as long as it exists."""
    if mover.job is None or not mover.is_recorded:
        return None
    if status.mover is not None:
        return status.mover
    store_name = status.store_name if isinstance(status, VolumeBackupStatus) else None
    return MoverReference(uid=mover.job.uid, store_name=store_name)


def is_running(mover: ObservedMover) -> bool:
    """Return whether there is a recorded Job that has not ended, and that no other controller holds back."""
    job = mover.job
    if job is None or not mover.is_recorded or suspension.is_held(job) or suspension.is_gated(mover):
        return False
    return not job.is_complete and job.failure is None


def check_injected(verdict: Fail | Wait, mover: ObservedMover, now: datetime) -> Fail | Wait:
    """Return ``verdict``, or the failure of a mover whose pod an injected container keeps alive.

    The Job sees neither the end of such a pod nor a reason for another attempt. An injected container that is to end
    after the mover has a minute for it. Deleting the Job ends the others.
    """
    pod = mover.pods[-1] if mover.pods else None
    if not isinstance(verdict, Wait) or pod is None or pod.kept_alive_by is None or pod.terminated is None:
        return verdict
    finished_at = pod.terminated.finished_at
    is_permanent = pod.terminated.exit_code == EXIT_PERMANENT
    if not is_permanent and finished_at is not None and now - finished_at < INJECTED_GRACE:
        return verdict
    return _pod_failure(pod) or verdict


def check_stall(
    verdict: Fail | Wait, mover: ObservedMover, before: ReportedStatus, now: datetime, limits: Deadlines
) -> Fail | Wait:
    """Return ``verdict``, or a wait with a limit if the mover runs without progress.

    ``before`` is the status as it was written last. It changes with every progress, and ``updatedAt`` says when.
    """
    if not isinstance(verdict, Wait) or verdict.reason != Reason.MOVER_RUNNING:
        return verdict
    progress = to_progress(mover.progress)
    if progress is not None and progress != before.progress:
        return verdict
    is_reported = conditions.waiting_since(before.conditions, Reason.MOVER_STALLED) is not None
    was_running = conditions.waiting_since(before.conditions, Reason.MOVER_RUNNING) is not None
    is_silent = was_running and before.updated_at is not None and now - before.updated_at >= limits.stall
    if not is_reported and not is_silent:
        return verdict
    minutes = int(limits.stall.total_seconds() // 60)
    message = (
        f"The mover runs, but has reported no progress for {minutes} minutes or more. Check its pod and its volume."
    )
    return Wait(Reason.MOVER_STALLED, message, limit=limits.stalled, requeue_after=30.0)


def success(mover: ObservedMover) -> MoverReport | None:
    """Return the report of the pod that has succeeded, if one has."""
    reports = (read_report(pod) for pod in reversed(mover.pods))
    return next((report for report in reports if report and report.succeeded), None)


def is_at_work(mover: ObservedMover) -> bool:
    """Return whether a pod of the mover may still use the volume or the store."""
    return any(not pod.has_ended for pod in mover.pods)


def stop_message(message: str, mover: ObservedMover, now: datetime) -> str:
    """Return ``message`` about a mover that is being stopped, with advice about pods that do not end.

    Such a pod may still write, so nothing proceeds without its end. Only its kubelet can report the end. If its node is
    lost for good, an administrator must say so (Kubernetes: "Non-graceful node shutdown handling").
    """
    stuck = [pod.name for pod in mover.pods if not pod.has_ended and _is_stuck(pod, now)]
    if not stuck:
        return message
    return (
        f"{message}, but pod {', '.join(stuck)} does not end. If its node is permanently gone, taint the node with"
        " node.kubernetes.io/out-of-service, or delete the pod with --force"
    )


def _is_stuck(pod: Pod, now: datetime) -> bool:
    """Return whether a pod has outlived its grace period, which ends at its deletionTimestamp, for a long time."""
    end = pod.metadata.deletion_timestamp
    return end is not None and now - end > STUCK_POD_AGE


def unfinished(mover: ObservedMover) -> str:
    """Return the pods of a mover that have not ended, with their nodes, for a person; empty: there are none."""
    return ", ".join(
        f"Pod {pod.name}" + (f" on node {pod.spec.node_name}" if pod.spec.node_name else "")
        for pod in mover.pods
        if not pod.has_ended
    )


def may_have_committed(mover: ObservedMover) -> bool:
    """Return whether a mover may have written a manifest: a container has ended, or the Job says so.

    The container counts, because its pod reports the end in its phase only later.
    """
    job = mover.job
    has_ended = any(pod.has_ended or pod.terminated is not None for pod in mover.pods)
    return has_ended or (job is not None and (job.is_complete or job.failure is not None))


def read_report(pod: Pod) -> MoverReport | None:
    """Return the report in the termination message of a pod, if there is one."""
    terminated = pod.terminated
    if terminated is None or not terminated.message.startswith("{"):
        return None
    try:
        return MoverReport.model_validate_json(terminated.message)
    except ValidationError:
        return None


def to_progress(line: MoverProgress | None) -> Progress | None:
    """Return the progress of a mover as the status shows it."""
    if line is None:
        return None
    share = 100 * line.bytes_done // line.bytes_total if line.bytes_total else 0
    return Progress(bytes_done=line.bytes_done, bytes_total=line.bytes_total, percent=min(100, share))


def wait_for_slot(mover: ObservedMover, policy: OperatorPolicy, store: BackupStore) -> Wait | None:
    """Wait while the limits allow no more movers, counting operations that get a slot earlier as well."""
    limit = policy.mover.limit
    if not has_room(mover, policy.mover):
        rule = f"No more than {limit} movers may run in the cluster, and namespaces take turns"
        return _queue(rule, mover.waiting_before, limit)
    limit = policy.mover.namespace_limit
    if not has_room_in_namespace(mover, store.namespace, policy.mover):
        rule = f"No more than {limit} movers may run in namespace {store.namespace}, and older operations go first"
        return _queue(rule, mover.waiting_before_in_namespace, limit)
    if isinstance(store, SharedStore):
        return _wait_for_shared_store(mover, policy, store)
    limit = store.spec.limits.movers or policy.mover.limit
    same = sum((other.namespace, other.store) == (store.namespace, store.name) for other in mover.others)
    if same + mover.waiting_before_for_store >= limit:
        rule = f"No more than {limit} movers may use BackupStore {store.name}, and older operations go first"
        return _queue(rule, mover.waiting_before_for_store, limit)
    return None


def _wait_for_shared_store(mover: ObservedMover, policy: OperatorPolicy, store: SharedStore) -> Wait | None:
    """Wait while the limits of a ClusterBackupStore allow no more movers, of all namespaces or of this one."""
    same = [other for other in mover.others if other.cluster_store == store.cluster_store]
    limit = store.movers_per_namespace or policy.mover.namespace_limit
    own = sum(other.namespace == store.namespace for other in same)
    if own + mover.waiting_before_for_store >= limit:
        rule = f"No more than {limit} movers of a namespace may use BackupStore {store.name}, and older operations go"
        return _queue(f"{rule} first", mover.waiting_before_for_store, limit)
    limit = store.spec.limits.movers or policy.mover.limit
    if len(same) + mover.waiting_before_for_cluster_store >= limit:
        rule = (
            f"No more than {limit} movers may use ClusterBackupStore {store.cluster_store}, and namespaces take turns"
        )
        return _queue(rule, mover.waiting_before_for_cluster_store, limit)
    return None


def has_room(mover: ObservedMover, settings: MoverSettings) -> bool:
    """Return whether the cluster's limit allows another mover, counting operations that get a slot earlier.

    Each namespace counts for at most its own limit. It can run more movers than that: a queue or a user can hold many
    Jobs back, and then let all of them go at once.
    """
    by_namespace = Counter(other.namespace for other in mover.others)
    counted = sum(min(count, settings.namespace_limit) for count in by_namespace.values())
    return counted + mover.waiting_before < settings.limit


def has_room_in_namespace(mover: ObservedMover, namespace: str, settings: MoverSettings) -> bool:
    """Return whether the limit of a namespace allows another mover, counting its older operations."""
    running = sum(other.namespace == namespace for other in mover.others)
    return running + mover.waiting_before_in_namespace < settings.namespace_limit


def _queue(rule: str, before: int, limit: int) -> Wait:
    """Wait for a slot: the longer the queue, the less often. The message is constant, so nothing is written."""
    requeue_after = min(MAX_QUEUE_SECONDS, MIN_QUEUE_SECONDS * (1 + before / limit))
    return Wait(Reason.QUEUED, rule, requeue_after=requeue_after)


def _failure(mover: ObservedMover) -> Fail:
    """Return the failure of a Job, as its last pod reports it, otherwise as the Job does."""
    for pod in reversed(mover.pods):
        failure_of_pod = _pod_failure(pod)
        if failure_of_pod is not None:
            return failure_of_pod
    failure = mover.job.failure if mover.job else None
    return Fail(Reason.MOVER_FAILED, f"The mover failed: {failure.message if failure else 'its pods are gone'}")


def _pod_failure(pod: Pod) -> Fail | None:
    """Return the failure that a pod reports, if it does."""
    report = read_report(pod)
    if report:
        return Fail(parse_reason(report.reason or Reason.MOVER_FAILED), report.message)
    terminated = pod.terminated
    if terminated is not None:
        return _died(terminated.exit_code, terminated.reason, terminated.message)
    if pod.status.phase != "Failed":
        return None
    reason = parse_reason(pod.status.reason or Reason.MOVER_FAILED)
    return Fail(reason, pod.status.message or "The mover pod failed")


def _died(exit_code: int, reason: str, log: str) -> Fail:
    """Return the failure of a container that ended without a report."""
    if reason == "OOMKilled":
        message = "The mover exceeded its memory limit. Raise spec.mover.resources of the BackupStore."
        return Fail(Reason.MOVER_OUT_OF_MEMORY, message)
    cause = f"The mover ended with exit code {exit_code} ({reason or 'no reason'}) and without a report"
    return Fail(Reason.MOVER_DIED, f"{cause}. Last log line: {_last_line(log) or 'none'}")


def _termination_message(pod: Pod) -> str:
    """Return the report of a mover that has ended, otherwise its last log line, otherwise how its container ended."""
    report, terminated = read_report(pod), pod.terminated
    if report:
        return report.message
    if terminated is None:
        return pod.status.message or "it left no report"
    how = f"it ended with exit code {terminated.exit_code} ({terminated.reason or 'no reason'}) and without a report"
    return _last_line(terminated.message) or how


def _last_line(log: str) -> str:
    """Return the last line of a log, cut to the length that a message may have; empty for an empty log."""
    return log.strip().splitlines()[-1][:LAST_LINE_LIMIT] if log.strip() else ""


def _waiting(mover: ObservedMover, policy: OperatorPolicy) -> Wait:
    """Return the wait for a Job in progress. Each of its pods has the full time to start, however old the Job is.

    A pod without a node has it from the first report on, because a queue may have held it back since its creation. A
    pod with a node has it from then on.
    """
    limit = policy.deadlines.mover_start
    if not mover.pods:
        refused = refusals.refused_pod(mover.warning)
        if refused is not None:
            return Wait(refused.reason, refused.message, None, limit)
        return starting(policy, _warnings(mover))
    pod = mover.pods[-1]
    since = pod.scheduled_at or pod.metadata.creation_timestamp
    if pod.has_ended or pod.kept_alive_by is not None:
        message = f"Attempt {len(mover.pods)} of the mover failed, and another one follows: {_termination_message(pod)}"
        terminated = pod.terminated
        finished_at = terminated.finished_at if terminated else None
        return Wait(Reason.MOVER_RETRYING, message, finished_at or since, limit, 5.0)
    if pod.unschedulable:
        message = f"Cannot schedule the mover pod: {pod.unschedulable}{_claim_warning(mover)}"
        return Wait(Reason.MOVER_UNSCHEDULABLE, message, limit=limit)
    for name, waiting in pod.waiting_containers:
        if waiting.reason in IMAGE_PULL_REASONS:
            image = "the mover image" if name == MOVER_CONTAINER else f"the image of injected container {name}"
            return Wait(Reason.IMAGE_PULL_FAILED, f"Cannot pull {image}: {waiting.message}", since, limit)
    if pod.status.phase != "Running" and not _warnings(mover):
        return starting(policy, since=since if _started_late(mover, pod) else None)
    if pod.status.phase != "Running":
        return Wait(Reason.MOVER_STARTING, f"The mover pod is starting{_warnings(mover)}", since, limit, 5.0)
    return Wait(Reason.MOVER_RUNNING, "The mover is copying", None, None, 5.0)


def starting(policy: OperatorPolicy, warning: str = "", since: datetime | None = None) -> Wait:
    """Wait for the start of a mover, with the same status from its Job to its container, so that it is written once."""
    message = f"The mover is being started{warning}"
    return Wait(Reason.MOVER_PENDING, message, since, policy.deadlines.mover_start, 5.0)


def wait_for_claim(
    claim: PersistentVolumeClaim, late_classes: Collection[str], mover: ObservedMover, policy: OperatorPolicy
) -> Wait | None:
    """Wait until a mover can mount its temporary claim: a pod without a volume looks unschedulable, and is put off.

    A class of ``late_classes`` binds a claim only when a pod needs it, so its mover comes first.
    """
    if claim.is_bound or claim.spec.storage_class_name in late_classes:
        return None
    message = f"PersistentVolumeClaim {claim.name} is not bound"
    detail = f": {mover.claim_warning}" if mover.claim_warning else ""
    return Wait(
        Reason.CLAIM_NOT_BOUND, message + detail, claim.metadata.creation_timestamp, policy.deadlines.mover_start, 5.0
    )


def _started_late(mover: ObservedMover, pod: Pod) -> bool:
    """Return whether a pod is much younger than its Job, so that its own creation begins its time to start."""
    pod_created = pod.metadata.creation_timestamp
    job_created = mover.job.metadata.creation_timestamp if mover.job else None
    return pod_created is not None and job_created is not None and pod_created - job_created > LATE_POD_AGE


def _warnings(mover: ObservedMover) -> str:
    """Return the warnings about the start of the mover and about its claim, to be appended to a message."""
    return (f": {mover.warning}" if mover.warning else "") + _claim_warning(mover)


def _claim_warning(mover: ObservedMover) -> str:
    """Return the warning about the claim that the mover waits for, to be appended to a message."""
    return f". PersistentVolumeClaim: {mover.claim_warning}" if mover.claim_warning else ""
