"""Where the objects of each type live in the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cinderblock.api import labels
from cinderblock.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of object.

    Attributes:
        group: API group; empty for the core group.
        version: version of the group that we use.
        plural: the type's name in URLs and RBAC rules.
        kind: the type's name in objects.
        namespaced: whether objects belong to namespaces.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of the objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Name in messages and counters, as in kubectl: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_path(self) -> str:
        """Path of the version's list of resources."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the path of an object, or of a collection if ``name`` is None.

        Without ``namespace`` it is the collection of all namespaces. Raises InvalidInput for an object of a namespaced
        type without a namespace, and for an empty name, which would address the whole collection. The names ``.`` and
        ``..`` are invalid too, because HTTP clients remove them from a path.
        """
        if {namespace, name} & {".", ".."}:
            raise InvalidInput(f"Cannot address an object of {self.resource} with the name or namespace . or ..")
        if name is not None and (not name or (self.namespaced and not namespace)):
            raise InvalidInput(
                f"Cannot address an object of {self.resource} without a name{' and a namespace' * self.namespaced}"
            )
        parts = [self.api_path]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


BACKUP_STORE: Final = Kind(labels.GROUP, labels.VERSION, "backupstores", "BackupStore")
CLUSTER_BACKUP_STORE: Final = Kind(
    labels.GROUP, labels.VERSION, "clusterbackupstores", "ClusterBackupStore", namespaced=False
)
VOLUME_BACKUP: Final = Kind(labels.GROUP, labels.VERSION, "volumebackups", "VolumeBackup")
VOLUME_RESTORE: Final = Kind(labels.GROUP, labels.VERSION, "volumerestores", "VolumeRestore")
BACKUP_VERIFICATION: Final = Kind(labels.GROUP, labels.VERSION, "backupverifications", "BackupVerification")
BACKUP_SCHEDULE: Final = Kind(labels.GROUP, labels.VERSION, "backupschedules", "BackupSchedule")
CLUSTER_BACKUP_SCHEDULE: Final = Kind(
    labels.GROUP, labels.VERSION, "clusterbackupschedules", "ClusterBackupSchedule", namespaced=False
)
BACKUP_GRANT: Final = Kind(labels.GROUP, labels.VERSION, "backupgrants", "BackupGrant")
RESTORE_SOURCE: Final = Kind(labels.GROUP, labels.VERSION, "restoresources", "RestoreSource")

NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
SECRET: Final = Kind("", "v1", "secrets", "Secret")
POD: Final = Kind("", "v1", "pods", "Pod")
PVC: Final = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PV: Final = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
JOB: Final = Kind("batch", "v1", "jobs", "Job")
CRON_JOB: Final = Kind("batch", "v1", "cronjobs", "CronJob")
LEASE: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT: Final = Kind("events.k8s.io", "v1", "events", "Event")
"""The newer Event API, with ``series.count`` and ``note``; ``kubectl get events`` shows the objects of both APIs."""

SERVICE_ACCOUNT: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
TOKEN_REVIEW: Final = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
"""Returns whose token another process has shown."""
SELF_SUBJECT_REVIEW: Final = Kind(
    "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False
)
"""Returns the caller's user name and groups. Every user may create it (ClusterRole system:basic-user)."""
SELF_SUBJECT_ACCESS_REVIEW: Final = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
"""Returns whether the caller may send a request. Every user may create it."""

STORAGE_CLASS: Final = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
VOLUME_ATTACHMENT: Final = Kind("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False)

VOLUME_SNAPSHOT: Final = Kind("snapshot.storage.k8s.io", "v1", "volumesnapshots", "VolumeSnapshot")
VOLUME_SNAPSHOT_CLASS: Final = Kind(
    "snapshot.storage.k8s.io", "v1", "volumesnapshotclasses", "VolumeSnapshotClass", namespaced=False
)


ENDED_POD_PHASES: Final = ("Succeeded", "Failed")
NOT_ENDED_SELECTOR: Final = ",".join(f"status.phase!={phase}" for phase in ENDED_POD_PHASES)
"""Field selector of pods that have not ended."""
