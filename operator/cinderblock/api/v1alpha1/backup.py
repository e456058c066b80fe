"""`VolumeBackup`: one backup. ``spec`` has the fields of Cinder's request, and ``status`` those of its response."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from cinderblock.api import labels
from cinderblock.api.conditions import Conditions, ConditionType
from cinderblock.api.duration import Duration
from cinderblock.api.file_policies import Unreadable
from cinderblock.api.losses import Losses, Path
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.pins import Pins
from cinderblock.api.v1alpha1.progress import MoverReference, Progress
from cinderblock.api.v1alpha1.store import MAX_COPIES, Container, Name
from cinderblock.api.v1alpha1.verification import VerificationResult, VerificationSummary

CinderString = Annotated[str, Field(max_length=255)]
"""A string of Cinder, of at most 255 characters (API schema: parameter_types.name)."""

Description = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A description of Cinder, which is one line of printable characters (API schema: parameter_types.description)."""

MetadataKey = Annotated[str, Field(max_length=255, pattern=r"^[a-zA-Z0-9_:. /-]{1,255}$")]
"""A key of Cinder's metadata (API schema: parameter_types.extra_specs)."""

Metadata = Annotated[dict[MetadataKey, CinderString], Field(max_length=128)]
"""Keys and values of the user, at most 128 as in Cinder (quota_metadata_items)."""


FOREIGN_FIELDS: Final = ("copies", "deletedAlarms", "expiresAt", "grantedRestores", "manifestMissing", "verification")
"""Fields of a VolumeBackup's status that its own reconciliation never writes with the rest: those of retention, of
imports, of copies, of verifications, of restores in other namespaces, and of other backups that were deleted."""
MAX_GRANTED_RESTORES: Final = 16
"""Restores in other namespaces that read one VolumeBackup at the same time."""
MAX_DELETED_ALARMS: Final = 6
"""Alarms of deleted backups that one VolumeBackup keeps. Lists keep 280 characters of the annotation that accepts them,
which are seven ids."""


class BackupPhase(StrEnum):
    """Cinder's backup statuses (api-ref v2 "Backup statuses", and error_deleting of cinder.objects.fields)."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    ERROR = "error"
    RESTORING = "restoring"
    ERROR_RESTORING = "error_restoring"
    ERROR_DELETING = "error_deleting"

    @property
    def is_complete(self) -> bool:
        """Whether the store holds the complete backup."""
        return self in (BackupPhase.AVAILABLE, BackupPhase.RESTORING, BackupPhase.ERROR_RESTORING)

    @property
    def is_final(self) -> bool:
        """Whether the backup was made, or failed for good."""
        return self.is_complete or self is BackupPhase.ERROR


class DeletionPolicy(StrEnum):
    """Policy for the stored data of a deleted VolumeBackup."""

    DELETE = "Delete"
    RETAIN = "Retain"


class ImportSource(Model):
    """A stored backup to import (api-ref: Import backup record)."""

    id: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    """Id of the backup: the status.id of the VolumeBackup that made it. With manifest, any other id that is not in use
    is allowed as well."""
    manifest: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Key of the manifest in the bucket. Defaults to the manifest with this id below the prefix of the store."""
    allow_unsealed: bool = False
    """Whether to import an unencrypted backup although the store has an encryption Secret. Anyone who can write to the
    bucket can put such a backup there. Defaults to false."""


class VolumeBackupSpec(Model):
    """Requested backup (api-ref: Create backup). Only name, description, metadata, hold and deletionPolicy can be
    changed."""

    volume_id: Name | None = None
    """UID or name of the PersistentVolumeClaim to back up. A UID takes precedence over a name. Exactly one of volumeId
    and import is required."""
    import_: Annotated[ImportSource | None, Field(alias="import")] = None
    """Stored backup to import, of another cluster or of a deleted VolumeBackup. No data is copied. Exactly one of
    volumeId and import is required."""
    store_name: Name | None = None
    """Name of the BackupStore. Defaults to the default store of the namespace."""
    name: CinderString | None = None
    """Display name of the backup, as in Cinder. It does not have to be unique. Defaults to no name."""
    description: Description | None = None
    """Description of the backup, in one line. Defaults to no description."""
    container: Container | None = None
    """Bucket for the backup. Defaults to the bucket of the store."""
    incremental: bool = False
    """Whether to store only what changed since the latest available backup of the volume. An incremental backup is
    restored like a full one. Defaults to false."""
    force: bool = False
    """Whether to back up a volume that pods use. The backup is then a crash-consistent copy of a snapshot. Defaults to
    false."""
    snapshot_id: Name | None = None
    """UID or name of a VolumeSnapshot of the volume to back up. Defaults to the current state of the volume."""
    availability_zone: CinderString | None = None
    """Availability zone that the Cinder API shows. It does not affect where movers run. Defaults to no zone."""
    metadata: Metadata = {}
    """Metadata of the backup, as keys and values that the user chooses. Defaults to no metadata."""
    unreadable: Unreadable = Unreadable.FAIL
    """Policy for a file that cannot be read, or whose attributes exceed the limits of the format. Fail makes the backup
    fail. Skip leaves the file out, names it in the status, and sets the condition Complete to False. Defaults to
    Fail."""
    hold: bool = False
    """Whether retention leaves this backup alone. It does not protect against a deletion by a person. Defaults to
    false."""
    deletion_policy: DeletionPolicy | None = None
    """Whether stored data is deleted with the VolumeBackup: Delete deletes it, and Retain keeps it. Defaults to Delete,
    or to Retain if import is set."""


class DeletedAlarm(Model):
    """Alarm of a backup of the same volume whose VolumeBackup was deleted before anybody accepted the alarm."""

    backup_id: Uid
    """Id of the deleted backup. To accept the alarm, put it into the annotation cinderblock.io/accept."""
    backup_name: Name
    """Name of the deleted VolumeBackup."""
    data_timestamp: datetime
    """Time of its data. Retention keeps what is older."""
    raised_at: datetime
    """Time when the alarm was raised. Retention freezes for 14 days from then on."""


class GrantedRestore(Model):
    """VolumeRestore of another namespace that reads the backup by a BackupGrant."""

    namespace: Name
    """Namespace of the VolumeRestore."""
    name: Name
    """Name of the VolumeRestore."""
    uid: Uid
    """Value of metadata.uid of the VolumeRestore."""


class BackupCopy(Model):
    """Copy of the backup in another store."""

    store_name: Name
    """Name of the BackupStore with the copy."""
    place: Annotated[str, Field(max_length=16)]
    """Digest of server, bucket and prefix of that store. With another place, the backup is copied again."""
    time: datetime | None = None
    """Time when the copy was last complete and its structure verified. It is unset if there is no copy yet."""
    locked_until: datetime | None = None
    """Time until which that store refuses to delete the manifest of the copy and the packs that it lists, as the store
    said at that time. Comparisons extend it while the VolumeBackup exists. It is unset if the copy is not locked."""
    failed_at: datetime | None = None
    """Time of the last failure to make the copy, or to compare it with the backup. The next attempt follows an hour
    later. It is unset after a success."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Reason and cause of that failure. With the reason Locked, nothing has failed: an object has to be replaced there,
    and the copy waits for the end of its lock."""


class ManifestMissing(Model):
    """The manifest of an imported backup was not in the store when it was last listed."""

    since: datetime
    """Time of the first listing without the manifest."""
    removing: bool = False
    """Whether the operator removes the VolumeBackup, because a second listing lacked the manifest, too."""


class VolumeBackupStatus(Model):
    """Observed state of the backup. It contains the fields of Cinder's response (api-ref: Show backup details)."""

    phase: BackupPhase | None = None
    """Status of the backup, in Cinder's words."""
    id: Uid | None = None
    """Id of the backup, as in Cinder: metadata.uid, or spec.import.id of an imported backup."""
    imported_by: Uid | None = None
    """Value of metadata.uid of an imported backup, which shows that this status belongs to this object."""
    volume_id: Uid | None = None
    """UID of the PersistentVolumeClaim."""
    volume_name: Name | None = None
    """Name of the PersistentVolumeClaim."""
    store_name: Name | None = None
    """Name of the BackupStore that contains the backup."""
    name: CinderString | None = None
    """Display name, from spec.name."""
    description: CinderString | None = None
    """Description, from spec.description."""
    container: Container | None = None
    """Bucket that contains the backup."""
    availability_zone: CinderString | None = None
    """Availability zone, from spec.availabilityZone."""
    metadata: Metadata | None = None
    """Metadata, from spec.metadata."""
    snapshot_id: Uid | None = None
    """UID of the VolumeSnapshot in spec.snapshotId."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Size of the volume in GiB, rounded up. An incremental backup has the size of the volume as well."""
    object_count: Annotated[int, Field(ge=0)] | None = None
    """Number of data objects of this backup in the store, without the manifest."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Cause of the phase error, error_deleting or error_restoring."""
    is_incremental: bool | None = None
    """Whether the backup was made against a parent."""
    has_dependent_backups: bool | None = None
    """Whether other backups need the data of this one."""
    parent_id: Uid | None = None
    """Id of the backup that this incremental backup was made against."""
    created_at: datetime | None = None
    """Time when the VolumeBackup was created."""
    updated_at: datetime | None = None
    """Time when this status last changed."""
    completed_at: datetime | None = None
    """Time when the backup became available or failed. Later restores and a deletion do not change it. It is unset for
    imported backups, for backups that release 0.1.0 completed, and if the status was lost."""
    duration: Duration | None = None
    """Time from the creation of the VolumeBackup to completedAt, for example 2m5s. It includes the time in queues, and
    is unset if completedAt is."""
    data_timestamp: datetime | None = None
    """Time of the data in the backup: the creation of the snapshot, or of the VolumeBackup if there is no snapshot."""
    manifest_key: Annotated[str, Field(max_length=1024)] | None = None
    """Key of the manifest in the bucket."""
    store_place: Annotated[str, Field(max_length=64)] | None = None
    """Digest of server and bucket of a shared store when the backup was made. If the ClusterBackupStore leads elsewhere
    later, nothing is looked for or deleted there. It is unset in a store of the namespace itself."""
    sealed: bool | None = None
    """Whether the backup is encrypted in the store. If it is true, a restore refuses an unencrypted manifest."""
    pins: Pins | None = None
    """Identity of the stored content. Restores and incremental backups refuse a manifest that differs."""
    reread_files: Annotated[int, Field(ge=0)] | None = None
    """Number of files that were read again only because their timestamps are within the dirty window."""
    missed_changes: Annotated[int, Field(ge=0)] | None = None
    """Number of files whose content had changed although their timestamps had not. This backup contains the changes,
    but earlier incremental backups may lack them."""
    unreadable_files: Annotated[int, Field(ge=0)] | None = None
    """Number of files that are missing from the backup because they could not be read (spec.unreadable: Skip)."""
    unreadable_examples: Annotated[list[Path], Field(max_length=5)] = []
    """Paths of up to five of the files that could not be read."""
    losses: Losses = []
    """Attributes of files that the backup could not preserve, each kind with a count and examples."""
    logical_bytes: Annotated[int, Field(ge=0)] | None = None
    """Data in the volume, without holes and zeros, in bytes."""
    transferred_bytes: Annotated[int, Field(ge=0)] | None = None
    """Data that this backup added to the store, before compression, in bytes: changes since the parent, and
    renewedBytes. It includes what an interrupted run had sent."""
    renewed_bytes: Annotated[int, Field(ge=0)] | None = None
    """Data that the mover sent again although it had not changed, because little of its packs was still in use
    (renewBelow of the BackupStore), before compression, in bytes."""
    stored_bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of this backup's objects in the store, in bytes."""
    manifest_bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of the manifest in the store, in bytes. It is part of storedBytes."""
    entries: Annotated[int, Field(ge=0)] | None = None
    """Number of files, directories and other names in the volume. It is unset for a device."""
    locked_until: datetime | None = None
    """Time until which the store refuses to delete the manifest of the backup and the packs that it lists (objectLock
    of the BackupStore), as the store said when the backup became available. A deletion of the data waits until then,
    and retention does not mark the backup before. It is unset if the backup is not locked."""
    expires_at: datetime | None = None
    """Time from which the retention of a schedule removes this backup. Set spec.hold before it to keep the backup."""
    verification: VerificationSummary | None = None
    """Result of verifications. It is unset if the backup was never verified, and after a loss of the status."""
    manifest_missing: ManifestMissing | None = None
    """Set while the store lacks the manifest of an imported backup (spec.import.mode Always of the BackupStore)."""
    deleted_alarms: Annotated[list[DeletedAlarm], Field(max_length=MAX_DELETED_ALARMS)] = []
    """Alarms of deleted backups of the volume. Each counts until cinderblock.io/accept of this VolumeBackup contains
    its backupId. Several ids are separated by commas."""
    copies: Annotated[
        list[BackupCopy],
        Field(
            max_length=MAX_COPIES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["storeName"]},
        ),
    ] = []
    """Copies of the backup in the stores of spec.copies of its BackupStore. They stay when the backup is deleted."""
    granted_restores: Annotated[list[GrantedRestore], Field(max_length=MAX_GRANTED_RESTORES)] = []
    """Restores in other namespaces that read the backup now. A deletion waits until they have ended."""
    progress: Progress | None = None
    """Progress of the mover. It is set only while a mover runs."""
    mover: MoverReference | None = None
    """Mover of the backup. It is set only while there is one. Other Jobs do not count, whatever their names and labels
    are."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the backup. Ready is always set, Reconciling while the operator works or waits, and Stalled after a
    failure."""


class VolumeBackup(Object):
    """A copy of a PersistentVolumeClaim in S3, with the fields, statuses and rules of Cinder's backups."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["VolumeBackup"] = "VolumeBackup"
    spec: VolumeBackupSpec
    status: VolumeBackupStatus = VolumeBackupStatus()

    @property
    def backup_id(self) -> str:
        """Id in Cinder and in the store: the object's UID, or the id of the imported backup."""
        return self.spec.import_.id if self.spec.import_ else self.uid

    @property
    def has_own_status(self) -> bool:
        """Return whether the status was written for this object, and not copied from another object."""
        written_for = self.status.imported_by if self.spec.import_ else self.status.id
        return written_for == self.uid

    @property
    def own_phase(self) -> BackupPhase | None:
        """The phase of the object's own status; None if it has no own status."""
        return self.status.phase if self.has_own_status else None

    @property
    def is_complete(self) -> bool:
        """Whether the own status says that the store holds the complete backup."""
        return self.own_phase is not None and self.own_phase.is_complete

    @property
    def has_ended(self) -> bool:
        """Whether the own status says that the backup was made, or failed for good."""
        return self.own_phase is not None and self.own_phase.is_final

    @property
    def is_accepted(self) -> bool:
        """Return whether a person has checked the alarms of this backup, and accepts it."""
        return self.backup_id in self._accepted_ids

    @property
    def _accepted_ids(self) -> frozenset[str]:
        listed = self.metadata.annotations.get(labels.ACCEPT_ANNOTATION, "")
        return frozenset(part.strip() for part in listed.split(",")) - {""}

    @property
    def open_deleted_alarms(self) -> list[DeletedAlarm]:
        """Return the alarms of deleted backups that this object keeps, and that nobody has accepted."""
        kept = self.status.deleted_alarms if self.has_own_status else []
        return [alarm for alarm in kept if alarm.backup_id not in self._accepted_ids]

    @property
    def is_suspicious(self) -> bool:
        """Return whether the numbers of the backup raised an alarm that nobody has accepted."""
        alarms = (c for c in self.status.conditions if c.type == ConditionType.SUSPICIOUS and c.status == "True")
        return self.has_own_status and not self.is_accepted and next(alarms, None) is not None

    @property
    def is_let_go(self) -> bool:
        """Whether a person lets its deletion leave the data in the store."""
        return self.metadata.annotations.get(labels.RELEASED_ANNOTATION) == "leave-data"

    @property
    def own_granted_restores(self) -> list[GrantedRestore]:
        """Return the restores in other namespaces that read this object; none if the status was copied."""
        return self.status.granted_restores if self.has_own_status else []

    @property
    def own_copies(self) -> list[BackupCopy]:
        """Return what is known about copies of this object; nothing if the status was copied."""
        return self.status.copies if self.has_own_status else []

    @property
    def own_verification(self) -> VerificationSummary | None:
        """Return what verifications have found about this object; None if nothing, or if it was copied."""
        found = self.status.verification
        is_own = self.has_own_status and found is not None and found.recorded_for == self.uid
        return found if is_own else None

    @property
    def is_damaged(self) -> bool:
        """Return whether a verification found that objects of the backup are damaged or missing."""
        found = self.own_verification
        return found is not None and found.result is VerificationResult.DAMAGED

    @property
    def verified_at(self) -> datetime | None:
        """Return when the backup was last verified; None if nothing is known, not enough, or that it is damaged."""
        found = self.own_verification
        is_verified = found is not None and found.result is VerificationResult.VERIFIED
        return found.last_verified_at if found is not None and is_verified else None

    @property
    def has_unknown_alarm(self) -> bool:
        """Return whether nobody knows yet if the numbers of the backup are unusual: earlier statuses were lost."""
        unknown = (c for c in self.status.conditions if c.type == ConditionType.SUSPICIOUS and c.status == "Unknown")
        return self.has_own_status and not self.is_accepted and next(unknown, None) is not None

    @property
    def is_alias(self) -> bool:
        """Return whether the backup was imported under an id that differs from the id in the store."""
        source = self.spec.import_
        if source is None or source.manifest is None:
            return False
        return not source.manifest.endswith(f"/{source.id}.manifest")

    @property
    def keeps_data(self) -> bool:
        """Return whether the stored data stays when the VolumeBackup is deleted.

        The data of an imported backup is deleted only on request, and never if it belongs to another id.
        """
        if self.is_alias:
            return True
        default = DeletionPolicy.RETAIN if self.spec.import_ else DeletionPolicy.DELETE
        return (self.spec.deletion_policy or default) is DeletionPolicy.RETAIN
