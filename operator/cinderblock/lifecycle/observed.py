"""Everything that was seen of one object and its surroundings when it was reconciled. Read live, never remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from cinderblock.errors import CinderblockError
from cinderblock.lifecycle.verdicts import Deadlines


@dataclass(frozen=True, slots=True)
class MoverSettings:
    """How mover Jobs are built, as far as the operator's own settings say it."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    limit: int = 16
    """Movers that may run at once in the whole cluster."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Environment variables by which movers find a proxy, with their values."""


@dataclass(frozen=True, slots=True)
class OperatorPolicy:
    """What the operator was told once at its start."""

    mover: MoverSettings
    deadlines: Deadlines = field(default_factory=Deadlines)
    release: str = ""
    """Name of the operator's Helm release."""


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """The store of an operation.

    Attributes:
        store: the BackupStore, if there is one.
        missing: why there is none, for a person.
        trouble: why it cannot be used now: a Secret is missing, the endpoint does not answer, ...; None if it
            answered, or was not asked.
        active_key: the key id that a mover must seal with; None: the greatest of those mounted.
    """

    store: BackupStore | None = None
    missing: str = ""
    error: CinderblockError | None = None
    active_key: str | None = None


@dataclass(frozen=True, slots=True)
class ObservedManifest:
    """A manifest that the operator has read back from the store, and that was the expected one.

    Attributes:
        reread_files: files that were read again because of the dirty window; None: not recorded.
        missed_changes: files whose changes timestamps had hidden; None: not recorded.
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
    reread_files: int | None = None
    missed_changes: int | None = None
    unreadable_files: int = 0
    unreadable_examples: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class RunningMover:
    """A mover Job of another operation that has not ended.

    Attributes:
        owner: UID of the operation.
        store: UID of the BackupStore that it uses.
    """

    owner: str
    store: str


@dataclass(frozen=True, slots=True)
class ObservedMover:
    """The mover Job of an operation.

    Attributes:
        job: the Job, if there is one.
        pods: its pods, oldest first.
        progress: the last line of progress of the running pod.
        warning: the newest Warning Event about a Job that has no pod, or about a pod that does not start.
        claim_warning: the newest Warning Event about the claim that such a pod waits for, while that is not bound: only
            there is told that its class can make no volume where the pod may run.
        others: mover Jobs in the cluster that have not ended, this one not counted; only looked for without a Job.
        waiting_before: older operations that wait for a mover, wherever.
        waiting_before_for_store: older operations that wait for a mover of the same BackupStore.
    """

    job: Job | None = None
    pods: tuple[Pod, ...] = ()
    progress: MoverProgress | None = None
    warning: str = ""
    claim_warning: str = ""
    others: frozenset[RunningMover] = frozenset()
    waiting_before: int = 0
    waiting_before_for_store: int = 0


@dataclass(frozen=True, slots=True)
class ObservedBackup:
    """What was seen around a VolumeBackup.

    Attributes:
        backup: the VolumeBackup itself.
        siblings: the other VolumeBackups of its namespace.
        restores: the VolumeRestores of its namespace.
        store: where it goes.
        claim: the volume to back up, by UID or name.
        volume: the PersistentVolume bound to it.
        users: names of the pods that mount the claim.
        writers: names of pods of movers that may still write to the volume for a restore.
        stateful_sets: names of StatefulSets that have a pod which mounts a claim of the same template.
        cluster_uid: UID of the namespace kube-system; empty: not known, or not looked for.
        intruders: names of the pods that had the volume while it was copied without a snapshot.
        attached_to: nodes that its volume is attached to although no pod mounts it, if that matters.
        snapshot_class: VolumeSnapshotClass for the claim's driver; None: there is none.
        snapshot_class_missing: why the class that the store asks for cannot be used.
        classes: all StorageClasses; only looked for if a snapshot is to be made mountable.
        given_snapshot: the VolumeSnapshot that spec.snapshotId names.
        snapshot: our VolumeSnapshot.
        exposed: our claim made from a snapshot, which the mover mounts.
        mover: the mover Job.
        manifest: the committed manifest; None: there is none, or it was not looked for.
        manifest_trouble: why the store could not say whether there is a manifest, or that it holds another one.
        parent: the manifest of the recorded parent; only read if the parent's status has no pins.
        parent_trouble: why the parent's manifest could not be read.
        manifest_stands: of a deletion: whether the store still holds the manifest.
        needed_by: ids of backups whose manifests in the store list packs of this one; None: not asked, or no answer.
        references_trouble: why it is unknown whether some backups need this one.
        data_left: whether the store still holds objects of the backup; None: not looked for, or unknown.
        namespace_ending: whether the namespace is being deleted.
        policy: the operator's own settings.
    """

    backup: VolumeBackup
    policy: OperatorPolicy
    siblings: tuple[VolumeBackup, ...] = ()
    restores: tuple[VolumeRestore, ...] = ()
    store: StoreLookup = field(default_factory=StoreLookup)
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
    mover: ObservedMover = field(default_factory=ObservedMover)
    manifest: ObservedManifest | None = None
    manifest_error: CinderblockError | None = None
    parent: ObservedManifest | None = None
    parent_error: CinderblockError | None = None
    manifest_present: bool = False
    needed_by: tuple[str, ...] | None = None
    references_error: CinderblockError | None = None
    data_present: bool | None = None
    namespace_ending: bool = False


@dataclass(frozen=True, slots=True)
class ObservedRestore:
    """What was seen around a VolumeRestore.

    Attributes:
        restore: the VolumeRestore itself.
        backup: the VolumeBackup that spec.backupId names.
        backups: all VolumeBackups of the namespace.
        restores: the other VolumeRestores of the namespace.
        store: where the backup is.
        manifest, manifest_trouble: the backup's manifest, or why it could not be read.
        target: the claim of spec.volumeId, or the one that has the name of the volume to create.
        users: names of the pods that mount the target.
        writers: names of pods of movers that may still write to the target for another restore.
        intruders: names of the pods that had an existing target while it was written.
        attached_to: nodes that an existing target is attached to although no pod mounts it.
        hidden: our claim that a new volume is filled under.
        volume: the PersistentVolume that was filled, found by our label once it carries it, else through ``hidden``.
        classes: names of all StorageClasses.
        late_classes: those of them that bind a claim only when a pod asks for it.
        mover: the mover Job.
        policy: the operator's own settings.
    """

    restore: VolumeRestore
    policy: OperatorPolicy
    backup: VolumeBackup | None = None
    backups: tuple[VolumeBackup, ...] = ()
    restores: tuple[VolumeRestore, ...] = ()
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


@dataclass(frozen=True, slots=True)
class ObservedStore:
    """What was seen around a BackupStore.

    Attributes:
        store: the BackupStore itself.
        view: whether it answers.
        used_by: names of the VolumeBackups of its namespace that need it.
        unsealed: names of VolumeBackups that are whole and not encrypted; only searched with an encryption Secret.
        more_unsealed: whether there may be more of them.
    """

    store: BackupStore
    lookup: StoreLookup = field(default_factory=StoreLookup)
    used_by: tuple[str, ...] = ()
    unsealed: tuple[str, ...] = ()
    more_unsealed: bool = False
