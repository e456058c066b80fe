"""Kubernetes' own objects, cut down to the fields that decisions need. Everything else is ignored when reading."""

from __future__ import annotations

from datetime import datetime

from cinderblock.api.meta import Model, Object
from cinderblock.api.mover import VolumeMode
from cinderblock.api.quantity import to_bytes

DEFAULT_STORAGE_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
DEFAULT_SNAPSHOT_CLASS_ANNOTATION = "snapshot.storage.kubernetes.io/is-default-class"


class ResourceRequests(Model):
    requests: dict[str, str] = {}


class PersistentVolumeClaimSpec(Model):
    access_modes: tuple[str, ...] = ()
    storage_class_name: str | None = None
    volume_mode: VolumeMode = VolumeMode.FILESYSTEM
    volume_name: str = ""
    volume_attributes_class_name: str | None = None
    resources: ResourceRequests = ResourceRequests()


class PersistentVolumeClaimStatus(Model):
    phase: str = ""
    capacity: dict[str, str] = {}


class PersistentVolumeClaim(Object):
    """core/v1 PersistentVolumeClaim."""

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()

    @property
    def is_bound(self) -> bool:
        """Whether a PersistentVolume belongs to the claim."""
        return self.status.phase == "Bound" and bool(self.spec.volume_name)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the bound volume has; before binding, bytes that were asked for."""
        return to_bytes(self.status.capacity.get("storage") or self.spec.resources.requests.get("storage", "0"))


class ClaimReference(Model):
    namespace: str = ""
    name: str = ""
    uid: str = ""


class CsiPersistentVolumeSource(Model):
    driver: str = ""
    volume_handle: str = ""
    fs_type: str = ""


class PersistentVolumeSpec(Model):
    capacity: dict[str, str] = {}
    claim_ref: ClaimReference | None = None
    csi: CsiPersistentVolumeSource | None = None
    mount_options: tuple[str, ...] = ()
    persistent_volume_reclaim_policy: str = ""
    storage_class_name: str = ""


class PersistentVolumeStatus(Model):
    phase: str = ""


class PersistentVolume(Object):
    """core/v1 PersistentVolume."""

    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()

    @property
    def driver(self) -> str:
        """Name of the CSI driver; empty for a volume of another kind."""
        return self.spec.csi.driver if self.spec.csi else ""

    @property
    def delays_timestamps(self) -> bool:
        """Whether timestamps may stay in memory for a day after the data have reached the disk (mount(8), lazytime)."""
        return any("lazytime" in options.split(",") for options in self.spec.mount_options)


class VolumeSnapshotClass(Object):
    """snapshot.storage.k8s.io/v1 VolumeSnapshotClass."""

    driver: str = ""
    deletion_policy: str = ""

    @property
    def keeps_snapshots(self) -> bool:
        """Whether a snapshot stays in the driver when its VolumeSnapshot is deleted."""
        return self.deletion_policy == "Retain"

    @property
    def is_default(self) -> bool:
        """Whether it is its driver's default class."""
        return self.metadata.annotations.get(DEFAULT_SNAPSHOT_CLASS_ANNOTATION) == "true"


class StorageClass(Object):
    """storage.k8s.io/v1 StorageClass."""

    provisioner: str = ""
    volume_binding_mode: str = "Immediate"

    @property
    def is_default(self) -> bool:
        """Whether it is the cluster's default class."""
        return self.metadata.annotations.get(DEFAULT_STORAGE_CLASS_ANNOTATION) == "true"


class VolumeSnapshotSource(Model):
    persistent_volume_claim_name: str | None = None
    volume_snapshot_content_name: str | None = None


class VolumeSnapshotSpec(Model):
    source: VolumeSnapshotSource = VolumeSnapshotSource()
    volume_snapshot_class_name: str | None = None


class VolumeSnapshotError(Model):
    message: str = ""


class VolumeSnapshotStatus(Model):
    ready_to_use: bool = False
    creation_time: datetime | None = None
    restore_size: str | None = None
    error: VolumeSnapshotError | None = None


class VolumeSnapshot(Object):
    """snapshot.storage.k8s.io/v1 VolumeSnapshot."""

    spec: VolumeSnapshotSpec = VolumeSnapshotSpec()
    status: VolumeSnapshotStatus = VolumeSnapshotStatus()


class JobCondition(Model):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class JobStatus(Model):
    conditions: tuple[JobCondition, ...] = ()


class JobSpec(Model):
    suspend: bool = False


class Job(Object):
    """batch/v1 Job."""

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def is_complete(self) -> bool:
        """Whether a pod of the Job has succeeded."""
        return any(c.type in ("Complete", "SuccessCriteriaMet") and c.status == "True" for c in self.status.conditions)

    @property
    def failure(self) -> JobCondition | None:
        """Why the Job has given up, if it has."""
        return next((c for c in self.status.conditions if c.type == "Failed" and c.status == "True"), None)


class ContainerWaiting(Model):
    reason: str = ""
    message: str = ""


class ContainerRunning(Model):
    started_at: datetime | None = None


class ContainerTerminated(Model):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(Model):
    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None

    def ran_between(self, begin: datetime, end: datetime | None) -> bool:
        """Whether the container ran at some time between the two; ``end`` None: up to now.

        Stamps are of whole seconds: one that ended in the second of the beginning had ended before it.
        """
        ran = self.running or self.terminated
        if ran is None:
            return False
        finished = self.terminated.finished_at if self.terminated else None
        began_in_time = end is None or ran.started_at is None or ran.started_at <= end
        return began_in_time and (finished is None or finished > begin)


class ContainerStatus(Model):
    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(Model):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatus(Model):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class PodSpec(Model):
    node_name: str = ""


class Pod(Object):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def has_ended(self) -> bool:
        """Whether no container of the pod runs any more."""
        return self.status.phase in ("Succeeded", "Failed")

    def ran_between(self, begin: datetime, end: datetime | None) -> bool:
        """Whether a container of the pod ran at some time between the two; ``end`` None: up to now."""
        containers = (*self.status.init_container_statuses, *self.status.container_statuses)
        return any(state.ran_between(begin, end) for c in containers for state in (c.state, c.last_state))

    @property
    def terminated(self) -> ContainerTerminated | None:
        """How the pod's only container ended, if it did."""
        return next((c.state.terminated for c in self.status.container_statuses if c.state.terminated), None)

    @property
    def waiting(self) -> ContainerWaiting | None:
        """Why the pod's only container does not run yet, if the kubelet says so."""
        return next((c.state.waiting for c in self.status.container_statuses if c.state.waiting), None)

    @property
    def unschedulable(self) -> str | None:
        """Why no node was found, if none was."""
        return next(
            (c.message for c in self.status.conditions if c.type == "PodScheduled" and c.status == "False"), None
        )
