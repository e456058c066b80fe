"""`VolumeRestore`: one run that writes a backup into a volume (api-ref: Restore backup), declarative and listable."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.losses import Fidelity, Losses
from cinderblock.api.meta import Annotations, Labels, Model, Object, Uid
from cinderblock.api.v1alpha1.backup import Progress
from cinderblock.api.v1alpha1.store import Name

Quantity = Annotated[str, Field(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$")]


class RestorePhase(StrEnum):
    """A restore's statuses: Cinder's words for the volume that is being restored."""

    RESTORING = "restoring"
    AVAILABLE = "available"
    ERROR_RESTORING = "error_restoring"

    @property
    def is_final(self) -> bool:
        """Whether the restore has ended."""
        return self is not RestorePhase.RESTORING


class AccessMode(StrEnum):
    """Access modes of a PersistentVolumeClaim."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


AccessModes = Annotated[
    list[AccessMode], Field(min_length=1, max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})
]
"""Access modes, each at most once."""


class VolumeRestoreSpec(Model):
    """The request. Immutable. volumeId wins over name; neither: a volume named after the backup is created."""

    backup_id: Name
    """The VolumeBackup to restore: its id, its UID or its name."""
    volume_id: Name | None = None
    """An existing PersistentVolumeClaim (UID or name), overwritten to be exactly the backup's content."""
    name: Name | None = None
    """Name of the PersistentVolumeClaim to create; default: restore-backup-<id>."""
    storage_class_name: Name | None = None
    """StorageClass of a new volume; default: that of the backed up volume if it still exists, else the cluster's."""
    access_modes: AccessModes | None = None
    """Access modes of a new volume; default: those of the backed up volume."""
    size: Quantity | None = None
    """Size of a new volume, at least the backup's; default: the backup's."""
    labels: Labels = {}
    """Labels of a new volume."""
    annotations: Annotations = {}
    """Annotations of a new volume."""
    fidelity: Fidelity = Fidelity.STRICT
    """What happens if the target refuses an owner, a mode, a link or a time, or only pretends to set it. NFS with
    root_squash, EFS access points and SMB do that. Strict: the restore fails. BestEffort: it goes on, and
    status.losses counts what was lost. Default: Strict."""


class VolumeRestoreStatus(Model):
    """How the restore is going."""

    phase: RestorePhase | None = None
    """restoring, available or error_restoring."""
    id: Uid | None = None
    """Id of the run: metadata.uid."""
    backup_id: Uid | None = None
    """Id of the backup (api-ref: restore.backup_id)."""
    backup_name: Name | None = None
    """Name of the VolumeBackup."""
    volume_id: Uid | None = None
    """UID of the restored PersistentVolumeClaim (api-ref: restore.volume_id)."""
    volume_name: Name | None = None
    """Name of the restored PersistentVolumeClaim (Cinder: restore.volume_name)."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Why the phase is error_restoring."""
    created_at: datetime | None = None
    """When the VolumeRestore was created."""
    updated_at: datetime | None = None
    """When this status last changed."""
    restored_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of data written and verified."""
    losses: Losses = []
    """What the restore could not keep of the files, each kind with a count and examples."""
    progress: Progress | None = None
    """How far the mover is."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """The metadata.generation that this status speaks of; -1: nothing has been said yet."""
    conditions: Conditions = []
    """Ready, and while something is awaited Reconciling, or Stalled, with reason and message."""


class VolumeRestore(Object):
    """One run that writes a VolumeBackup into a new or an existing PersistentVolumeClaim."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["VolumeRestore"] = "VolumeRestore"
    spec: VolumeRestoreSpec
    status: VolumeRestoreStatus = VolumeRestoreStatus()

    @property
    def has_own_status(self) -> bool:
        """Whether the status describes this object: the status of a copied object describes its original."""
        return self.status.id == self.uid

    @property
    def own_phase(self) -> RestorePhase | None:
        """The phase of the object's own status; None if it has no own status."""
        return self.status.phase if self.has_own_status else None

    @property
    def has_ended(self) -> bool:
        """Whether the own status says that the restore has ended."""
        return self.own_phase is not None and self.own_phase.is_final
