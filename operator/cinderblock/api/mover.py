"""What the operator asks of a mover (`MoverTask`) and what the mover answers (`MoverReport`).

The task travels in the Job as an environment variable, or several if it is very long; it holds no secret: credentials,
keys and certificates are files that the kubelet mounts from Secrets. The report is the container's termination message.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cinderblock.api.losses import Fidelity, Losses, Path, Unreadable
from cinderblock.api.meta import Model
from cinderblock.api.origin import ClaimFacts, ClusterFacts, DriverFacts
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.api.v1alpha1.store import Addressing, ChangeDetection, Compression, ServerSideEncryption

TASK_VARIABLE = "CINDERBLOCK_TASK"
"""Environment variable with the MoverTask as JSON; what is too long for one goes on in CINDERBLOCK_TASK_1 and so on."""
_CHARACTERS = 30_000
"""Of a variable. The kernel takes 128 KiB in each (execve(2), MAX_ARG_STRLEN); as UTF-8 a character has up to 4 bytes.
A backup may have 128 values of metadata of 255 characters each, which would be more."""
SECRETS_DIRECTORY = "/etc/cinderblock"
"""Where Secrets are mounted in a mover: credentials/, encryption/ and ca/ below it, each only if configured."""
DEVICE_PATH = "/dev/cinderblock-volume"
"""Where a volume of mode Block appears in a mover."""
TREE_PATH = "/volume"
"""Where a volume of mode Filesystem is mounted in a mover."""
REPORT_LIMIT = 4096
"""Bytes of a termination message that the kubelet keeps (Kubernetes: core/v1 TerminationMessagePath)."""


class VolumeMode(StrEnum):
    """volumeMode of a PersistentVolumeClaim."""

    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


class MoverOperation(StrEnum):
    """What a mover does."""

    BACKUP = "backup"
    RESTORE = "restore"


class StoreLocation(Model):
    """Where to find a store. No credentials."""

    endpoint_url: str | None = None
    """None: AWS."""
    region: str = "us-east-1"
    container: str
    prefix: str = ""
    addressing: Addressing = Addressing.PATH
    create_container: bool = False
    """Create the container if it does not exist."""
    storage_class: str | None = None
    """Storage class of what is written; None: the server's default."""
    server_side_encryption: ServerSideEncryption | None = None
    """What the server is asked to encrypt with; None: as the container has it."""
    upload_bytes_per_second: int | None = None
    download_bytes_per_second: int | None = None


class BackupMetadata(Model):
    """What the manifest of a backup keeps about the volume and the request, so that the store alone explains itself."""

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
    created_at: datetime
    data_timestamp: datetime
    incremental: bool = False
    change_detection: ChangeDetection | None = None
    """Which files of the parent's were not read again; None: the backup is not incremental, or that of a device."""
    claim: ClaimFacts | None = None
    """Further facts about the PersistentVolumeClaim."""
    driver: DriverFacts | None = None
    """The CSI volume behind the claim."""
    cluster: ClusterFacts | None = None
    """The cluster that made the backup."""
    consistency: str | None = None
    """One of `Consistency`, or a word of a later version; None: the writer did not record it."""
    written_by: str | None = None
    """Version of Cinderblock that wrote the manifest."""


class MoverTask(Model):
    """One run of a mover."""

    operation: MoverOperation
    store: StoreLocation
    volume_mode: VolumeMode
    path: str
    """Where the volume is in this pod: DEVICE_PATH or TREE_PATH."""
    backup: BackupMetadata
    """The backup to make, or the backup to restore."""
    expected: ExpectedBackup | None = None
    """restore: which backup the manifest must be."""
    fidelity: Fidelity = Fidelity.STRICT
    """restore: what to do if the target cannot keep the owner, mode, links or times of a file."""
    unreadable: Unreadable = Unreadable.FAIL
    """backup: what to do about a file that cannot be read."""
    expected_parent: ExpectedBackup | None = None
    """backup: which backup the parent's manifest must be."""
    dirty_window_seconds: int = 3600
    """backup: how many seconds later than its timestamps the data of a file may reach the volume."""
    compare_every: int = 30
    """backup: every n-th incremental backup reads all files."""
    data_instant: datetime | None = None
    """backup: the earliest time at which the data can have been cut. No snapshot was taken and no live tree was read
    before it. None: unknown; then the backup reads all files, and so does the next one."""
    parent_manifest: str | None = None
    """backup: key of the parent's manifest, if the backup is incremental."""
    change_detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    """backup: which files of the parent's need not be read again."""
    manifest: str
    """Key of the manifest: to be written by a backup, to be read by a restore."""
    compression: Compression = Compression()
    sealed: bool = False
    """backup: whether the store has an encryption Secret: it is then sealed, and refuses to run without the key.
    restore: whether the backup was encrypted when it was stored; one that is not any more is refused."""
    active_key: str | None = None
    """Key id that seals a new backup; None: the greatest of those mounted."""


class MoverReport(Model):
    """How a run of a mover ended, in at most REPORT_LIMIT bytes of JSON."""

    succeeded: bool
    permanent: bool = False
    """Of a failure: trying again cannot help."""
    reason: str = ""
    """Of a failure: stable CamelCase word."""
    message: str = ""
    """Of a failure: one sentence. Of a success: what a person should know, or nothing."""
    manifest: str | None = None
    """Key of the manifest that was written or read."""
    object_count: int = 0
    logical_bytes: int = 0
    transferred_bytes: int = 0
    stored_bytes: int = 0
    restored_bytes: int = 0
    requests: int = 0
    """Calls to the S3 server; one that was tried again counts once."""
    pins: Pins | None = None
    """backup: what identifies the manifest that was written."""
    reread_files: int = 0
    """backup: files that were read again because they were stamped within the dirty window."""
    missed_changes: int = 0
    """backup: files whose content had changed although their timestamps had not."""
    unreadable_files: int = 0
    """backup: files that could not be read and were left out."""
    unreadable_examples: Annotated[list[Path], Field(max_length=5)] = []
    """backup: some of these files."""
    losses: Losses = []
    """What could not be kept, each kind once."""
    warnings: Annotated[list[str], Field(max_length=8)] = []
    """What could not be kept: sockets skipped, owners that may not be set."""


def missed_changes_sentence(count: int) -> str:
    """Return what a person should know about ``count`` files whose changes timestamps had hidden."""
    files = "1 file" if count == 1 else f"{count} files"
    return (
        f"The content of {files} had changed although size and timestamps had not. This backup has the changes. "
        "Earlier incremental backups of the volume may lack them."
    )


class MoverProgress(Model):
    """One line of a mover's standard output while it works."""

    bytes_done: int
    bytes_total: int
    bytes_stored: int = 0
    bytes_per_second: int = 0
    seconds_left: int | None = None


def task_to_env(task: MoverTask) -> dict[str, str]:
    """Variables that hold the task, as the kubelet leaves them: it expands ``$(NAME)`` and shortens ``$$``."""
    text = task.model_dump_json(by_alias=True, exclude_none=True).replace("$", "\\u0024")
    parts = [text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS)]
    return {_variable(number): part for number, part in enumerate(parts)}


def task_from_env(environment: Mapping[str, str]) -> str | None:
    """What `to_environment` has divided, in one piece again; None if there is none."""
    parts: list[str] = []
    while (part := environment.get(_variable(len(parts)))) is not None:
        parts.append(part)
    return "".join(parts) if parts else None


def _variable(number: int) -> str:
    return f"{TASK_VARIABLE}_{number}" if number else TASK_VARIABLE


EXIT_SUCCESS = 0


EXIT_PERMANENT = 3
"""Doing the same again cannot help: the Job's pod failure policy ends the Job."""


EXIT_TRANSIENT = 4
"""Doing the same again may help: the Job starts another pod, within its backoff limit."""
