"""`BackupVerification`: one proof that a backup can be restored, by reading it or by restoring it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.duration import Duration, LongDuration
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.v1alpha1.progress import MoverReference, Progress
from cinderblock.api.v1alpha1.store import Name

MAX_PARTS = 366
"""Parts into which the data of a volume's backups can be divided: one for each day of a year."""
NAMED_OBJECTS = 20
"""Damaged objects that a status names at most."""

MESSAGE_LIMIT = 1024
"""Characters of a message about a drill that a status keeps."""

ObjectName = Annotated[str, Field(min_length=1, max_length=1024)]
"""Key of an object in the bucket."""


class VerificationLevel(StrEnum):
    """Levels of verification. Each one proves more than the level before."""

    STRUCTURE = "Structure"
    DATA = "Data"
    RESTORE = "Restore"


class VerificationPhase(StrEnum):
    """Statuses of a verification."""

    VERIFYING = "verifying"
    VERIFIED = "verified"
    DAMAGED = "damaged"
    ERROR = "error"

    @property
    def is_final(self) -> bool:
        """Whether the verification has ended."""
        return self is not VerificationPhase.VERIFYING


class DataRule(Model):
    """Share of the data that one verification of level Data reads."""

    parts: Annotated[int, Field(ge=1, le=MAX_PARTS)] = 1
    """Number of parts into which the packs of the volume's backups are divided by their keys. One verification reads
    one part, the one that was read least recently. Defaults to 1, so that all data is read."""
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """Number of bytes after which the verification ends with a part of its work. The next one continues. Defaults to no
    limit."""
    max_duration: Duration | None = None
    """Time after which the verification ends with a part of its work. The next one continues. Defaults to no limit."""


class CheckReference(Model):
    """The user's own check of a restored volume."""

    cron_job_name: Name
    """Name of a suspended CronJob in the same namespace. The check is a Job from its template, with the restored volume
    mounted read-only at /restored. The check passes if the Job succeeds."""


class RestoreRule(Model):
    """How a verification of level Restore restores a backup and checks it."""

    storage_class_name: Name | None = None
    """StorageClass of the scratch volume. Defaults to the StorageClass of the backed up volume."""
    check: CheckReference | None = None
    """Check of the restored volume. Defaults to none: the restore itself verifies every byte that it writes."""
    max_data_age: LongDuration | None = None
    """Largest age of the data. The verification fails if the newest backup is older. Defaults to no limit."""
    timeout: Duration = "2h"
    """Time limit of the restore and the check together. It is at most 24h: a longer one counts as 24h. Defaults to
    2h."""


class BackupVerificationSpec(Model):
    """Requested verification. No field can be changed."""

    level: VerificationLevel
    """Level of the verification. Structure: the manifest, and the presence and size of every pack. Data: also the
    content of packs. Restore: a restore to a scratch volume, and a check."""
    backup_id: Name | None = None
    """Id, UID or name of the VolumeBackup to verify. Exactly one of backupId and volumeId must be set. Defaults to the
    newest available backup of volumeId."""
    volume_id: Name | None = None
    """UID or name of a PersistentVolumeClaim. The newest available backup of it is verified, as of the beginning of the
    verification. Data is verified for all its backups in the same store: each pack once."""
    data: DataRule = DataRule()
    """Share of the data that level Data reads."""
    restore: RestoreRule = RestoreRule()
    """How level Restore restores and checks."""


class BackupVerificationStatus(Model):
    """Observed state of the verification."""

    phase: VerificationPhase | None = None
    """Status: verifying, verified, damaged or error. It is damaged if the store holds something else than was written,
    or if the check of a restored volume failed. It is error if nothing was proven, for example because the store or the
    encryption key was unavailable."""
    id: Uid | None = None
    """Id of the verification, which is metadata.uid."""
    backup_id: Uid | None = None
    """Id of the backup that was chosen."""
    backup_name: Name | None = None
    """Name of the VolumeBackup."""
    volume_id: Uid | None = None
    """UID of the PersistentVolumeClaim that was backed up."""
    data_timestamp: datetime | None = None
    """Time of the backup's data."""
    part: Annotated[int, Field(ge=1)] | None = None
    """Number of the part that level Data reads, from 1 to spec.data.parts."""
    complete: bool | None = None
    """Whether the whole part was read. It is false if a limit of spec.data ended the verification before."""
    packs_verified: Annotated[int, Field(ge=0)] | None = None
    """Number of packs whose presence and size were verified, and at level Data their content."""
    bytes_read: Annotated[int, Field(ge=0)] | None = None
    """Bytes that were read from the store."""
    restored_bytes: Annotated[int, Field(ge=0)] | None = None
    """Data that was written to the scratch volume and verified, in bytes."""
    restore_duration: Duration | None = None
    """Time from the beginning of the restore to its end: a measured time to restore."""
    check_exit_code: int | None = None
    """Exit code of the check, if it ran and ended."""
    check_message: Annotated[str, Field(max_length=MESSAGE_LIMIT)] | None = None
    """Message that the check has left in its terminationMessagePath, at most its last 1024 characters. Its log is not
    kept."""
    restore_fail_reason: Annotated[str, Field(max_length=MESSAGE_LIMIT)] | None = None
    """Reason and message of the VolumeRestore if it failed, or did not end in time. It is removed with the drill."""
    objects: Annotated[list[ObjectName], Field(max_length=NAMED_OBJECTS)] = []
    """Keys of objects that are damaged or missing; at most 20."""
    damaged_objects: Annotated[int, Field(ge=0)] | None = None
    """Number of such objects."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Cause of the phase damaged or error."""
    started_at: datetime | None = None
    """Time when the backup was chosen."""
    updated_at: datetime | None = None
    """Time when this status last changed."""
    completed_at: datetime | None = None
    """Time when the verification ended."""
    duration: Duration | None = None
    """Time from the creation of the object to completedAt, for example 2m5s."""
    progress: Progress | None = None
    """Progress of the mover. It is set only while a mover runs."""
    mover: MoverReference | None = None
    """Mover of the verification. At level Restore, it is the VolumeRestore, and then the Job of the check. It is set
    only while there is one."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the verification. Ready is always set, Reconciling while the operator works or waits, and Stalled
    after a failure."""


class BackupVerification(Object):
    """One verification of a backup."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["BackupVerification"] = "BackupVerification"
    spec: BackupVerificationSpec
    status: BackupVerificationStatus = BackupVerificationStatus()

    @property
    def has_own_status(self) -> bool:
        """Whether the status describes this object: the status of a copied object describes its original."""
        return self.status.id == self.uid

    @property
    def own_phase(self) -> VerificationPhase | None:
        """The phase of the object's own status; None if it has no own status."""
        return self.status.phase if self.has_own_status else None

    @property
    def has_ended(self) -> bool:
        """Whether the own status says that the verification has ended."""
        return self.own_phase is not None and self.own_phase.is_final


class VerificationResult(StrEnum):
    """Knowledge about the stored data of a backup."""

    VERIFIED = "Verified"
    DAMAGED = "Damaged"
    UNVERIFIED = "Unverified"


class PartsRead(Model):
    """Which parts of the data of a volume's backups were read."""

    parts: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    """Number of parts into which the data was divided."""
    last: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    """The part that was read last, from 1 to parts. The next verification reads the part after it."""
    last_at: datetime
    """Time when it had been read."""
    read: Annotated[list[Annotated[int, Field(ge=1, le=MAX_PARTS)]], Field(max_length=MAX_PARTS)] = []
    """The parts that were read well since this backup exists, and since it was last found damaged."""


class VerificationSummary(Model):
    """Result of the verifications of a backup: the field status.verification of a VolumeBackup."""

    recorded_for: Uid | None = None
    """Value of metadata.uid of the VolumeBackup, which shows that this summary belongs to this object."""
    result: VerificationResult = VerificationResult.UNVERIFIED
    """Verified: a restore passed, or the structure is sound and every pack was read well since the backup exists.
    Damaged: an object is damaged or missing. Unverified: nothing is known, or not enough."""
    level: VerificationLevel | None = None
    """The highest level that passed. The times below tell how long ago."""
    structure_at: datetime | None = None
    """Time of the last verification that found the manifest sound and all packs present. It is unset while the result
    is Damaged."""
    data_at: datetime | None = None
    """Time of the last verification of level Data after which every pack was read well at least once. If the data is
    read in parts, some were read earlier. It is unset while the result is Damaged."""
    restored_at: datetime | None = None
    """Time of the last drill that restored the backup, and whose check passed. It is unset while the result is
    Damaged."""
    last_verified_at: datetime | None = None
    """Time of the last verification after which the result was Verified."""
    last_checked_at: datetime | None = None
    """Time of the last verification of any level that ended with a statement about this backup."""
    coverage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the backup's packs that were read well, in percent: the share of the parts of the volume's data."""
    parts: PartsRead | None = None
    """Parts that were read. It is unset before the first verification of level Data."""
    damaged_at: datetime | None = None
    """Time of the verification that last found damage which was certainly not known before. It is set only while the
    result is Damaged."""
    damaged_level: VerificationLevel | None = None
    """Highest level at which damage was found. It is set only while the result is Damaged."""
    damaged_objects: Annotated[int, Field(ge=0)] | None = None
    """Number of objects that are certainly damaged or missing. There may be more, if some have no name in objects. It
    is set only while the result is Damaged."""
    objects: Annotated[list[ObjectName], Field(max_length=NAMED_OBJECTS)] = []
    """Keys of damaged or missing objects that were found together with damage of this backup; at most 20."""
    check_failed_at: datetime | None = None
    """Time of the last drill whose check failed. It is set until a drill passes, and the result is Damaged so long."""

    def level_times(self) -> dict[VerificationLevel, datetime]:
        """Return when each level was last passed. A level that never passed, or not since damage, is left out."""
        times = zip(VerificationLevel, (self.structure_at, self.data_at, self.restored_at), strict=True)
        return {level: at for level, at in times if at is not None}
