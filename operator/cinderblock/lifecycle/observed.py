"""The observed state of one object and everything around it at its reconciliation. Read live, never remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cinderblock.api.kubernetes import (
    Job,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    StorageClass,
    VolumeSnapshot,
    VolumeSnapshotClass,
)
from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata, MoverProgress
from cinderblock.api.pins import Pins
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification, PartsRead
from cinderblock.errors import CinderblockError
from cinderblock.lifecycle.backup.remains import Remains
from cinderblock.lifecycle.backup_grants.rules import GrantState
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.lifecycle.store.owner import ObservedOwner
from cinderblock.lifecycle.verdicts import Deadlines, Fail
from cinderblock.lifecycle.verification.findings import Recording
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill
from cinderblock.reasons import Reason


class PodSecurityLevel(StrEnum):
    """Limit on spec.mover of BackupStores (Kubernetes: Pod Security Standards)."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"
    PRIVILEGED = "privileged"


@dataclass(frozen=True, slots=True)
class MoverSettings:
    """The operator's settings for mover Jobs."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    limit: int = 16
    """Movers that may run at the same time in the whole cluster."""
    namespace_limit: int = 8
    """Movers that may run at the same time in one namespace."""
    verification_limit: int = 1
    """Movers of verifications that may run at the same time for one BackupStore."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Names and values of the environment variables that configure a proxy."""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    """Labels and annotations of all children, unless a store sets the same key."""
    pod_security: PodSecurityLevel = PodSecurityLevel.BASELINE
    """Limit on spec.mover of BackupStores."""
    root_requires_opt_in: bool = False
    """Whether movers run as root only in namespaces that an administrator has annotated."""
    allow_system_priority: bool = False
    """Whether movers may have a priority class of the system."""
    allowed_endpoints: tuple[str, ...] = ()
    """S3 endpoints that the administrator allows. Empty: all."""
    broker_url: str = ""
    """URL of the broker, which gives movers access to stores that namespaces share. Empty: there is none."""
    broker_ca: str = ""
    """PEM certificate of the authority of the broker's certificate. Empty: not known yet."""


@dataclass(frozen=True, slots=True)
class OperatorAccount:
    """The operator's own ServiceAccount: its namespace, and its name, which is that of the release's objects."""

    namespace: str = ""
    name: str = "cinderblock"


@dataclass(frozen=True, slots=True)
class OperatorPolicy:
    """The operator's settings, constant during its lifetime."""

    mover: MoverSettings
    deadlines: Deadlines = field(default_factory=Deadlines)
    release: str = ""
    """Name of the operator's Helm release."""
    object_limit: int = 20_000
    """Objects of each kind of operation, of one namespace, that the operator works on."""
    schedule_kinds: frozenset[str] = frozenset({"BackupSchedule", "ClusterBackupSchedule"})
    """Kinds of schedules that the operator works on. It has rights of their own for them."""
    account: OperatorAccount = OperatorAccount()
    """The operator's own ServiceAccount. The Secrets of ClusterBackupStores are in its namespace."""
    cluster_stores: bool = True
    """Whether the operator works on ClusterBackupStores. It has rights of their own for them."""
    populates: bool = True
    """Whether the operator fills claims whose dataSourceRef names one of our kinds."""


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """The store of an operation.

    Attributes:
        store: the BackupStore, if there is one.
        missing: why there is none, for a person.
        error: why it cannot be used now, for example a missing Secret or a silent endpoint; None if it answered, or
            was not asked.
        allows_root: whether the namespace lets movers run as root; only read if the operator asks for its consent.
        active_key: the id of the key that a mover must seal with; None: the greatest of the mounted ids.
        missing_reason: the reason why there is none.
        refusal: why nothing new may use it, although its backups can be deleted; None: it may be used.
    """

    store: BackupStore | None = None
    missing: str = ""
    error: CinderblockError | None = None
    allows_root: bool = True
    active_key: str | None = None
    missing_reason: Reason = Reason.STORE_NOT_FOUND
    refusal: Fail | None = None


@dataclass(frozen=True, slots=True)
class ObservedManifest:
    """A manifest with the expected identity that the operator has read back from the store.

    Attributes:
        renewed_bytes: unchanged bytes that were sent again.
        reread_files: number of files that were read again because of the dirty window; None: not recorded.
        missed_changes: number of files whose changes their timestamps did not show; None: not recorded.
        manifest_bytes: size of the manifest, which is part of stored_bytes; None: not read.
        entries: names in the file system; None: a device, or not read.
        locked_until: when the lock of the manifest ends, as the store says; None: it has none, or was not asked.
    """

    key: str
    description: BackupMetadata
    parent_id: str | None
    object_count: int
    logical_bytes: int
    transferred_bytes: int
    stored_bytes: int
    pins: Pins
    sealed: bool = False
    renewed_bytes: int = 0
    reread_files: int | None = None
    missed_changes: int | None = None
    unreadable_files: int = 0
    unreadable_examples: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    manifest_bytes: int | None = None
    entries: int | None = None
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunningMover:
    """A mover of another operation that has not ended.

    Attributes:
        owner: UID of the operation.
        namespace: its namespace.
        store: name of the BackupStore that it uses.
        cluster_store: name of the ClusterBackupStore of that; empty: it is a store of its own.
    """

    owner: str
    namespace: str
    store: str
    cluster_store: str = ""


@dataclass(frozen=True, slots=True)
class ObservedMover:
    """The mover Job of an operation.

    Attributes:
        job: the Job, if there is one.
        is_recorded: whether the status of the operation says that this is its Job. If not, the operator died right
            after it had created the Job, or somebody else created the Job.
        pods: its pods, oldest first.
        progress: the last progress that the running pod reported.
        warning: the newest Warning Event about a Job without a pod, or about a pod that does not start.
        claim_warning: the newest Warning Event about the unbound claim of such a pod, or before there is a Job. Only it
            tells that the class of the claim cannot create a volume where the pod may run.
        others: the other movers in the cluster that have not ended; only known if there is no recorded Job.
        waiting_before: number of operations in the cluster that get a mover earlier.
        waiting_before_in_namespace: number of older operations of the namespace that wait for a mover.
        waiting_before_for_store: number of older operations that wait for a mover of the same BackupStore.
        is_its_turn: whether no namespace that waits was served longer ago and could still begin.
        waiting_before_for_cluster_store: number of operations of all namespaces that get a mover of the same
            ClusterBackupStore earlier.
    """

    job: Job | None = None
    is_recorded: bool = True
    pods: tuple[Pod, ...] = ()
    progress: MoverProgress | None = None
    warning: str = ""
    claim_warning: str = ""
    others: frozenset[RunningMover] = frozenset()
    waiting_before: int = 0
    waiting_before_in_namespace: int = 0
    waiting_before_for_store: int = 0
    is_its_turn: bool = True
    waiting_before_for_cluster_store: int = 0


@dataclass(frozen=True, slots=True)
class ExpiredSibling:
    """Another expired VolumeBackup of a volume, which can be removed as well. There may be thousands.

    Attributes:
        backup_id: its id.
        manifest_key: key of its manifest.
    """

    backup_id: str
    manifest_key: str | None


@dataclass(frozen=True, slots=True)
class RemovedBackup:
    """An expired backup whose data this process has removed.

    Attributes:
        packs_left: how many of its packs stay because others list them.
        was_absent: whether the store had nothing of it.
    """

    packs_left: int
    was_absent: bool = False


@dataclass(frozen=True, slots=True)
class ObservedBackup:
    """The observed state of a VolumeBackup.

    Attributes:
        backup: the VolumeBackup itself.
        siblings: the other VolumeBackups of its namespace that matter to it.
        present_parents: ids of parents of backups that exist, although they may not be among ``siblings``.
        restores: the VolumeRestores of its namespace that matter to it.
        ended_granted: UIDs of restores of status.grantedRestores that have ended, or are gone.
        object_count: number of VolumeBackups of its namespace; 0: not counted.
        store: its store.
        same_place: other BackupStores of the namespace that lead to the place of its data; only read for a deletion
            that leaves the data.
        claim: the volume to back up, by UID or name.
        volume: the PersistentVolume bound to it.
        pods_using: names of the pods that mount the claim.
        pods_restoring: names of pods of movers that may still write to the volume for a restore.
        stateful_sets: names of StatefulSets with a pod that mounts a claim of the same template.
        cluster_uid: UID of the namespace kube-system; empty: unknown, or not read.
        pods_during_copy: names of the pods that used the volume while it was copied without a snapshot.
        attached_to: nodes that the volume is attached to although no pod mounts it, if that matters.
        snapshot_class: VolumeSnapshotClass for the driver of the claim; None: there is none.
        snapshot_class_missing: why no VolumeSnapshotClass can be used, although one was named or some exist.
        classes: all StorageClasses; only read if a snapshot is to be exposed.
        given_snapshot: the VolumeSnapshot that spec.snapshotId names.
        snapshot: our VolumeSnapshot.
        snapshot_claim: our claim made from a snapshot, which the mover mounts.
        snapshot_volume: the PersistentVolume of that claim; not read while there is a mover.
        mover: the mover Job.
        manifest: the committed manifest; None: there is none, or it was not read.
        manifest_error: why the manifest could not be read, or that the store holds another one.
        parent: the manifest of the recorded parent; only read if the status of the parent has no pins.
        parent_error: why the manifest of the parent could not be read.
        manifest_present: whether the store still holds the manifest of a deleted backup.
        needed_by: ids of backups whose manifests in the store list packs of this one; None: unknown, or not read.
        references_error: why it is unknown whether some backups need this one.
        expired_siblings: the other expired VolumeBackups of the volume of an expired one, at most `expiry.MAX_BATCH`.
        removed: what the removal of an expired backup found and left; None: this process has not removed it.
        removal_runs: whether expired backups of the volume are being removed.
        data_present: whether the store still holds objects of the backup; None: unknown, or not read.
        remains: what the container keeps of a deleted backup whose objects are gone; None: not asked.
        namespace_ending: whether the namespace is being deleted.
        alarm_keeper: the backup that keeps the open alarms of a deleted one; None: there are none, or no other backup.
        policy: the operator's own settings.
    """

    backup: VolumeBackup
    policy: OperatorPolicy
    siblings: tuple[VolumeBackup, ...] = ()
    present_parents: frozenset[str] = frozenset()
    restores: tuple[VolumeRestore, ...] = ()
    ended_granted: frozenset[str] = frozenset()
    object_count: int = 0
    store: StoreLookup = field(default_factory=StoreLookup)
    same_place: tuple[BackupStore, ...] = ()
    claim: PersistentVolumeClaim | None = None
    volume: PersistentVolume | None = None
    pods_using: tuple[str, ...] = ()
    pods_restoring: tuple[str, ...] = ()
    stateful_sets: tuple[str, ...] = ()
    cluster_uid: str = ""
    pods_during_copy: tuple[str, ...] = ()
    attached_to: tuple[str, ...] = ()
    snapshot_class: VolumeSnapshotClass | None = None
    snapshot_class_missing: str = ""
    classes: tuple[StorageClass, ...] = ()
    given_snapshot: VolumeSnapshot | None = None
    snapshot: VolumeSnapshot | None = None
    snapshot_claim: PersistentVolumeClaim | None = None
    snapshot_volume: PersistentVolume | None = None
    mover: ObservedMover = field(default_factory=ObservedMover)
    manifest: ObservedManifest | None = None
    manifest_error: CinderblockError | None = None
    parent: ObservedManifest | None = None
    parent_error: CinderblockError | None = None
    manifest_present: bool = False
    needed_by: tuple[str, ...] | None = None
    references_error: CinderblockError | None = None
    expired_siblings: tuple[ExpiredSibling, ...] = ()
    removed: RemovedBackup | None = None
    removal_runs: bool = False
    data_present: bool | None = None
    remains: Remains | None = None
    namespace_ending: bool = False
    alarm_keeper: VolumeBackup | None = None


@dataclass(frozen=True, slots=True)
class ObservedRestore:
    """The observed state of a VolumeRestore.

    Attributes:
        restore: the VolumeRestore itself.
        backup: the VolumeBackup that spec.backupId names; None also for one of another namespace that no BackupGrant
            has ever permitted this restore to read.
        backups: the VolumeBackups of the namespace that matter to it.
        restores: the other VolumeRestores of the namespace that matter to it.
        object_count: number of VolumeRestores of the namespace; 0: not counted.
        store: the store of the backup.
        manifest, manifest_error: the manifest of the backup, or why it could not be read.
        target: the claim of spec.volumeId, or the claim with the name of the volume to create.
        pods_using: names of the pods that mount the target.
        pods_restoring: names of pods of movers that may still write to the target for another restore.
        pods_during_copy: names of the pods that used an existing target while it was written.
        attached_to: nodes that an existing target is attached to although no pod mounts it.
        staging_claim: our claim under which a new volume is filled.
        volume: the filled PersistentVolume, found by our label once it has it, otherwise through ``staging_claim``.
        classes: names of all StorageClasses.
        wait_for_consumer_classes: names of the StorageClasses that bind a claim only when a pod needs it.
        mover: the mover Job.
        grant: whether BackupGrants permit it, if the backup is one of another namespace.
        policy: the operator's own settings.
    """

    restore: VolumeRestore
    policy: OperatorPolicy
    backup: VolumeBackup | None = None
    backups: tuple[VolumeBackup, ...] = ()
    restores: tuple[VolumeRestore, ...] = ()
    object_count: int = 0
    store: StoreLookup = field(default_factory=StoreLookup)
    manifest: ObservedManifest | None = None
    manifest_error: CinderblockError | None = None
    target: PersistentVolumeClaim | None = None
    pods_using: tuple[str, ...] = ()
    pods_restoring: tuple[str, ...] = ()
    pods_during_copy: tuple[str, ...] = ()
    attached_to: tuple[str, ...] = ()
    staging_claim: PersistentVolumeClaim | None = None
    volume: PersistentVolume | None = None
    classes: tuple[str, ...] = ()
    wait_for_consumer_classes: tuple[str, ...] = ()
    mover: ObservedMover = field(default_factory=ObservedMover)
    grant: GrantState = GrantState.NONE


@dataclass(frozen=True, slots=True)
class MoverLoad:
    """The backups and restores that a verification must not delay.

    Attributes:
        movers: their movers that run in the cluster; of each namespace at most as many as it may have.
        movers_in_namespace: those of the namespace of the verification.
        waiting: operations of the cluster that wait for a mover, and that their namespaces let start.
        waiting_in_namespace: operations of the namespace that wait for a mover.
    """

    movers: int = 0
    movers_in_namespace: int = 0
    waiting: int = 0
    waiting_in_namespace: int = 0


@dataclass(frozen=True, slots=True)
class ObservedVerification:
    """The observed state of a BackupVerification.

    Attributes:
        verification: the BackupVerification itself.
        policy: the operator's own settings.
        backup: the VolumeBackup that was chosen; before that, the one to choose. None: there is none.
        object_count: number of BackupVerifications of the namespace; 0: not counted.
        reads: which parts of the volume's data earlier verifications have read; only read before one is chosen.
        store: the store of the backup.
        mover: the mover Job. Its ``others`` and counts of waiting ones are those of verifications.
        load: the backups and restores that go first.
        recording: what the mover's findings change in VolumeBackups; None: the mover has not succeeded.
        drill: the objects of level Restore; None: another level.
    """

    verification: BackupVerification
    policy: OperatorPolicy
    backup: VolumeBackup | None = None
    object_count: int = 0
    reads: tuple[PartsRead, ...] = ()
    store: StoreLookup = field(default_factory=StoreLookup)
    mover: ObservedMover = field(default_factory=ObservedMover)
    load: MoverLoad = field(default_factory=MoverLoad)
    recording: Recording | None = None
    drill: ObservedDrill | None = None


@dataclass(frozen=True, slots=True)
class ObservedStore:
    """The observed state of a BackupStore.

    Attributes:
        store: the BackupStore itself.
        lookup: whether it answers.
        used_by: names of the VolumeBackups of its namespace that need it.
        unsealed: names of complete VolumeBackups that are not encrypted; only listed with an encryption Secret.
        more_unsealed: whether there may be more of them.
        rules: what the container does with deleted objects; None: not asked now, or not answered.
        mover: the operator's settings for movers; None: not read.
        misplaced: names of VolumeBackups whose data is not in the place that the store has now.
        unreachable: why movers cannot reach the broker of a shared store; None: they can, or need none.
        owner: the cluster that owns it; None: not read, or this cluster does not know its own UID.
    """

    store: BackupStore
    lookup: StoreLookup = field(default_factory=StoreLookup)
    used_by: tuple[str, ...] = ()
    unsealed: tuple[str, ...] = ()
    more_unsealed: bool = False
    rules: ContainerRules | None = None
    mover: MoverSettings | None = None
    misplaced: tuple[str, ...] = ()
    unreachable: Fail | None = None
    owner: ObservedOwner | None = None
