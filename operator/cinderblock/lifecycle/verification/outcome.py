"""The outcome of a mover that verifies: its findings, or a manifest that the store does not have."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.kubernetes import Pod
from cinderblock.api.mover import VerifyReport
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedMover
from cinderblock.reasons import Reason


def report_of(mover: ObservedMover) -> VerifyReport | None:
    """Return the findings of a mover that has succeeded."""
    report = mover_state.success(mover)
    return report.verification if report is not None else None


def lacks_manifest(mover: ObservedMover) -> bool:
    """Return whether a mover has failed for good because the store has no manifest of the chosen backup.

    The mover cannot tell whether somebody deleted the backup. The operator can: if the VolumeBackup is still there, its
    manifest is lost.
    """
    has_failed = mover.job is not None and mover.job.failure is not None
    return has_failed and mover_state.success(mover) is None and _last_reason(mover) == Reason.MANIFEST_MISSING


def has_ended(mover: ObservedMover) -> bool:
    """Return whether a mover that the status records has ended with a statement about the chosen backup."""
    is_recorded = mover.job is not None and mover.is_recorded
    return is_recorded and (mover_state.success(mover) is not None or lacks_manifest(mover))


def ended_at(mover: ObservedMover) -> datetime | None:
    """Return when the pod with the last report ended. It is the same in each reconciliation."""
    pod = _last_pod(mover)
    return pod.terminated.finished_at if pod is not None and pod.terminated is not None else None


def _last_pod(mover: ObservedMover) -> Pod | None:
    reports = {pod.uid: report for pod in mover.pods if (report := mover_state.read_report(pod)) is not None}
    reported = [pod for pod in reversed(mover.pods) if pod.uid in reports]
    succeeded = (pod for pod in reported if reports[pod.uid].succeeded)
    return next(succeeded, reported[0] if reported else None)


def _last_reason(mover: ObservedMover) -> str:
    pod = _last_pod(mover)
    report = mover_state.read_report(pod) if pod is not None else None
    return report.reason if report is not None else ""
