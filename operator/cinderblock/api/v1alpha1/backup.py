"""`VolumeBackup`: one backup. ``spec`` is Cinder's create request, ``status`` is Cinder's response, field for field."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.losses import Losses, Path, Unreadable
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.pins import Pins
from cinderblock.api.v1alpha1.store import Container, Name

CinderString = Annotated[str, Field(max_length=255)]
"""Cinder's strings are at most 255 characters (API schema: parameter_types.name)."""

Description = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Cinder's descriptions are one line of printable characters (API schema: parameter_types.description)."""

MetadataKey = Annotated[str, Field(max_length=255, pattern=r"^[a-zA-Z0-9_:. /-]{1,255}$")]
"""Keys as Cinder has them (API schema: parameter_types.extra_specs)."""

Metadata = Annotated[dict[MetadataKey, CinderString], Field(max_length=128)]
"""Keys and values of the user's own (Cinder: 128 of them, quota_metadata_items)."""


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
    """What becomes of the stored data when the VolumeBackup is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class ImportSource(Model):
    """A backup that is in the store already (api-ref: Import backup record)."""

    id: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    """The id that it gets: that which its VolumeBackup had as status.id; or with manifest another one that is free."""
    manifest: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Key of its manifest in the container; none: it is looked for below the store's prefix, by its id."""
    allow_unsealed: bool = False
    """Whether to adopt a backup that is not encrypted although the store has an encryption Secret. Anybody who can
    write to the container can put such a backup there. Default: false."""


class VolumeBackupSpec(Model):
    """The request (api-ref: Create backup). Immutable except name, description, metadata and deletionPolicy."""

    volume_id: Name | None = None
    """The PersistentVolumeClaim to back up: its UID or its name; a UID wins. Either this or import."""
    import_: Annotated[ImportSource | None, Field(alias="import")] = None
    """Adopt a backup that is in the store, of another cluster or of a VolumeBackup that is gone. Nothing is copied."""
    store_name: Name | None = None
    """The BackupStore; none: the namespace's default store."""
    name: CinderString | None = None
    """Cinder's display name; it need not be unique."""
    description: Description | None = None
    """Free text, one line."""
    container: Container | None = None
    """Bucket; none: the store's."""
    incremental: bool = False
    """Send only what changed since the latest available backup of the volume. The result is whole in itself."""
    force: bool = False
    """Back up although pods use the volume: a crash-consistent copy through a snapshot."""
    snapshot_id: Name | None = None
    """A VolumeSnapshot of the volume (name or UID) to back up instead of its present state."""
    availability_zone: CinderString | None = None
    """Kept and shown; it does not steer where movers run."""
    metadata: Metadata = {}
    """Keys and values of the user's own."""
    unreadable: Unreadable = Unreadable.FAIL
    """What happens if a file cannot be read or described (I/O errors, attributes beyond the format's limits). Fail: the
    backup fails. Skip: the file is left out and named, and condition Complete is False. Default: Fail."""
    deletion_policy: DeletionPolicy | None = None
    """Delete: the stored data goes with the VolumeBackup. Retain: it stays. None: Delete, but Retain with import."""


class Progress(Model):
    """How far a running mover is."""

    bytes_done: Annotated[int, Field(ge=0)] = 0
    """Bytes of the volume that are dealt with."""
    bytes_total: Annotated[int, Field(ge=0)] = 0
    """Bytes of the volume that there are to deal with."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """The first as a share of the second, rounded down."""


class VolumeBackupStatus(Model):
    """The response (api-ref: Show backup details), and what Kubernetes users want to know beyond it."""

    phase: BackupPhase | None = None
    """Cinder's status."""
    id: Uid | None = None
    """Cinder's id: metadata.uid, or that of the backup that was imported."""
    imported_by: Uid | None = None
    """Of an imported backup: the metadata.uid of the VolumeBackup that this status speaks of."""
    volume_id: Uid | None = None
    """UID of the PersistentVolumeClaim."""
    volume_name: Name | None = None
    """Name of the PersistentVolumeClaim."""
    store_name: Name | None = None
    """The BackupStore in use."""
    name: CinderString | None = None
    """spec.name as accepted."""
    description: CinderString | None = None
    """spec.description as accepted."""
    container: Container | None = None
    """The bucket in use."""
    availability_zone: CinderString | None = None
    """spec.availabilityZone as accepted."""
    metadata: Metadata | None = None
    """spec.metadata as accepted."""
    snapshot_id: Uid | None = None
    """UID of the VolumeSnapshot of spec.snapshotId."""
    size: Annotated[int, Field(ge=0)] | None = None
    """GiB of the volume, rounded up; of an incremental backup too."""
    object_count: Annotated[int, Field(ge=0)] | None = None
    """Data objects of this backup in the store; the manifest is not counted."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Why the phase is error, error_deleting or error_restoring."""
    is_incremental: bool | None = None
    """Whether the backup was made against a parent."""
    has_dependent_backups: bool | None = None
    """Whether other backups need this one's data."""
    parent_id: Uid | None = None
    """Id of the backup that this one was made against."""
    created_at: datetime | None = None
    """When the VolumeBackup was created."""
    updated_at: datetime | None = None
    """When this status last changed."""
    data_timestamp: datetime | None = None
    """The instant whose data the backup holds: of the snapshot, if there is one."""
    manifest_key: Annotated[str, Field(max_length=1024)] | None = None
    """Key of the manifest in the container."""
    sealed: bool | None = None
    """Whether the backup is encrypted in the store. A restore refuses a manifest that is not, if this says it is."""
    pins: Pins | None = None
    """What identifies the stored content. Restores and incremental backups refuse a manifest that differs."""
    reread_files: Annotated[int, Field(ge=0)] | None = None
    """Files without a visible change that were read again because they were stamped within the dirty window."""
    missed_changes: Annotated[int, Field(ge=0)] | None = None
    """Files whose content had changed although their timestamps had not. Earlier incremental backups may lack these
    changes."""
    unreadable_files: Annotated[int, Field(ge=0)] | None = None
    """Files that could not be read and are not in the backup (spec.unreadable: Skip)."""
    unreadable_examples: Annotated[list[Path], Field(max_length=5)] = []
    """Some of these files."""
    losses: Losses = []
    """What the backup could not keep of the files, each kind with a count and examples."""
    logical_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of data in the volume, holes and zeros left out."""
    transferred_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of data that were not in the parent."""
    stored_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of this backup's objects in the store."""
    progress: Progress | None = None
    """How far the mover is."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """The metadata.generation that this status speaks of; -1: nothing has been said yet."""
    conditions: Conditions = []
    """Ready, and while something is awaited Reconciling, or Stalled, with reason and message."""


class VolumeBackup(Object):
    """One copy of a PersistentVolumeClaim in S3, with the fields, statuses and rules of Cinder's backups."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["VolumeBackup"] = "VolumeBackup"
    spec: VolumeBackupSpec
    status: VolumeBackupStatus = VolumeBackupStatus()

    @property
    def backup_id(self) -> str:
        """Cinder's id, by which the store knows the backup: our UID, or the id that is imported."""
        return self.spec.import_.id if self.spec.import_ else self.uid

    @property
    def has_own_status(self) -> bool:
        """Whether the status speaks of this object: one that came with a copied object counts for nothing."""
        spoken_of = self.status.imported_by if self.spec.import_ else self.status.id
        return spoken_of == self.uid

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
    def is_alias(self) -> bool:
        """Whether it was imported under another id than the one that is stored, and to which the data belongs."""
        asked = self.spec.import_
        return asked is not None and asked.manifest is not None and not asked.manifest.endswith(f"/{asked.id}.manifest")

    @property
    def keeps_data(self) -> bool:
        """Whether the stored data stays when the VolumeBackup is deleted.

        Whoever adopts data must ask to delete it, and cannot do so with the data of another id.
        """
        if self.is_alias:
            return True
        default = DeletionPolicy.RETAIN if self.spec.import_ else DeletionPolicy.DELETE
        return (self.spec.deletion_policy or default) is DeletionPolicy.RETAIN
