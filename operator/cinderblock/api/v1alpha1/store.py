"""`BackupStore`: the S3 store of backups, and the settings of its movers."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions, ConditionType
from cinderblock.api.duration import (
    DURATION_REMEDY,
    Duration,
    LongDuration,
    parse_long_duration,
    to_timedelta,
)
from cinderblock.api.labels import DEFAULT_STORE_ANNOTATION, STORE_FINALIZER
from cinderblock.api.meta import (
    CORE_TYPE,
    REMEDY,
    LabelKey,
    Labels,
    LabelValue,
    Model,
    MoverAnnotations,
    Object,
    Uid,
)
from cinderblock.api.owner import Epoch

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

Container = Annotated[
    str,
    Field(
        min_length=3,
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9.-]+[a-z0-9]$",
        json_schema_extra={REMEDY: "name a bucket with lower-case letters, digits, dots and hyphens"},
    ),
]
"""Name of a bucket (S3: bucket naming rules)."""


EndpointUrl = Annotated[
    str,
    Field(
        max_length=2048,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        json_schema_extra={REMEDY: "write the URL as https://host:port, without user, password and query"},
    ),
]
"""URL of a server: scheme, host, and optionally port and path."""


class SecretReference(Model):
    """Reference to a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""


class ClusterStoreReference(Model):
    """Reference to a ClusterBackupStore."""

    name: Name
    """Name of the ClusterBackupStore."""


class StoreAccess(StrEnum):
    """Access of Cinderblock to the objects of a store."""

    READ_WRITE = "ReadWrite"
    READ_ONLY = "ReadOnly"


class Addressing(StrEnum):
    """Position of the container in URLs."""

    PATH = "path"
    VIRTUAL = "virtual"


class ServerSideAlgorithm(StrEnum):
    """Encryption that an S3 server applies to stored objects (S3: x-amz-server-side-encryption)."""

    AES256 = "AES256"
    KMS = "aws:kms"


StorageClassName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Name of a storage class of the S3 server."""

ARCHIVE_STORAGE_CLASSES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects can be read only hours after a request to retrieve them (S3 User Guide, "Understanding
and managing Amazon S3 storage classes"). A backup in such a class could be neither confirmed nor restored."""


class ServerSideEncryption(Model):
    """Encryption by the S3 server with the server's own keys. It protects the disks of the server. Only the encryption
    Secret protects against someone who can read the container."""

    algorithm: ServerSideAlgorithm
    """Algorithm of the server: AES256 uses keys of the S3 server, and aws:kms uses a key of the KMS."""
    kms_key_id: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[!-~]+$")] | None = None
    """Id, alias or ARN of the KMS key. Only valid with the algorithm aws:kms. Defaults to the KMS key of the account
    for S3."""


class CompressionAlgorithm(StrEnum):
    """Compression of chunks, which happens before encryption."""

    ZSTD = "zstd"
    NONE = "none"


class Compression(Model):
    """Compression of stored data. A chunk that would not become smaller is stored uncompressed."""

    algorithm: CompressionAlgorithm = CompressionAlgorithm.ZSTD
    """Algorithm: zstd, or none for no compression. Defaults to zstd."""
    level: Annotated[int, Field(ge=1, le=19)] = 1
    """Level of zstd, from 1 (fastest) to 19 (smallest). Defaults to 1."""


class MoverAccess(StrEnum):
    """How movers of other namespaces reach a store that namespaces share."""

    SIGNED_REQUESTS = "SignedRequests"
    SESSION_CREDENTIALS = "SessionCredentials"


class ChangeDetection(StrEnum):
    """Attributes of a file that must equal those in the parent, so that an incremental backup does not read it again.

    Any user can set an mtime, and tools that copy or unpack files do. No user can set a ctime.
    """

    SIZE_MTIME_CTIME_INODE = "SizeMtimeCtimeInode"
    SIZE_MTIME_CTIME = "SizeMtimeCtime"
    SIZE_MTIME_INODE = "SizeMtimeInode"
    SIZE_MTIME = "SizeMtime"
    CONTENT = "Content"

    @property
    def trusts_timestamps(self) -> bool:
        """Return whether unchanged attributes are enough not to read a file."""
        return self is not ChangeDetection.CONTENT

    @property
    def compares_ctime(self) -> bool:
        """Return whether the ctime must be unchanged."""
        return self in (ChangeDetection.SIZE_MTIME_CTIME_INODE, ChangeDetection.SIZE_MTIME_CTIME)

    @property
    def compares_inode(self) -> bool:
        """Return whether the inode number must be unchanged."""
        return self in (ChangeDetection.SIZE_MTIME_CTIME_INODE, ChangeDetection.SIZE_MTIME_INODE)


class ChangeDetectionRules(Model):
    """Change detection by StorageClass, because drivers differ in what they change when they clone a snapshot."""

    default: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    """Rule for volumes whose StorageClass is not in storageClasses. Defaults to SizeMtimeCtimeInode."""
    storage_classes: Annotated[dict[Name, ChangeDetection], Field(max_length=64)] = {}
    """Rules by name of the volume's StorageClass. Defaults to no rules, so that all volumes use the default rule."""

    def of(self, storage_class: str | None) -> ChangeDetection:
        """Return the rule for volumes of a StorageClass."""
        return self.storage_classes.get(storage_class or "", self.default)


SHORTEST_DIRTY_WINDOW = timedelta(minutes=2)
"""A kernel writes a dirty page back after 30 s and commits a journal after 5 s (sysctl vm.dirty_expire_centisecs,
ext4(5) commit=). The rest allows for clocks that differ."""

_LONG_ENOUGH = {
    "rule": "!self.matches('^([0-9]+[hms])+$') || duration(self) >= duration('2m')",
    "message": "a dirty window is at least 2m: a kernel writes data back up to 30 s later than timestamps",
}
DirtyWindow = Annotated[
    Duration, Field(json_schema_extra={**DURATION_REMEDY, "x-kubernetes-validations": [_LONG_ENOUGH]})
]
"""A duration of at least SHORTEST_DIRTY_WINDOW."""


class DirtyWindowRules(Model):
    """Dirty window by StorageClass."""

    default: DirtyWindow = "1h"
    """Window for volumes whose StorageClass is not in storageClasses, as a duration of at least 2m. Defaults to 1h."""
    storage_classes: Annotated[dict[Name, DirtyWindow], Field(max_length=64)] = {}
    """Windows by name of the volume's StorageClass, as durations of at least 2m. Defaults to no windows, so that all
    volumes use the default window."""

    def of(self, storage_class: str | None) -> timedelta:
        """Return the window for volumes of a StorageClass, never less than SHORTEST_DIRTY_WINDOW."""
        window = to_timedelta(self.storage_classes.get(storage_class or "", self.default))
        return max(window, SHORTEST_DIRTY_WINDOW)


Toleration = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "Toleration"})]
ResourceRequirements = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "ResourceRequirements"})]
Affinity = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "Affinity"})]
SecurityContext = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "SecurityContext"})]
PodSecurityContext = Annotated[dict[str, Any], Field(json_schema_extra={CORE_TYPE: "PodSecurityContext"})]


class MoverTemplate(Model):
    """Settings of mover pods. The operator's own settings apply to fields that are not set."""

    resources: ResourceRequirements = {}
    """Resource requests and limits of the mover container. They replace the defaults as a whole, which are requests of
    100m CPU and 128Mi memory, and a limit of 512Mi memory."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels that the node of a mover must have. Defaults to no labels."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints of nodes that mover pods tolerate. Defaults to no tolerations."""
    affinity: Affinity = {}
    """Scheduling constraints of mover pods. Defaults to no constraints."""
    priority_class_name: Name | None = None
    """Name of the PriorityClass of mover pods. Defaults to the default priority of the cluster."""
    service_account_name: Name | None = None
    """Name of the ServiceAccount of mover pods, whose token is never mounted. Defaults to the ServiceAccount named
    default."""
    security_context: SecurityContext = {}
    """Security context of the mover container, for example to run without root. It replaces the default as a whole,
    which is root with only the capabilities that the operation needs."""
    pod_security_context: PodSecurityContext = {}
    """Security context of mover pods. It replaces the default as a whole, which is the seccomp profile
    RuntimeDefault."""
    labels: Labels = {}
    """Labels that are added to all temporary objects of backups and restores: mover pods, their Jobs, claims and
    VolumeSnapshots. A restored claim gets only the labels that its VolumeRestore requests. Defaults to no labels."""
    annotations: MoverAnnotations = {}
    """Annotations that are added to the same objects. Defaults to no annotations."""


class StoreLimits(Model):
    """Limits on the movers of a store."""

    movers: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of movers of this store that may run at the same time. Other operations wait with the reason Queued.
    Movers of verifications do not count. Defaults to the limit of the cluster."""
    upload_bytes_per_second: Annotated[int, Field(ge=65536)] | None = None
    """Upload rate of each mover, in bytes per second. Defaults to no limit."""
    download_bytes_per_second: Annotated[int, Field(ge=65536)] | None = None
    """Download rate of each mover, in bytes per second. Defaults to no limit."""


class LockMode(StrEnum):
    """Mode of a lock (S3: Object Lock, retention modes)."""

    COMPLIANCE = "COMPLIANCE"
    GOVERNANCE = "GOVERNANCE"


MAX_LOCK_DAYS: Final = 400
"""Most days of a lock, unless the administrator allows more (Helm value stores.maxLockDays). An attacker with the right
to create backups could otherwise make somebody pay for locked data for decades."""


_DAYS: Final = "^[1-9][0-9]{0,3}d$"


def _lock_days(what: str, most: int) -> Any:
    """Return the type of a number of days, such as 30d, with at most ``most`` of them."""
    extra: dict[str, Any] = {
        REMEDY: "write a number of days as 30d",
        "x-kubernetes-validations": [
            {
                "rule": f"!self.matches('{_DAYS}') || int(self.replace('d', '')) <= {most}",
                "message": f"{what} is at most {most} days",
            }
        ],
    }
    return Annotated[str, Field(max_length=5, pattern=_DAYS, json_schema_extra=extra)]


class LockSettings(Model):
    """Locks that keep backups from being deleted and overwritten (S3: Object Lock)."""

    mode: LockMode
    """Mode of the locks. Nobody can lift a lock in mode COMPLIANCE. Accounts with s3:BypassGovernanceRetention can lift
    one in mode GOVERNANCE."""
    period: _lock_days("period", MAX_LOCK_DAYS)  # type: ignore[valid-type]
    """Number of days for which each backup stays locked at least, for example 30d. At most 400d, unless the Helm value
    stores.maxLockDays allows more."""
    generation: _lock_days("generation", 100) = "10d"  # type: ignore[valid-type]
    """Number of days by which objects are locked for longer than period, from 1d to 100d. Objects that further backups
    need are locked again once in this time, and not at each backup. Defaults to 10d."""

    @property
    def period_time(self) -> timedelta:
        """The period."""
        return parse_long_duration(self.period)

    @property
    def generation_time(self) -> timedelta:
        """The generation."""
        return parse_long_duration(self.generation)


class ImportMode(StrEnum):
    """When the operator imports the backups that a store holds."""

    NEVER = "Never"
    ONCE = "Once"
    ALWAYS = "Always"


SHORTEST_IMPORT_INTERVAL = timedelta(minutes=1)
"""The least time between two listings of a store: each costs a request for a thousand backups."""
ALL_NAMESPACES: Final = "*"
"""In spec.import.namespaces: backups of all namespaces."""

_NOT_TOO_OFTEN = {
    "rule": "!self.matches('^([0-9]+[hms])+$') || duration(self) >= duration('1m')",
    "message": "an interval is at least 1m: each import lists all manifests of the store",
}
ImportInterval = Annotated[
    Duration, Field(json_schema_extra={**DURATION_REMEDY, "x-kubernetes-validations": [_NOT_TOO_OFTEN]})
]
"""A duration of at least SHORTEST_IMPORT_INTERVAL."""
SourceNamespace = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^([*]|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$",
        json_schema_extra={REMEDY: "write the name of a namespace, or * for all"},
    ),
]
SourceVolume = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        json_schema_extra={REMEDY: "write the UID or the name of a PersistentVolumeClaim"},
    ),
]


class ImportSettings(Model):
    """Import of the backups that the store holds and that have no VolumeBackup. No data is copied."""

    mode: ImportMode = ImportMode.NEVER
    """When to import: Never; Once, until all selected backups have a VolumeBackup; or Always, at each interval. Once
    starts again when a field of import changes. Defaults to Never."""
    interval: ImportInterval = "10m"
    """Time between two imports, as a duration of at least 1m. Defaults to 10m."""
    latest_only: bool = False
    """Whether to import only the newest backup of each volume. Backups that were imported before stay. Defaults to
    false."""
    newer_than: LongDuration | None = None
    """Age of the oldest data to import, for example 30d. Defaults to no limit."""
    namespaces: Annotated[
        list[SourceNamespace], Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Namespaces in which the backups were made. The value * selects all. The VolumeBackups are always created in the
    namespace of the BackupStore. Defaults to that namespace, and to all below a prefix that a ClusterBackupStore gives
    to one namespace. Backups without a namespace, which the command line makes, are always selected."""
    volumes: Annotated[
        list[SourceVolume], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """UIDs or names of the PersistentVolumeClaims whose backups are imported. Defaults to all volumes."""


MAX_COPIES: Final = 3
"""Other stores that get copies of the backups of one BackupStore."""


class CopyRule(Model):
    """Another store that gets a copy of each backup."""

    store_name: Name
    """Name of the BackupStore that gets the copies. It must be another one of the same namespace, with access
    ReadWrite. Neither of both may have a clusterStoreRef."""
    late_after: LongDuration = "24h"
    """Time after which a missing copy of an available backup counts as late, as a duration such as 24h or 7d. The
    condition Copied and an alert show it. Defaults to 24h."""
    check_every: LongDuration = "30d"
    """Time after which a copy is compared with its original again, as a duration such as 7d or 30d; at least 1h counts.
    Manifests are compared whole, and packs by name and size. Missing objects are sent again. Defaults to 30d."""


class BackupStoreSpec(Model):
    """Desired settings of the store. All fields except container and prefix can change while backups exist."""

    cluster_store_ref: ClusterStoreReference | None = None
    """ClusterBackupStore that holds all other settings and the credentials. Leave out all other fields then. Cannot be
    changed. Defaults to none, so that this object is a store of its own."""
    endpoint_url: EndpointUrl | None = None
    """URL of the S3 endpoint, for example https://s3.example.com. Defaults to the endpoint of AWS for the region."""
    region: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")] = "us-east-1"
    """Region of the S3 server, for which requests are signed. Defaults to us-east-1."""
    container: Container = "volumebackups"
    """Bucket for backups that do not name one (Cinder: backup_s3_store_bucket). Cannot be changed. Defaults to
    volumebackups."""
    prefix: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^([A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*)?$",
            json_schema_extra={REMEDY: "write the prefix as team/cluster, without a slash at its beginning or end"},
        ),
    ] = ""
    """Prefix of all keys in the bucket, without a slash at its beginning or end. Cannot be changed. Defaults to no
    prefix."""
    access: StoreAccess = StoreAccess.READ_WRITE
    """Access to the bucket: ReadWrite, or ReadOnly to change nothing in it. With ReadOnly, backups can be imported,
    restored and verified. New backups fail, retention marks none, and the deletion of data waits until the access is
    ReadWrite again. Defaults to ReadWrite."""
    import_: Annotated[ImportSettings, Field(alias="import")] = ImportSettings()
    """Import of the backups that the store holds and that have no VolumeBackup, for example after the loss of a
    cluster. Defaults to mode Never."""
    copies: Annotated[
        list[CopyRule],
        Field(
            max_length=MAX_COPIES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["storeName"]},
        ),
    ] = []
    """Other stores that get a copy of each available backup of this store. A copy has the same keys and is restored
    without this store. Deleting a backup does not delete its copies. Defaults to no copies."""
    create_container: bool = True
    """Whether to create a bucket that does not exist (Cinder: backup_create_containers). Defaults to true."""
    addressing: Addressing = Addressing.PATH
    """Position of the bucket in URLs: path for the path, or virtual for the host name. Defaults to path."""
    credentials_secret_ref: SecretReference | None = None
    """Secret with the S3 credentials in the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The key AWS_SESSION_TOKEN
    is optional. Required without clusterStoreRef."""
    ca_secret_ref: SecretReference | None = None
    """Secret with the PEM certificates of the authorities that sign the endpoint's certificate, in the key ca.crt.
    Defaults to the public certificate authorities."""
    encryption_secret_ref: SecretReference | None = None
    """Secret with encryption keys: each key in it is a key id, and each value is 32 bytes in base64. The Secret's
    annotation cinderblock.io/active-key names the id that encrypts new backups. Without it, the greatest id that is not
    read-only does, in order of bytes. The annotation cinderblock.io/read-only-keys (ID=TIME,ID=TIME; RFC 3339) lists
    keys that encrypt no new backup. A backup that such a key encrypted after TIME is refused. Defaults to no
    encryption."""
    storage_class: StorageClassName | None = None
    """Storage class of written objects, as the S3 server names it. GLACIER and DEEP_ARCHIVE are refused, because their
    objects cannot be read without a retrieval. Defaults to the default class of the server."""
    server_side_encryption: ServerSideEncryption | None = None
    """Encryption that the S3 server applies to each object. Defaults to the default encryption of the bucket."""
    object_lock: LockSettings | None = None
    """Locks that keep new backups from being deleted and overwritten, also with the credentials of the store. The
    bucket needs Object Lock and versioning, and the credentials need s3:PutObjectRetention and s3:GetObjectRetention.
    Otherwise the store is not ready (ObjectLockUnavailable), and no backups are made. Not supported in a
    ClusterBackupStore. Defaults to no locks."""
    compression: Compression = Compression()
    """Compression of stored data. Defaults to zstd at level 1."""
    change_detection: ChangeDetectionRules = ChangeDetectionRules()
    """Rule by which an incremental backup of a file system skips unchanged files. It reads all other files, and
    compares them by hash. The names of the rules list the attributes that must be unchanged: size, mtime, ctime and
    inode number. Content reads all files. A driver that clones a snapshot by copying files changes inode numbers,
    ctimes or both. SizeMtimeCtime, SizeMtimeInode and SizeMtime are for such drivers; with other rules, everything is
    read each time. A rule without ctime misses a change that keeps size and mtime, until a backup reads all files
    (compareEvery). Copying or unpacking files can cause such a change. Defaults to SizeMtimeCtimeInode."""
    dirty_window: DirtyWindowRules = DirtyWindowRules()
    """Longest delay between the timestamps of a file and its data on the volume, as a duration. A snapshot that does
    not freeze the file system may contain new timestamps with old data. An incremental backup therefore reads a file
    again if its timestamps are newer than the parent's data minus this window. Defaults to 1h."""
    compare_every: Annotated[int, Field(ge=1, le=10000)] = 30
    """Interval of complete comparisons: every n-th incremental backup of a file system reads all files and compares
    them by hash. With 1, every incremental backup does. Defaults to 30."""
    renew_below: Annotated[int, Field(ge=0, le=90)] = 50
    """Threshold for renewing a pack of a deleted backup, in percent of the pack. If less of the pack is in use, the
    next incremental backup sends that part again, so that the pack can be deleted. Each backup renews at most 5 % of
    the volume's data, or one pack if that is more. With 0, no pack is renewed. Defaults to 50."""
    allow_unsealed: bool = False
    """Whether a store with an encryption Secret accepts unencrypted backups, from an import or after a lost status.
    Anyone who can write to the bucket can put such a backup there. Defaults to false."""
    take_over: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]*$")] | None = None
    """Value of status.owner.epoch of another cluster from which this cluster takes the store over, for example after
    the loss of that cluster. It has no effect later, and an empty text has none. Defaults to none."""
    volume_snapshot_class_name: Name | None = None
    """Name of the VolumeSnapshotClass for snapshots. Defaults to the default class of the volume's driver."""
    mover: MoverTemplate = MoverTemplate()
    """Settings of mover pods. The operator's own settings apply to fields that are not set."""
    limits: StoreLimits = StoreLimits()
    """Limits on the movers of this store."""


MAX_UNREADABLE: Final = 20
"""Manifests that status.inventory.unreadable lists."""
MAX_RELEASED: Final = 5000
"""Released backups that a BackupStore keeps in mind: 200 KB of UIDs."""
SHOWN_MESSAGE_CHARACTERS: Final = 512
"""Characters of a message in status.inventory."""


class UnreadableManifest(Model):
    """A manifest that could not be imported."""

    manifest: Annotated[str, Field(max_length=1024)]
    """Key of the manifest in the bucket."""
    reason: Annotated[str, Field(max_length=64)]
    """Reason, as a stable CamelCase word that scripts may match."""
    message: Annotated[str, Field(max_length=SHOWN_MESSAGE_CHARACTERS)] = ""
    """Explanation for people. Defaults to an empty text."""


class Inventory(Model):
    """The backups that the store held at the last import."""

    time: datetime
    """Time when the last complete import began."""
    backups: Annotated[int, Field(ge=0)]
    """Number of manifests in the store, readable or not."""
    volumes: Annotated[int, Field(ge=0)]
    """Number of volumes that they belong to."""
    bytes: Annotated[int, Field(ge=0)]
    """Size of these backups in the store, in bytes, without those whose manifest could not be read."""
    imported: Annotated[int, Field(ge=0)]
    """Number of VolumeBackups with spec.import that belong to these backups."""
    unreadable_count: Annotated[int, Field(ge=0)] = 0
    """Number of manifests that could not be imported. Defaults to 0."""
    unreadable: Annotated[list[UnreadableManifest], Field(max_length=MAX_UNREADABLE)] = []
    """The first of these manifests, at most 20, each with its reason."""
    missing: Annotated[int, Field(ge=0)] = 0
    """Number of imported VolumeBackups whose manifest was not in the store. Defaults to 0."""
    backups_before: Annotated[int, Field(ge=0)] | None = None
    """Number of manifests before more than half of them were gone. It is set while the reason is InventoryShrunk."""
    settings: Annotated[str, Field(max_length=64)] | None = None
    """Digest of spec.import for which the import is complete. It is unset while backups wait for an encryption key."""
    loss_accepted: bool = False
    """Whether a person has accepted a loss by setting spec.import.mode to Never while the reason was InventoryShrunk.
    Later imports compare with the numbers of that moment. Defaults to false."""


class OwnerState(StrEnum):
    """Relation of this cluster to the owner of a store."""

    OWN = "Own"
    DISPUTED = "Disputed"
    FOREIGN = "Foreign"


class StoreOwner(Model):
    """The cluster that the bucket names as the owner of the prefix (meta/owner.json)."""

    cluster: Uid
    """Value of metadata.uid of the namespace kube-system of that cluster."""
    release: Annotated[str, Field(max_length=253)] = ""
    """Name of its Helm release. Defaults to an empty text."""
    since: datetime
    """Time since when it owns the store."""
    epoch: Epoch
    """Text that changes with the owner, for spec.takeOver."""
    state: OwnerState
    """Own: this cluster. Foreign: another cluster, so that nothing is changed in the bucket. Disputed: another cluster,
    although this one has made backups there. New backups continue, and data that this cluster has not made is not
    deleted."""


class CopyMover(Model):
    """Mover that copies backups."""

    uid: Uid
    """UID of the mover Job. Only the operator writes it, so it decides which Job counts as the mover."""
    store_name: Name
    """Name of the BackupStore that gets the copies."""
    place: Annotated[str, Field(max_length=16)]
    """Digest of server, bucket and prefix of that store when the mover started."""
    progress_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the data of the current backup, and of those before it, that is copied, in percent."""


class CopyStatus(Model):
    """Copies of the backups of this store in another store."""

    store_name: Name
    """Name of the BackupStore that gets the copies."""
    copied: Annotated[int, Field(ge=0)] = 0
    """Number of available backups with a verified copy there."""
    pending: Annotated[int, Field(ge=0)] = 0
    """Number of available backups without a copy there, whose copy could not be compared with them when due, or whose
    copy is not locked although the store asks for that (objectLock)."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Number of pending backups whose last copy or comparison failed (status.copies of the VolumeBackup), without those
    that wait for a lock."""
    unlocked: Annotated[int, Field(ge=0)] = 0
    """Number of pending backups whose copy exists, and lacks the lock that the store asks for (objectLock)."""
    oldest_pending: datetime | None = None
    """Time from which the pending backup that has waited longest can be copied. Unset if none is pending."""
    last_copied_at: datetime | None = None
    """Time of the newest copy or comparison."""
    failures: Annotated[int, Field(ge=0)] = 0
    """Number of movers in a row that failed as a whole."""
    retry_at: datetime | None = None
    """Time before which no other mover starts, after a failure."""
    fail_reason: Annotated[str, Field(max_length=255)] | None = None
    """Cause of the last failure of a mover. It is unset after a success."""


class BackupStoreStatus(Model):
    """Observed state of the store."""

    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the store. Ready is True if the store answered when the operator last checked it."""
    access: StoreAccess | None = None
    """Access to the bucket that the operator last observed: that of the ClusterBackupStore if there is one."""
    container: Container | None = None
    """Bucket of the store, also if a ClusterBackupStore sets it."""
    endpoint_url: EndpointUrl | None = None
    """URL of the S3 endpoint, also if a ClusterBackupStore sets it. Unset for AWS."""
    owner: StoreOwner | None = None
    """Owner of the store when the operator last read it. Unset for a store of a ClusterBackupStore."""
    inventory: Inventory | None = None
    """Backups that the store held at the last import. It is set only if spec.import.mode is Once or Always, or after a
    loss was accepted."""
    released: Annotated[list[Uid] | None, Field(max_length=MAX_RELEASED)] = None
    """Ids of backups whose VolumeBackup was deleted here while their data stayed in the store. They are not imported
    again. To have one again, create a VolumeBackup with spec.import. Nothing is recorded with mode Never."""
    copy_targets: Annotated[
        list[CopyStatus] | None,
        Field(
            max_length=MAX_COPIES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["storeName"]},
        ),
    ] = None
    """Numbers about the copies in each store of spec.copies."""
    copy_mover: CopyMover | None = None
    """Mover that copies backups now. A BackupStore has at most one."""


class BackupStore(Object):
    """A store of backups: an S3 endpoint, a bucket, a prefix, credentials and encryption keys."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["BackupStore"] = "BackupStore"
    spec: BackupStoreSpec
    status: BackupStoreStatus = BackupStoreStatus()

    @property
    def is_shared(self) -> bool:
        """Return whether a ClusterBackupStore has its settings."""
        return self.spec.cluster_store_ref is not None

    @property
    def is_leaving(self) -> bool:
        """Return whether it is being deleted, so that nothing new may use it.

        A BackupStore with clusterStoreRef is used until it is gone. It stays while backups need it, and the operator
        makes it again afterwards. So nobody could end its deletion, and the namespace would have no store meanwhile.
        """
        is_kept = self.is_shared and STORE_FINALIZER in self.metadata.finalizers
        return self.metadata.is_being_deleted and not is_kept

    @property
    def is_ready(self) -> bool:
        """Return whether its last check succeeded."""
        return any(c.type == ConditionType.READY and c.status == "True" for c in self.status.conditions)

    @property
    def is_foreign(self) -> bool:
        """Return whether another cluster owns it, so that this one changes nothing in its bucket."""
        owner = self.status.owner
        return not self.is_shared and owner is not None and owner.state is OwnerState.FOREIGN

    @property
    def is_read_only(self) -> bool:
        """Return whether nothing may change its bucket. That of a shared store is known from its status."""
        if self.is_foreign:
            return True
        return StoreAccess.READ_ONLY in (self.spec.access, self.status.access if self.is_shared else None)

    @property
    def is_default(self) -> bool:
        """Return whether backups in the namespace that name no store use this one."""
        return self.metadata.annotations.get(DEFAULT_STORE_ANNOTATION) == "true"
