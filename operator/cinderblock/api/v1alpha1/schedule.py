"""`BackupSchedule` and `ClusterBackupSchedule`: which volumes are backed up when, and how long backups are kept."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.duration import Duration, LongDuration
from cinderblock.api.file_policies import Unreadable
from cinderblock.api.meta import CORE_TYPE, Annotations, Labels, Model, Object
from cinderblock.api.v1alpha1.backup import CinderString, DeletionPolicy, Description, Metadata
from cinderblock.api.v1alpha1.retention import Retention, RetentionStatus
from cinderblock.api.v1alpha1.store import Container, Name
from cinderblock.api.v1alpha1.verification import DataRule, RestoreRule

LabelSelector = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "LabelSelector"})]

TimeZone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$")]
"""Name of a zone in the IANA time zone database."""

CronExpression = Annotated[str, Field(min_length=1, max_length=256)]
"""Five fields (minute, hour, day of month, month, day of week), or a name such as @daily."""

NAMED_FAILURES = 20
"""Failing volumes that a status names at most."""


class Missed(StrEnum):
    """Treatment of a time at which the operator could not act."""

    LATEST = "Latest"
    SKIP = "Skip"


class Overlap(StrEnum):
    """Treatment of a volume whose backup of an earlier time has not ended."""

    SKIP = "Skip"
    QUEUE = "Queue"


class VolumeSelection(Model):
    """The volumes to back up. A volume must match every field that is set."""

    selector: LabelSelector = {}
    """Labels of the PersistentVolumeClaims. Defaults to all claims."""
    storage_classes: Annotated[list[Name], Field(max_length=64)] = []
    """Names of the StorageClasses of the claims. Defaults to all classes."""
    min_age: LongDuration = "0s"
    """Smallest age of a claim that is backed up, for example 1h to leave out volumes that are still empty. Defaults to
    0s."""


class FullRule(Model):
    """When a backup is a full one. All others are incremental."""

    every: LongDuration = "90d"
    """Period in which each volume gets one full backup. Each volume has its own day in it, so that not all volumes make
    a full backup in one night. With 0s every backup is full. Defaults to 90d."""


class Retries(Model):
    """How failed backups are repeated."""

    count: Annotated[int, Field(ge=0, le=10)] = 2
    """Number of further backups of a volume after one that failed. Defaults to 2."""
    backoff: Duration = "10m"
    """Delay before each of them. Defaults to 10m."""


class TemplateMetadata(Model):
    """Labels and annotations of the VolumeBackups."""

    labels: Labels = {}
    """Labels that each VolumeBackup gets. Defaults to no labels."""
    annotations: Annotations = {}
    """Annotations that each VolumeBackup gets. Defaults to no annotations."""


class TemplateSpec(Model):
    """Fields of each VolumeBackup. The schedule sets volumeId and incremental itself."""

    store_name: Name | None = None
    """Name of the BackupStore. Defaults to the default store of the namespace."""
    name: CinderString | None = None
    """Display name of the backups, as in Cinder. Defaults to no name."""
    description: Description | None = None
    """Description of the backups, in one line. Defaults to no description."""
    container: Container | None = None
    """Bucket for the backups. Defaults to the bucket of the store."""
    force: bool = True
    """Whether to back up volumes that pods use. The backup is then a crash-consistent copy of a snapshot. Defaults to
    true."""
    metadata: Metadata = {}
    """Metadata of the backups, as keys and values that the user chooses. Defaults to no metadata."""
    unreadable: Unreadable = Unreadable.FAIL
    """Policy for a file that cannot be read: Fail or Skip. Defaults to Fail."""
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
    """Whether stored data is deleted with a VolumeBackup. Retention never removes a backup with Retain. Defaults to
    Delete."""


class BackupTemplate(Model):
    """Template of the VolumeBackups that a schedule makes."""

    metadata: TemplateMetadata = TemplateMetadata()
    """Labels and annotations of the VolumeBackups. Nothing else is copied to them."""
    spec: TemplateSpec = TemplateSpec()
    """Fields of the VolumeBackups."""


class StructureVerification(Model):
    """When the structure of backups is verified."""

    schedule: CronExpression
    """Times as a cron expression, in the time zone of the schedule. Each volume has its place in spread."""


class DataVerification(DataRule):
    """When the data of backups are verified, and how much of them each time."""

    schedule: CronExpression
    """Times as a cron expression, in the time zone of the schedule. Each volume has its place in spread."""


class RestoreVerification(RestoreRule):
    """When backups are restored to scratch volumes and checked."""

    schedule: CronExpression
    """Times as a cron expression, in the time zone of the schedule. They do not spread: few volumes are restored."""
    volumes: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of volumes that are restored each time. All volumes take turns. Defaults to 1."""


class VerificationRules(Model):
    """Times at which the newest backup of each volume is verified. Without a rule, a level is not verified."""

    structure: StructureVerification | None = None
    """Verification of level Structure. Defaults to none."""
    data: DataVerification | None = None
    """Verification of level Data. Defaults to none."""
    restore: RestoreVerification | None = None
    """Verification of level Restore. Defaults to none."""
    successful_history_limit: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of BackupVerifications with phase verified that are kept for each volume and level. Defaults to 3."""
    failed_history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Number of other ended BackupVerifications that are kept for each volume and level. Defaults to 10."""


class BackupScheduleSpec(Model):
    """Desired times, volumes, and retention."""

    schedule: CronExpression
    """Times as a cron expression with five fields (minute, hour, day of month, month, day of week), for example
    "30 2 * * *". Names of months and days are accepted, and @hourly, @daily, @weekly, @monthly and @yearly."""
    time_zone: TimeZone = "Etc/UTC"
    """Time zone of the schedule, for example Europe/Berlin. Defaults to Etc/UTC."""
    spread: Duration | None = None
    """Time over which the backups of one run begin. Each volume has a fixed place in it. It must be shorter than the
    interval of the schedule. Defaults to 10m, or to half of the interval if that is shorter."""
    starting_deadline: LongDuration | None = None
    """Delay after which a scheduled time counts as missed, if no backup could be created before. Failed backups are not
    repeated after it either. Defaults to the time until the next run."""
    missed: Missed = Missed.LATEST
    """Treatment of times at which the operator did not run: Latest makes up for the newest one within the starting
    deadline, and Skip for none. Defaults to Latest."""
    overlap: Overlap = Overlap.SKIP
    """Treatment of a volume whose earlier backup has not ended: Skip counts the time as skipped, and Queue creates
    the backup, which waits. Defaults to Skip."""
    suspend: bool = False
    """Whether the schedule makes no backups. Times during the pause are not made up for. Retention continues. Defaults
    to false."""
    run_on_create: bool = False
    """Whether to run once when the schedule is created. Defaults to false."""
    run_now: Annotated[str, Field(max_length=63)] = ""
    """A token that starts a run at once, without spread, whenever it differs from status.lastRunNow. A token that was
    used before starts nothing while its backups exist. Defaults to no such run."""
    volumes: VolumeSelection = VolumeSelection()
    """Volumes to back up, which are listed at each run. A claim with the annotation cinderblock.io/backup: "false" is
    always left out. Defaults to all bound claims of the selected namespaces."""
    full: FullRule = FullRule()
    """When a backup is a full one."""
    retries: Retries = Retries()
    """How failed backups are repeated."""
    template: BackupTemplate = BackupTemplate()
    """Template of the VolumeBackups."""
    retention: Retention | None = None
    """Rules by which backups of this schedule are removed. Defaults to none, so that all are kept."""
    verification: VerificationRules | None = None
    """Times at which backups are verified. Defaults to none."""


class ClusterBackupScheduleSpec(BackupScheduleSpec):
    """Desired times, namespaces, volumes, and retention."""

    namespace_selector: LabelSelector
    """Labels of the namespaces whose volumes are backed up. An empty selector matches all namespaces."""
    opt_in: bool = False
    """Whether only claims with the annotation cinderblock.io/backup: "true" are backed up. Defaults to false."""


class RunStatus(Model):
    """One run of a schedule."""

    time: datetime
    """The scheduled time, or the time at which a run without one began."""
    name: Annotated[str, Field(max_length=63)] = ""
    """Common part of the names of its VolumeBackups: the scheduled time in UTC, for example 202605041200. For
    spec.runNow, it begins with now-, and for spec.runOnCreate with first-."""
    volumes: Annotated[int, Field(ge=0)] = 0
    """Number of volumes that the schedule selected."""
    created: Annotated[int, Field(ge=0)] = 0
    """Number of VolumeBackups that were created."""
    succeeded: Annotated[int, Field(ge=0)] = 0
    """Number of volumes with an available backup of this run."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Number of volumes whose backups of this run have all failed."""
    skipped: Annotated[int, Field(ge=0)] = 0
    """Number of volumes that were left out: an earlier backup had not ended, the namespace has no BackupStore or too
    many VolumeBackups, or the name of the backup was taken."""
    missed: Annotated[int, Field(ge=0)] = 0
    """Number of volumes whose backup could not be created before the starting deadline."""


class FailingVolume(Model):
    """A volume without a new backup."""

    namespace: Name
    """Namespace of the PersistentVolumeClaim."""
    volume: Name | None = None
    """Name of the PersistentVolumeClaim. It is unset if the whole namespace cannot be read."""
    backup: Name | None = None
    """Name of the newest VolumeBackup that failed, if there is one."""
    reason: Annotated[str, Field(max_length=64)]
    """Reason of the failure."""


class VerificationTimes(Model):
    """The times of one level of verification."""

    observed_times: Annotated[str, Field(max_length=400)] | None = None
    """Schedule, time zone and suspend that effectiveSince belongs to."""
    effective_since: datetime | None = None
    """Time from which runs are due."""
    last_schedule_time: datetime | None = None
    """The newest time for which all BackupVerifications were created or given up."""
    next_schedule_time: datetime | None = None
    """The next time."""
    last_place: Annotated[str, Field(max_length=16)] | None = None
    """Place of the last volume that level Restore has restored, in the order in which volumes take turns."""


class ScheduleVerificationStatus(Model):
    """Observed state of the verifications of a schedule."""

    structure: VerificationTimes | None = None
    """Times of level Structure."""
    data: VerificationTimes | None = None
    """Times of level Data."""
    restore: VerificationTimes | None = None
    """Times of level Restore."""


class BackupScheduleStatus(Model):
    """Observed state of the schedule."""

    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the schedule. Ready is False if the schedule has an error. LastRunSucceeded is True if the last run
    backed up every volume. Selecting is False if no volume is selected. RetentionApplied is False if the API server
    refuses what retention does. VerificationsCreated is False if spec.verification has an error, or if the API server
    refuses a BackupVerification."""
    observed_times: Annotated[str, Field(max_length=400)] | None = None
    """Schedule, time zone and suspend that effectiveSince belongs to."""
    effective_since: datetime | None = None
    """Time from which runs are due: the creation of the schedule, the last change of its times, or the end of a
    pause."""
    last_schedule_time: datetime | None = None
    """The newest scheduled time for which all backups were created or given up."""
    next_schedule_time: datetime | None = None
    """The next scheduled time."""
    last_completed_time: datetime | None = None
    """Time at which a run last ended with a backup of every volume."""
    last_run_now: Annotated[str, Field(max_length=63)] | None = None
    """Value of spec.runNow whose run has created all its backups. It is empty after the run of spec.runOnCreate."""
    last_run: RunStatus | None = None
    """The current or the last run."""
    failing: Annotated[list[FailingVolume], Field(max_length=NAMED_FAILURES)] = []
    """Volumes whose last backup failed, or for which none could be created; at most 20."""
    failing_volumes: Annotated[int, Field(ge=0)] | None = None
    """Number of such volumes."""
    retention: RetentionStatus | None = None
    """Numbers of the last pass of retention. It is unset without spec.retention."""
    verification: ScheduleVerificationStatus | None = None
    """Times of verifications. It is unset without spec.verification."""


class BackupSchedule(Object):
    """A schedule that backs up volumes of its namespace, and removes their old backups."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["BackupSchedule"] = "BackupSchedule"
    spec: BackupScheduleSpec
    status: BackupScheduleStatus = BackupScheduleStatus()


class ClusterBackupSchedule(Object):
    """A schedule that backs up volumes of several namespaces, and removes their old backups. Only people with rights in
    the whole cluster may create it."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["ClusterBackupSchedule"] = "ClusterBackupSchedule"
    spec: ClusterBackupScheduleSpec
    status: BackupScheduleStatus = BackupScheduleStatus()


AnySchedule = BackupSchedule | ClusterBackupSchedule
