"""`BackupStore`: where backups live, and how movers are to run."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.duration import Duration, to_timedelta
from cinderblock.api.meta import Annotations, LabelKey, Labels, LabelValue, Model, Object

DEFAULT_STORE_ANNOTATION = "cinderblock.io/is-default-store"
"""On a BackupStore, with the value "true": used by backups that name no store."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

Container = Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]+[a-z0-9]$")]
"""Name of a bucket (S3: bucket naming rules)."""


class SecretReference(Model):
    """A Secret in the same namespace."""

    name: Name
    """Name of the Secret."""


class Addressing(StrEnum):
    """How a container appears in a URL."""

    PATH = "path"
    VIRTUAL = "virtual"


class ServerSideAlgorithm(StrEnum):
    """How an S3 server encrypts objects where they lie (S3: x-amz-server-side-encryption)."""

    AES256 = "AES256"
    KMS = "aws:kms"


StorageClassName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Storage class of objects, as the S3 server names it."""

ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects cannot be read before somebody has asked for them and waited for hours (S3 User Guide,
"Understanding and managing Amazon S3 storage classes"). A backup in one could be neither confirmed nor restored."""


class ServerSideEncryption(Model):
    """Encryption by the S3 server, with keys that the server has. It protects the server's disks; against whoever can
    read the container only the encryption Secret does."""

    algorithm: ServerSideAlgorithm
    """AES256, with keys of the server's own, or aws:kms."""
    kms_key_id: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[!-~]+$")] | None = None
    """Key of the KMS: id, alias or ARN, for aws:kms only; none: the KMS key that the account has for S3."""


class CompressionAlgorithm(StrEnum):
    """How chunks are compressed before they are sealed."""

    ZSTD = "zstd"
    NONE = "none"


class Compression(Model):
    """Compression of chunks. A chunk that compression does not make smaller is stored as it is."""

    algorithm: CompressionAlgorithm = CompressionAlgorithm.ZSTD
    """zstd, or none."""
    level: Annotated[int, Field(ge=1, le=19)] = 1
    """zstd level: 1 is fastest, 19 smallest."""


class ChangeDetection(StrEnum):
    """What of a file must be as the parent has it, so that an incremental backup does not read the file again.

    Anybody may set an mtime, and tools that copy or unpack files do. Nobody can set a ctime.
    """

    SIZE_MTIME_CTIME_INODE = "SizeMtimeCtimeInode"
    SIZE_MTIME_CTIME = "SizeMtimeCtime"
    SIZE_MTIME_INODE = "SizeMtimeInode"
    SIZE_MTIME = "SizeMtime"
    CONTENT = "Content"

    @property
    def trusts_stamps(self) -> bool:
        """Whether there are files at all that are not read."""
        return self is not ChangeDetection.CONTENT

    @property
    def asks_ctime(self) -> bool:
        """Whether ctime must be as it was."""
        return self in (ChangeDetection.SIZE_MTIME_CTIME_INODE, ChangeDetection.SIZE_MTIME_CTIME)

    @property
    def asks_inode(self) -> bool:
        """Whether the inode's number must be as it was."""
        return self in (ChangeDetection.SIZE_MTIME_CTIME_INODE, ChangeDetection.SIZE_MTIME_INODE)


class ChangeDetectionRules(Model):
    """What is compared, by the StorageClass of the volume: how clones come about is a matter of its driver."""

    default: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    """For volumes whose StorageClass is not named in storageClasses."""
    storage_classes: Annotated[dict[Name, ChangeDetection], Field(max_length=64)] = {}
    """By name of the volume's StorageClass."""

    def of(self, storage_class: str | None) -> ChangeDetection:
        """What holds for a volume of this StorageClass."""
        return self.storage_classes.get(storage_class or "", self.default)


SHORTEST_DIRTY_WINDOW = timedelta(minutes=2)
"""A kernel writes a dirty page back after 30 s, and commits a journal after 5 s (sysctl vm.dirty_expire_centisecs,
ext4(5) commit=). The rest is for clocks that differ."""

_NOT_TOO_SHORT = {
    "rule": "duration(self) >= duration('2m')",
    "message": "a dirty window is at least 2m: a kernel writes data back up to 30 s later than timestamps",
}
DirtyWindow = Annotated[Duration, Field(json_schema_extra={"x-kubernetes-validations": [_NOT_TOO_SHORT]})]
"""A duration of at least SHORTEST_DIRTY_WINDOW."""


class DirtyWindowRules(Model):
    """By the volume's StorageClass, how much later than its timestamps the data of a file may reach the volume."""

    default: DirtyWindow = "1h"
    """For volumes whose StorageClass is not named in storageClasses. At least 2m. Default: 1h."""
    storage_classes: Annotated[dict[Name, DirtyWindow], Field(max_length=64)] = {}
    """By name of the volume's StorageClass."""

    def of(self, storage_class: str | None) -> timedelta:
        """Return the window of a volume of this StorageClass, never less than SHORTEST_DIRTY_WINDOW."""
        window = to_timedelta(self.storage_classes.get(storage_class or "", self.default))
        return max(window, SHORTEST_DIRTY_WINDOW)


class MoverTemplate(Model):
    """How mover pods are to run. What is left out, the operator's own settings fill in."""

    resources: dict[str, Any] = {}
    """Resource requests and limits of the mover container (core/v1 ResourceRequirements)."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels that a mover's node must have."""
    tolerations: Annotated[list[dict[str, Any]], Field(max_length=32)] = []
    """Taints that a mover tolerates (core/v1 Toleration)."""
    affinity: dict[str, Any] = {}
    """Affinity of the mover pod (core/v1 Affinity)."""
    priority_class_name: Name | None = None
    """PriorityClass of the mover pod."""
    service_account_name: Name | None = None
    """ServiceAccount of the mover pod; its token is never mounted. Default: the namespace's own."""
    security_context: dict[str, Any] = {}
    """Replaces the mover container's security context (core/v1 SecurityContext), for example to run without root."""
    pod_security_context: dict[str, Any] = {}
    """Replaces the mover pod's security context (core/v1 PodSecurityContext)."""
    labels: Labels = {}
    """Labels added to the mover pod."""
    annotations: Annotations = {}
    """Annotations added to the mover pod."""


class StoreLimits(Model):
    """What a store may be asked to bear."""

    movers: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Movers of this store that may run at once; more wait in condition reason Queued."""
    upload_bytes_per_second: Annotated[int, Field(ge=65536)] | None = None
    """Upload limit of each mover, in bytes per second."""
    download_bytes_per_second: Annotated[int, Field(ge=65536)] | None = None
    """Download limit of each mover, in bytes per second."""


class BackupStoreSpec(Model):
    """An S3 store. Everything but the container and prefix may be changed while backups exist."""

    endpoint_url: Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")] | None = None
    """URL of the S3 endpoint; none: AWS."""
    region: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")] = "us-east-1"
    """Region that requests are signed for."""
    container: Container = "volumebackups"
    """Bucket for backups that ask for none (Cinder: backup_s3_store_bucket)."""
    prefix: Annotated[
        str, Field(max_length=512, pattern=r"^([A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*)?$")
    ] = ""
    """Prefix of every key, without leading or trailing slash."""
    create_container: bool = True
    """Create a container that does not exist (Cinder: backup_create_containers)."""
    addressing: Addressing = Addressing.PATH
    """How the container appears in URLs: path, or virtual (as part of the host name)."""
    credentials_secret_ref: SecretReference
    """Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if there is one."""
    ca_secret_ref: SecretReference | None = None
    """Secret whose key ca.crt holds the PEM certificates that the endpoint is checked against."""
    encryption_secret_ref: SecretReference | None = None
    """Secret with one or more encryption keys: each key of it is a key id, each value 32 bytes in base64. The key id
    named by the Secret's annotation cinderblock.io/active-key seals new backups; without it, the greatest in order of
    bytes that is not read-only. The annotation cinderblock.io/read-only-keys (ID=TIME,ID=TIME; RFC 3339)
    marks keys that seal no new backup: one that is newer than TIME is refused. None: backups are stored unsealed."""
    storage_class: StorageClassName | None = None
    """Storage class of the objects that are written, as the S3 server names it; none: the server's default. Not
    GLACIER and not DEEP_ARCHIVE, whose objects cannot be read at once."""
    server_side_encryption: ServerSideEncryption | None = None
    """Encryption that the S3 server is asked for with each object; none: what the container has as its default."""
    compression: Compression = Compression()
    """Compression of chunks."""
    change_detection: ChangeDetectionRules = ChangeDetectionRules()
    """Which files an incremental backup of a file system need not read again; all others are read, and compared by
    hash. SizeMtimeCtimeInode: those whose size, mtime, ctime and inode number are as before. A driver that copies files
    to make a clone of a snapshot gives them other inode numbers (then SizeMtimeCtime), other ctimes (SizeMtimeInode),
    or both (SizeMtime); otherwise everything is read each time. Without ctime, a change that keeps size and mtime is
    missed until a backup reads all files (compareEvery), and whoever copies or unpacks files can make one. Content:
    all files are read."""
    dirty_window: DirtyWindowRules = DirtyWindowRules()
    """How much later than its timestamps the data of a file may reach the volume. A snapshot that does not freeze the
    file system may hold the new timestamps of a file and its old data. So an incremental backup reads a file again if
    it was stamped less than this before the data of the parent, or later. Default: 1h."""
    compare_every: Annotated[int, Field(ge=1, le=10000)] = 30
    """Every n-th incremental backup of a file system reads all files and compares them by hash, whatever their
    timestamps say. 1: every incremental backup does. Default: 30."""
    allow_unsealed: bool = False
    """Whether a store with an encryption Secret adopts backups that are not encrypted, by import or after a lost
    status. Anybody who can write to the container can put such a backup there. Default: false."""
    volume_snapshot_class_name: Name | None = None
    """VolumeSnapshotClass for snapshots; none: the default class of the volume's driver."""
    mover: MoverTemplate = MoverTemplate()
    """How mover pods are to run."""
    limits: StoreLimits = StoreLimits()
    """What the store may be asked to bear."""


class BackupStoreStatus(Model):
    """What the operator knows about a store."""

    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """The metadata.generation that this status speaks of; -1: nothing has been said yet."""
    conditions: Conditions = []
    """Ready: whether the store answered when it was last asked."""


class BackupStore(Object):
    """Where backups live: an S3 endpoint, a container, a prefix, credentials and keys."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["BackupStore"] = "BackupStore"
    spec: BackupStoreSpec
    status: BackupStoreStatus = BackupStoreStatus()

    @property
    def is_default(self) -> bool:
        """Whether backups of the namespace that name no store use this one."""
        return self.metadata.annotations.get(DEFAULT_STORE_ANNOTATION) == "true"
