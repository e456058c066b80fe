"""`VolumeRestore`: one restore of a backup into a volume (api-ref: Restore backup)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.duration import Duration
from cinderblock.api.file_policies import Fidelity
from cinderblock.api.losses import Losses
from cinderblock.api.meta import REMEDY, Annotations, Labels, Model, Object, Uid
from cinderblock.api.v1alpha1.progress import MoverReference, Progress
from cinderblock.api.v1alpha1.store import Name

Quantity = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$",
        json_schema_extra={REMEDY: "write a size as 10Gi, 500M or 1.5Ti, without the letter B"},
    ),
]


class RestorePhase(StrEnum):
    """Statuses of a restore, which are Cinder's statuses of the restored volume."""

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
"""Access modes of a new volume, each at most once."""


class GivenClaim(Model):
    """An unbound PersistentVolumeClaim whose dataSourceRef names a VolumeBackup or a RestoreSource."""

    name: Name
    """Name of the claim."""
    uid: Uid
    """Value of metadata.uid of the claim. Another claim of the same name gets nothing."""
    empty: bool = False
    """Whether the claim gets an empty volume, because the store holds no backup for it. Leave backupId out then.
    Defaults to false."""


class VolumeRestoreSpec(Model):
    """Requested restore. No field can be changed. With volumeId an existing volume is overwritten, otherwise a new
    volume is created."""

    backup_id: Name | None = None
    """Id, UID or name of the VolumeBackup to restore. Defaults to none, which only a claim that gets an empty volume
    may have."""
    claim: GivenClaim | None = None
    """Claim to which the new volume is handed over. The operator creates such restores itself, for claims whose
    dataSourceRef names a VolumeBackup or a RestoreSource. Defaults to a new PersistentVolumeClaim."""
    backup_namespace: Name | None = None
    """Namespace of the VolumeBackup. In another namespace than that of the VolumeRestore, a BackupGrant must permit the
    restore, and the backup must be in a ClusterBackupStore. Defaults to the namespace of the VolumeRestore."""
    volume_id: Name | None = None
    """UID or name of an existing PersistentVolumeClaim, whose content is replaced by the backup. It takes precedence
    over name. Defaults to a new PersistentVolumeClaim."""
    name: Name | None = None
    """Name of the new PersistentVolumeClaim. Defaults to restore-backup-<id>."""
    storage_class_name: Name | None = None
    """StorageClass of a new volume. Defaults to the StorageClass of the backed up volume, or to the default of the
    cluster if that one no longer exists."""
    access_modes: AccessModes | None = None
    """Access modes of a new volume. Defaults to those of the backed up volume."""
    size: Quantity | None = None
    """Size of a new volume as a quantity, for example 10Gi. It must be at least the size of the backup, which is the
    default."""
    labels: Labels = {}
    """Labels of the new PersistentVolumeClaim, besides those that the operator sets on all claims (mover.labels of the
    chart). Defaults to no labels."""
    annotations: Annotations = {}
    """Annotations of the new PersistentVolumeClaim, besides those that the operator sets on all claims
    (mover.annotations of the chart). Defaults to no annotations."""
    fidelity: Fidelity = Fidelity.STRICT
    """Policy for owners, modes, links and times that the target cannot preserve, as with NFS with root_squash, EFS
    access points and SMB. Strict makes the restore fail. BestEffort continues, and counts the losses in status.losses.
    Defaults to Strict."""


class VolumeRestoreStatus(Model):
    """Observed state of the restore."""

    phase: RestorePhase | None = None
    """Status of the restore, in Cinder's words: restoring, available or error_restoring."""
    id: Uid | None = None
    """Id of the restore, which is metadata.uid."""
    backup_id: Uid | None = None
    """Id of the backup (api-ref: restore.backup_id)."""
    backup_name: Name | None = None
    """Name of the VolumeBackup."""
    backup_namespace: Name | None = None
    """Namespace of the VolumeBackup. It is set only for a backup of another namespace, once a BackupGrant permits the
    restore."""
    volume_id: Uid | None = None
    """UID of the restored PersistentVolumeClaim (api-ref: restore.volume_id)."""
    volume_name: Name | None = None
    """Name of the restored PersistentVolumeClaim (Cinder: restore.volume_name)."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Cause of the phase error_restoring."""
    created_at: datetime | None = None
    """Time when the VolumeRestore was created."""
    updated_at: datetime | None = None
    """Time when this status last changed."""
    completed_at: datetime | None = None
    """Time when the restore became available or failed. A deletion does not change it. It is unset for restores that
    release 0.1.0 completed, and if the status was lost."""
    duration: Duration | None = None
    """Time from the creation of the VolumeRestore to completedAt, for example 2m5s. It includes the time in queues, and
    is unset if completedAt is."""
    restored_bytes: Annotated[int, Field(ge=0)] | None = None
    """Data that was written and verified, in bytes."""
    losses: Losses = []
    """Attributes of files that the restore could not preserve, each kind with a count and examples."""
    progress: Progress | None = None
    """Progress of the mover. It is set only while a mover runs."""
    mover: MoverReference | None = None
    """Mover of the restore. It is set only while there is one. Other Jobs do not count, whatever their names and labels
    are."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the restore. Ready is always set, Reconciling while the operator works or waits, and Stalled after
    a failure."""


class VolumeRestore(Object):
    """One restore of a VolumeBackup into a new or an existing PersistentVolumeClaim."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["VolumeRestore"] = "VolumeRestore"
    spec: VolumeRestoreSpec
    status: VolumeRestoreStatus = VolumeRestoreStatus()

    @property
    def has_own_status(self) -> bool:
        """Whether the status describes this object: the status of a copied object describes its original."""
        return self.status.id == self.uid

    @property
    def fills_nothing(self) -> bool:
        """Whether the new volume stays empty, so that there is no mover."""
        return self.spec.claim is not None and self.spec.claim.empty

    @property
    def granted_from(self) -> str | None:
        """The other namespace whose backup it restores by a BackupGrant; None: the backup is of its own namespace."""
        asked = self.spec.backup_namespace
        return asked if asked is not None and asked != self.namespace else None

    @property
    def own_backup_id(self) -> str | None:
        """The id of the backup of its own namespace that it restores, as its own status says; None: there is none."""
        is_own = self.has_own_status and self.granted_from is None
        return self.status.backup_id if is_own else None

    @property
    def own_phase(self) -> RestorePhase | None:
        """The phase of the object's own status; None if it has no own status."""
        return self.status.phase if self.has_own_status else None

    @property
    def has_ended(self) -> bool:
        """Whether the own status says that the restore has ended."""
        return self.own_phase is not None and self.own_phase.is_final
