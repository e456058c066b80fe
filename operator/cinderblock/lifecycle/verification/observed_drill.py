"""The observed state of a restore drill: the objects that a verification of level Restore creates, and its check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, Pod
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.errors import CinderblockError


@dataclass(frozen=True, slots=True)
class ObservedDrill:
    """The observed state of a restore drill.

    Attributes:
        restore: the VolumeRestore with the name of the drill's own one.
        claim: the claim with the name of the scratch claim.
        job: the Job with the name of the check.
        pods: the pods with the labels of the drill, oldest first.
        warning: the newest Warning Event about a check that does not start.
        cron_job: the CronJob that the rule names, as the API server gave it; only read while it is needed.
        cron_job_error: why it could not be read.
    """

    restore: VolumeRestore | None = None
    claim: PersistentVolumeClaim | None = None
    job: Job | None = None
    pods: tuple[Pod, ...] = ()
    warning: str = ""
    cron_job: dict[str, Any] | None = field(default=None, hash=False)
    cron_job_error: CinderblockError | None = None

    @property
    def own_pods(self) -> tuple[Pod, ...]:
        """Return the pods of the Job. Others with the same labels report nothing."""
        return tuple(pod for pod in self.pods if self.job is not None and pod.metadata.is_owned_by(self.job.uid))
