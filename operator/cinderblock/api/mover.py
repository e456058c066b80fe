"""The task that the operator gives to a mover (`MoverTask`), and the report that the mover returns (`MoverReport`).

The task is in environment variables of the Job. It contains no secrets: the kubelet mounts credentials, keys and
certificates from Secrets as files. The report is the termination message of the container.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cinderblock.api.broker import BrokerLocation
from cinderblock.api.file_policies import Fidelity, Unreadable
from cinderblock.api.losses import Losses, Path
from cinderblock.api.meta import Model
from cinderblock.api.origin import ClaimFacts, ClusterFacts, DriverFacts
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.api.utc import UtcTime
from cinderblock.api.v1alpha1.store import (
    Addressing,
    ChangeDetection,
    Compression,
    LockMode,
    ServerSideEncryption,
    StoreAccess,
)
from cinderblock.api.v1alpha1.verification import VerificationLevel

TASK_VARIABLE = "CINDERBLOCK_TASK"
"""Environment variable with the MoverTask as JSON. A long task continues in CINDERBLOCK_TASK_1 and so on."""
_VARIABLE_CHARACTERS = 30_000
"""Most characters of one variable. The kernel limits a variable to 128 KiB (execve(2), MAX_ARG_STRLEN), and a character
has up to 4 bytes in UTF-8. A task may be longer: a backup may have 128 metadata values of 255 characters each."""
SECRETS_DIRECTORY = "/etc/cinderblock"
"""Directory of mounted Secrets in a mover. It contains credentials/, encryption/ and ca/, each only if configured."""
TARGET_PREFIX = "target-"
"""Beginning of the names of directories with the Secrets of the store that gets copies, below SECRETS_DIRECTORY."""
DEVICE_PATH = "/dev/cinderblock-volume"
"""Path of a volume of mode Block in a mover."""
TREE_PATH = "/volume"
"""Path of a volume of mode Filesystem in a mover."""
REPORT_LIMIT = 4096
"""Most bytes of a termination message, which the kubelet cuts off there (core/v1 TerminationMessagePath)."""


class VolumeMode(StrEnum):
    """volumeMode of a PersistentVolumeClaim."""

    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


class MoverOperation(StrEnum):
    """Operation of a mover."""

    BACKUP = "backup"
    RESTORE = "restore"
    VERIFY = "verify"
    COPY = "copy"


class StoreLocation(Model):
    """Location of a store, without credentials."""

    endpoint_url: str | None = None
    """URL of the S3 endpoint. None for AWS."""
    region: str = "us-east-1"
    container: str
    prefix: str = ""
    addressing: Addressing = Addressing.PATH
    access: StoreAccess = StoreAccess.READ_WRITE
    """ReadOnly to refuse every call that would change the container."""
    create_container: bool = False
    """Whether to create the container if it does not exist."""
    storage_class: str | None = None
    """Storage class of written objects. None for the default of the server."""
    server_side_encryption: ServerSideEncryption | None = None
    """Encryption that the S3 server applies. None for the default of the container."""
    allowed_endpoints: list[str] | None = None
    """Hosts and networks that the administrator allows, see `AllowedEndpoint`. None for all."""
    upload_bytes_per_second: int | None = None
    download_bytes_per_second: int | None = None


class BackupMetadata(Model):
    """Facts about the volume and the request in the manifest, so that a store is complete without the cluster."""

    backup_id: str
    """UID of the VolumeBackup."""
    backup_name: str = ""
    """metadata.name of the VolumeBackup."""
    namespace: str = ""
    volume_id: str
    """UID of the PersistentVolumeClaim."""
    volume_name: str = ""
    volume_mode: VolumeMode
    volume_bytes: int = 0
    """Capacity of the PersistentVolumeClaim."""
    storage_class: str = ""
    access_modes: list[str] = []
    display_name: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    created_at: UtcTime
    data_timestamp: UtcTime
    incremental: bool = False
    change_detection: ChangeDetection | None = None
    """Rule by which files of the parent were not read again. None for a full backup, or a backup of a block device."""
    claim: ClaimFacts | None = None
    """More facts about the PersistentVolumeClaim."""
    driver: DriverFacts | None = None
    """Facts about the CSI volume."""
    cluster: ClusterFacts | None = None
    """Facts about the cluster that made the backup."""
    consistency: str | None = None
    """A value of `Consistency`, or of a later version. None if the writer did not record it."""
    written_by: str | None = None
    """Version of Cinderblock that wrote the manifest."""


class LockTask(Model):
    """The locks that a mover sets (spec.objectLock of the BackupStore). The operator has computed all times."""

    mode: LockMode
    until: UtcTime
    """End of the locks of new objects, in whole seconds."""
    at_least: UtcTime
    """Earliest end of the lock of each pack that a manifest lists. A lock that ends earlier is extended."""


class VerifyTask(Model):
    """Scope of a verification. The mover lists the manifests of the volume itself."""

    level: VerificationLevel
    """Structure or Data. A verification of level Restore is a restore."""
    part: int = 1
    """Number of the part of the packs to read, from 1 to ``parts``."""
    parts: int = 1
    """Number of parts into which the packs of the volume are divided by their keys."""
    max_bytes: int | None = None
    """Number of bytes after which the mover reads no further pack. None for no limit."""
    max_seconds: int | None = None
    """Number of seconds after which the mover reads no further pack. None for no limit."""


COPIES_OF_A_RUN = 16
"""Most backups that one run of a mover copies: the report has a line for each of them."""


class CopyTask(Model):
    """Backups to copy from the store of the task to another one."""

    target: StoreLocation
    """Location of the store that gets the copies. Its Secrets are mounted besides those of the source."""
    backups: Annotated[list[ExpectedBackup], Field(max_length=COPIES_OF_A_RUN)]
    """The backups, in order, with everything that is known about their manifests."""
    lock: LockTask | None = None
    """Locks of the packs and manifests in the target (spec.objectLock of its BackupStore). None for no locks."""


class MoverTask(Model):
    """One run of a mover."""

    operation: MoverOperation
    store: StoreLocation
    broker: BrokerLocation | None = None
    """Broker that gives access to the store. None if the mover has the credentials of the store."""
    volume_mode: VolumeMode
    path: str
    """Path of the volume in the pod: DEVICE_PATH or TREE_PATH."""
    backup: BackupMetadata
    """The backup to create, or the backup to restore."""
    expected: ExpectedBackup | None = None
    """Expected identity of the manifest to restore."""
    fidelity: Fidelity = Fidelity.STRICT
    """Policy of a restore for attributes that the target cannot preserve."""
    unreadable: Unreadable = Unreadable.FAIL
    """Policy of a backup for files that cannot be read."""
    expected_parent: ExpectedBackup | None = None
    """Expected identity of the manifest of the parent."""
    dirty_window_seconds: int = 3600
    """Longest delay, in seconds, between the timestamps of a file and its data on the volume."""
    compare_every: int = 30
    """Interval of incremental backups that read all files: every n-th one does."""
    renew_below: int = 50
    """Percentage of a pack in use, below which an incremental backup sends the rest of it again; 0: never."""
    data_instant: datetime | None = None
    """Earliest time of the data: no snapshot was taken, and no live tree was read, before it. If it is None, this
    backup and the next one read all files."""
    parent_manifest: str | None = None
    """Key of the manifest of the parent, for an incremental backup."""
    change_detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    """Rule by which an incremental backup does not read a file again."""
    manifest: str
    """Key of the manifest that a backup writes, or that a restore reads."""
    compression: Compression = Compression()
    sealed: bool = False
    """Whether the backup is encrypted. A backup then fails without the key. A restore refuses an unencrypted manifest,
    because somebody may have replaced the encrypted one."""
    active_key: str | None = None
    """Id of the key that encrypts a new backup. None for the greatest id of the mounted keys."""
    verify: VerifyTask | None = None
    """Scope of the operation verify. ``backup`` and ``manifest`` are then those of the chosen backup."""
    lock: LockTask | None = None
    """Locks of the packs and of the manifest of a backup. None for no locks."""
    copies: CopyTask | None = None
    """Scope of the operation copy. ``backup`` and ``manifest`` are then those of the first backup."""
    avoid_packs: Annotated[list[str], Field(max_length=64)] = []
    """Keys of damaged packs, without the prefix of the store. An incremental backup sends their chunks again."""


class VerifyReport(Model):
    """Findings of a verification. A damage is a finding and no failure of the mover."""

    complete: bool = True
    """Whether the whole part was read. It is false after a limit of the task."""
    packs: int = 0
    """Number of packs that the manifests of the volume list."""
    packs_verified: int = 0
    """Number of packs that were verified at the level of the task."""
    bytes_read: int = 0
    """Bytes that were read from the store."""
    damaged_count: int = 0
    """Number of objects that are damaged or missing."""
    damaged: Annotated[list[str], Field(max_length=20)] = []
    """Keys of some of them, without the prefix of the store."""
    affected_count: int = 0
    """Number of backups of the volume that need a damaged object."""
    affected: Annotated[list[str], Field(max_length=20)] = []
    """Ids of some of these backups: the chosen one if it is among them, and then the newest ones."""
    unreadable_count: int = 0
    """Number of other manifests of the volume that this mover cannot read, for example without their key. Nothing is
    known about them."""


class CopyResult(Model):
    """Result of the copy of one backup. A backup that is not in the report was not reached."""

    backup_id: str
    """Id of the backup."""
    bytes_sent: int = 0
    """Bytes that were written to the target."""
    locked_until: UtcTime | None = None
    """Time until which the target keeps the manifest, as it says itself. None if it is not locked."""
    reason: str = ""
    """Reason of a failure, as a stable CamelCase word. Empty for a verified copy."""
    message: str = ""
    """Message for people about a failure."""


class MoverReport(Model):
    """Result of a run of a mover. It is at most REPORT_LIMIT bytes of JSON."""

    succeeded: bool
    permanent: bool = False
    """Whether a failure is permanent, so that a retry cannot succeed."""
    reason: str = ""
    """Reason of a failure, as a stable CamelCase word."""
    message: str = ""
    """Message for people: the error of a failure, or a note about a success."""
    manifest: str | None = None
    """Key of the manifest that the mover wrote or read."""
    object_count: int = 0
    logical_bytes: int = 0
    transferred_bytes: int = 0
    renewed_bytes: int = 0
    """Unchanged bytes that a backup sent again, because little of their packs was still in use."""
    stored_bytes: int = 0
    restored_bytes: int = 0
    requests: int = 0
    """Number of requests to the S3 server, without retries."""
    pins: Pins | None = None
    """Pins of the manifest that a backup wrote."""
    reread_files: int = 0
    """Number of files that a backup read again because their timestamps are within the dirty window."""
    missed_changes: int = 0
    """Number of files whose content had changed although their timestamps had not."""
    unreadable_files: int = 0
    """Number of files that a backup skipped because they could not be read."""
    unreadable_examples: Annotated[list[Path], Field(max_length=5)] = []
    """Paths of some of the skipped files."""
    losses: Losses = []
    """Attributes that could not be preserved, each kind once."""
    verification: VerifyReport | None = None
    """Findings of a verification."""
    copies: Annotated[list[CopyResult], Field(max_length=COPIES_OF_A_RUN)] = []
    """Results of copies."""
    warnings: Annotated[list[str], Field(max_length=8)] = []
    """Warnings for people, for example about skipped sockets."""


def missed_changes_sentence(count: int) -> str:
    """Return a warning about ``count`` files whose content had changed although their timestamps had not."""
    files = "1 file" if count == 1 else f"{count} files"
    return (
        f"The content of {files} had changed although size and timestamps had not. This backup has the changes. "
        "Earlier incremental backups of the volume may lack them."
    )


class MoverProgress(Model):
    """Progress of a mover, which it writes to its standard output as lines."""

    bytes_done: int
    bytes_total: int
    bytes_stored: int = 0
    bytes_per_second: int = 0
    seconds_left: int | None = None


def task_to_env(task: MoverTask) -> dict[str, str]:
    """Return the environment variables that contain the task.

    The kubelet expands ``$(NAME)`` and ``$$`` in values, so the JSON contains no dollar sign.
    """
    text = task.model_dump_json(by_alias=True, exclude_none=True).replace("$", "\\u0024")
    parts = [text[start : start + _VARIABLE_CHARACTERS] for start in range(0, len(text), _VARIABLE_CHARACTERS)]
    return {_variable(number): part for number, part in enumerate(parts)}


def task_from_env(environment: Mapping[str, str]) -> str | None:
    """Return the JSON that `task_to_env` split, or None if the environment contains no task."""
    parts: list[str] = []
    while (part := environment.get(_variable(len(parts)))) is not None:
        parts.append(part)
    return "".join(parts) if parts else None


def _variable(number: int) -> str:
    return f"{TASK_VARIABLE}_{number}" if number else TASK_VARIABLE


MOVER_CONTAINER = "mover"
"""Name of the container of a mover's pod. A cluster may inject others."""

EXIT_SUCCESS = 0
EXIT_PERMANENT = 3
"""A retry cannot succeed. The pod failure policy of the Job ends the Job."""
EXIT_TRANSIENT = 4
"""A retry may succeed. The Job starts another pod, up to its backoff limit."""
