"""Kubernetes' own objects, reduced to the fields that decisions need. Reading ignores all other fields."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api.labels import GROUP
from cinderblock.api.meta import Model, Object
from cinderblock.api.mover import MOVER_CONTAINER, VolumeMode
from cinderblock.api.quantity import to_bytes

DEFAULT_STORAGE_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
DEFAULT_SNAPSHOT_CLASS_ANNOTATION = "snapshot.storage.kubernetes.io/is-default-class"
READ_ONLY_MANY = "ReadOnlyMany"
PROVISIONED_BY_ANNOTATION = "pv.kubernetes.io/provisioned-by"
"""On a PersistentVolume that a provisioner created for a claim: the name of the provisioner."""
SELECTED_NODE_ANNOTATION = "volume.kubernetes.io/selected-node"
"""On a PersistentVolumeClaim: the node that the scheduler chose for the first pod that needs the volume."""


class ResourceRequests(Model):
    requests: dict[str, str] = {}


class DataSourceReference(Model):
    """core/v1 TypedObjectReference of a claim."""

    api_group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    """Namespace of the source; empty: that of the claim. Kubernetes keeps it only with an alpha feature."""


class PersistentVolumeClaimSpec(Model):
    access_modes: tuple[str, ...] = ()
    data_source_ref: DataSourceReference | None = None
    selector: dict[str, Any] | None = None
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
        """Return whether the PersistentVolumeClaim is bound to a PersistentVolume."""
        return self.status.phase == "Bound" and bool(self.spec.volume_name)

    @property
    def asks_for_backup(self) -> bool:
        """Return whether its dataSourceRef names one of our kinds, so that only the operator may fill it."""
        source = self.spec.data_source_ref
        return source is not None and source.api_group == GROUP

    @property
    def selected_node(self) -> str:
        """Node that the scheduler chose for the first pod that needs the volume; empty: none yet."""
        return self.metadata.annotations.get(SELECTED_NODE_ANNOTATION, "")

    @property
    def is_read_only(self) -> bool:
        """Return whether nobody may write through the PersistentVolumeClaim, so that its use changes nothing."""
        return set(self.spec.access_modes) == {READ_ONLY_MANY}

    @property
    def capacity_bytes(self) -> int:
        """Capacity of the bound volume in bytes, or the requested size before binding."""
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
    access_modes: tuple[str, ...] = ()
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
        """Name of the CSI driver, empty for a volume without one."""
        return self.spec.csi.driver if self.spec.csi else ""

    @property
    def is_provisioned(self) -> bool:
        """Return whether a provisioner created the volume for a claim, and no administrator."""
        return bool(self.metadata.annotations.get(PROVISIONED_BY_ANNOTATION))

    @property
    def delays_timestamps(self) -> bool:
        """Return whether timestamps may reach the disk a day later than the data (mount(8), lazytime)."""
        return any("lazytime" in options.split(",") for options in self.spec.mount_options)


class VolumeSnapshotClass(Object):
    """snapshot.storage.k8s.io/v1 VolumeSnapshotClass."""

    driver: str = ""
    deletion_policy: str = ""

    @property
    def keeps_snapshots(self) -> bool:
        """Return whether the driver keeps a snapshot when its VolumeSnapshot is deleted."""
        return self.deletion_policy == "Retain"

    @property
    def is_default(self) -> bool:
        """Return whether the class is the default of its driver."""
        return self.metadata.annotations.get(DEFAULT_SNAPSHOT_CLASS_ANNOTATION) == "true"


class StorageClass(Object):
    """storage.k8s.io/v1 StorageClass."""

    provisioner: str = ""
    volume_binding_mode: str = "Immediate"

    @property
    def binds_late(self) -> bool:
        """Return whether the class binds a claim only when a pod needs it."""
        return self.volume_binding_mode == "WaitForFirstConsumer"

    @property
    def is_default(self) -> bool:
        """Return whether the class is the default of the cluster."""
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


class TemplateContainer(Model):
    name: str = ""
    restart_policy: str = ""

    @property
    def is_sidecar(self) -> bool:
        """Return whether an init container runs together with the others, and is ended after them."""
        return self.restart_policy == "Always"


class TemplatePodSpec(Model):
    containers: tuple[TemplateContainer, ...] = ()
    init_containers: tuple[TemplateContainer, ...] = ()


class PodTemplate(Model):
    spec: TemplatePodSpec = TemplatePodSpec()


class JobSpec(Model):
    suspend: bool = False
    managed_by: str = ""
    template: PodTemplate = PodTemplate()


class Job(Object):
    """batch/v1 Job."""

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def is_complete(self) -> bool:
        """Return whether a pod of the Job has succeeded."""
        return any(c.type in ("Complete", "SuccessCriteriaMet") and c.status == "True" for c in self.status.conditions)

    @property
    def failure(self) -> JobCondition | None:
        """Condition that tells why the Job failed, None if it has not failed."""
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
        """Return whether the container ran at any time between ``begin`` and ``end``. None for ``end`` means now.

        Timestamps have whole seconds. A container that ended within the second of ``begin`` counts as ended before it.
        """
        run = self.running or self.terminated
        if run is None:
            return False
        finished = self.terminated.finished_at if self.terminated else None
        started_in_time = end is None or run.started_at is None or run.started_at <= end
        return started_in_time and (finished is None or finished > begin)


class ContainerStatus(Model):
    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(Model):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


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
        """Return whether all containers of the pod have terminated."""
        return self.status.phase in ("Succeeded", "Failed")

    def ran_between(self, begin: datetime, end: datetime | None) -> bool:
        """Return whether a container of the pod ran at any time between ``begin`` and ``end``. None means now."""
        containers = (*self.status.init_container_statuses, *self.status.container_statuses)
        return any(state.ran_between(begin, end) for c in containers for state in (c.state, c.last_state))

    @property
    def terminated(self) -> ContainerTerminated | None:
        """State of the mover's container if it has terminated, else None. Others may have injected containers."""
        movers = (c for c in self.status.container_statuses if c.name == MOVER_CONTAINER)
        return next((c.state.terminated for c in movers), None)

    @property
    def kept_alive_by(self) -> str | None:
        """Name of an injected container that still runs although the mover's container has terminated, else None."""
        if self.has_ended or self.terminated is None:
            return None
        others = (c for c in self.status.container_statuses if c.name != MOVER_CONTAINER)
        return next((c.name for c in others if c.state.running is not None), None)

    @property
    def waiting_containers(self) -> tuple[tuple[str, ContainerWaiting], ...]:
        """Names and reasons of the containers that are waiting, injected ones included."""
        containers = (*self.status.init_container_statuses, *self.status.container_statuses)
        return tuple((c.name, c.state.waiting) for c in containers if c.state.waiting)

    @property
    def is_gated(self) -> bool:
        """Return whether a queue such as Kueue keeps the pod from being scheduled (core/v1 schedulingGates)."""
        condition = self._scheduled
        return condition is not None and condition.status == "False" and condition.reason == "SchedulingGated"

    @property
    def unschedulable(self) -> str | None:
        """Message of the scheduler if it found no node for the pod, else None."""
        condition = self._scheduled
        return (
            condition.message if condition is not None and condition.status == "False" and not self.is_gated else None
        )

    @property
    def scheduled_at(self) -> datetime | None:
        """When the pod got its node; None if it has none, or if that is unknown."""
        condition = self._scheduled
        return condition.last_transition_time if condition is not None and condition.status == "True" else None

    @property
    def _scheduled(self) -> PodCondition | None:
        return next((condition for condition in self.status.conditions if condition.type == "PodScheduled"), None)
