"""The children of an operation, as plain data: VolumeSnapshot and PersistentVolumeClaim.

Every child has, from its creation, the owner reference and the labels by which the operator finds and removes it. The
labels and annotations of the owner are not copied: a GitOps tool would treat the child as its own and prune it. Those
that a cluster wants come from the BackupStore and from the chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import (
    READ_ONLY_MANY,
    SELECTED_NODE_ANNOTATION,
    Job,
    PersistentVolume,
    PersistentVolumeClaim,
    VolumeSnapshot,
)
from cinderblock.api.meta import Object
from cinderblock.api.mover import StoreLocation, VolumeMode
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore, MoverTemplate
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.lifecycle.actions import Action, DeleteChild, PatchVolume
from cinderblock.lifecycle.observed import MoverSettings

Child = TypeVar("Child", bound=Object)
Owner = VolumeBackup | VolumeRestore | BackupVerification
JobOwner = Owner | BackupStore
"""Objects that own mover Jobs: operations, and a BackupStore whose backups are copied."""


@dataclass(frozen=True, slots=True)
class Children:
    """The children of an operation, as far as they exist.

    Attributes:
        job: the mover Job.
        claim: the temporary PersistentVolumeClaim: made from a snapshot, or filled by a restore.
        snapshot: the VolumeSnapshot.
        volume: the PersistentVolume of the temporary claim, if it is to go with the claim.
    """

    job: Job | None = None
    claim: PersistentVolumeClaim | None = None
    snapshot: VolumeSnapshot | None = None
    volume: PersistentVolume | None = None


def cleanup(owner: JobOwner, children: Children) -> tuple[Action, ...]:
    """Return the actions that remove the children. The Job goes first: it uses the temporary claim.

    An object with the name of a child that does not belong to ``owner`` is left alone.
    """
    job, claim, snapshot = children.job, children.claim, children.snapshot
    actions: list[Action] = []
    if belongs_to(job, owner) and (
        not job.metadata.is_being_deleted or labels.JOB_FINALIZER in job.metadata.finalizers
    ):
        actions.append(DeleteChild("Job", job.name, job.uid))
    if belongs_to(claim, owner):
        actions += dispose(children.volume, claim)
    if belongs_to(claim, owner) and not claim.metadata.is_being_deleted:
        actions.append(DeleteChild("PersistentVolumeClaim", claim.name, claim.uid))
    if belongs_to(snapshot, owner) and not snapshot.metadata.is_being_deleted:
        actions.append(DeleteChild("VolumeSnapshot", snapshot.name, snapshot.uid))
    return tuple(actions)


def dispose(volume: PersistentVolume | None, claim: PersistentVolumeClaim) -> tuple[PatchVolume, ...]:
    """Return the action by which the volume of a temporary claim goes with it, whatever policy its StorageClass gives.

    With the policy Retain, every backup would leave a Released PersistentVolume and its disk. Only the cluster writes
    the reference of a volume to its claim, and the mark of its provisioner. A volume that existed before the claim, for
    example one that an administrator created, keeps its policy.
    """
    if volume is None or volume.spec.persistent_volume_reclaim_policy == "Delete":
        return ()
    reference, since = volume.spec.claim_ref, claim.metadata.creation_timestamp
    if reference is None or reference.uid != claim.uid or not is_made_for(volume, since):
        return ()
    metadata = {"resourceVersion": volume.metadata.resource_version}
    return (PatchVolume(volume.name, {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": "Delete"}}),)


def is_made_for(volume: PersistentVolume, since: datetime | None) -> bool:
    """Return whether a provisioner created the volume at or after ``since``."""
    created = volume.metadata.creation_timestamp
    return volume.is_provisioned and since is not None and created is not None and created >= since


NODE_LOST_ADVICE = (
    "Cannot stop the mover: {pods} does not end. Nothing else uses its volume until then. If the node is off for good,"
    " taint it with node.kubernetes.io/out-of-service, or delete the pod with --force."
)
"""Only an administrator can tell that nothing runs on a lost machine any more. A wrong guess corrupts the volume."""


def belongs_to(child: Child | None, owner: JobOwner) -> TypeGuard[Child]:
    """Return whether the child goes with ``owner``: it is owned, or an orphan.

    For `kubectl delete --cascade=orphan`, the garbage collector takes our owner reference off, and nobody else removes
    the child. An orphan has no owner any more, our labels, and a name that contains the UID of ``owner``. That UID is
    random, so no object of somebody else has the name by chance.
    """
    if child is None or child.metadata.is_owned_by(owner.uid):
        return child is not None
    metadata = child.metadata
    if metadata.owner_references or metadata.name != labels.child_name(owner.uid):
        return False
    return all(metadata.labels.get(key) == value for key, value in child_labels(owner).items())


def is_ours(child: Child | None, owner: str) -> TypeGuard[Child]:
    """Return whether the child exists and the object with the UID ``owner`` owns it."""
    return child is not None and child.metadata.is_owned_by(owner)


@dataclass(frozen=True, slots=True)
class Extras:
    """Labels and annotations that a cluster wants on children, besides ours."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


NO_EXTRAS = Extras()


def extras_of(store: BackupStore | None, settings: MoverSettings) -> Extras:
    """Return the labels and annotations for the children of an operation: the operator's, and then the store's."""
    template = store.spec.mover if store is not None else MoverTemplate()
    return Extras({**dict(settings.labels), **template.labels}, {**dict(settings.annotations), **template.annotations})


def child_metadata(owner: JobOwner, extras: Extras = NO_EXTRAS) -> dict[str, Any]:
    """Return the metadata of a child: name from the UID of the owner, owner reference, labels. Our own keys win."""
    return {
        "name": labels.child_name(owner.uid),
        "namespace": owner.namespace,
        "labels": {**extras.labels, **child_labels(owner)},
        "annotations": {**extras.annotations, labels.OWNER_NAME_ANNOTATION: owner.name},
        "ownerReferences": [
            {
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def child_labels(owner: JobOwner) -> dict[str, str]:
    """Return the labels by which a child is watched and found."""
    return {
        labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
        labels.OWNER_KIND_LABEL: owner.kind,
        labels.OWNER_UID_LABEL: owner.uid,
    }


def volume_snapshot(owner: Owner, claim_name: str, class_name: str, extras: Extras = NO_EXTRAS) -> dict[str, Any]:
    """Return a VolumeSnapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": child_metadata(owner, extras),
        "spec": {
            "volumeSnapshotClassName": class_name,
            "source": {"persistentVolumeClaimName": claim_name},
        },
    }


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The properties of a new claim: size in bytes, StorageClass (None: the cluster's default), mode, access modes.

    ``attributes_class`` is a VolumeAttributesClass, and ``node`` one where the volume must be reachable; empty: any.
    """

    size: int
    storage_class: str | None
    volume_mode: VolumeMode
    access_modes: tuple[str, ...]
    attributes_class: str | None = None
    node: str = ""


def writable(access_modes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the access modes of a temporary claim for a volume with these modes.

    No driver creates a volume that nobody may write to, neither from a snapshot nor an empty one.
    """
    return access_modes if set(access_modes) - {READ_ONLY_MANY} else ("ReadWriteOnce",)


def claim(
    owner: Owner, request: ClaimRequest, extras: Extras = NO_EXTRAS, *, from_snapshot: str | None = None
) -> dict[str, Any]:
    """Return one of our claims: an empty one to restore into, or one made from a VolumeSnapshot to back up."""
    spec = _claim_spec(request)
    if from_snapshot:
        spec["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": from_snapshot,
        }
    metadata = child_metadata(owner, extras)
    if request.node:
        metadata["annotations"][SELECTED_NODE_ANNOTATION] = request.node
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def restored_claim(
    owner: VolumeRestore, name: str, request: ClaimRequest, volume_name: str, extras: Extras = NO_EXTRAS
) -> dict[str, Any]:
    """Return the claim that a restore requests, bound to the filled volume.

    It is a child of the restore until it is bound and released (`rebind`). So a claim that a former leader creates late
    is removed with its owner, or by it. Its labels and annotations go before ``extras``.
    """
    metadata = child_metadata(owner)
    metadata["name"] = name
    metadata["labels"] = {**extras.labels, **owner.spec.labels, **metadata["labels"]}
    own = metadata["annotations"] | {labels.VOLUME_ID_ANNOTATION: owner.uid}
    metadata["annotations"] = {**extras.annotations, **owner.spec.annotations, **own}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": _claim_spec(request) | {"volumeName": volume_name},
    }


def _claim_spec(request: ClaimRequest) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": list(request.access_modes),
        "volumeMode": request.volume_mode.value,
        "resources": {"requests": {"storage": str(request.size)}},
    }
    if request.storage_class is not None:
        spec["storageClassName"] = request.storage_class
    if request.attributes_class:
        spec["volumeAttributesClassName"] = request.attributes_class
    return spec


def location(store: BackupStore, container: str, allowed_endpoints: Sequence[str]) -> StoreLocation:
    """Return the location of a backup in this store, as the task of a mover contains it.

    ``allowed_endpoints`` is the administrator's list; empty allows all.
    """
    spec = store.spec
    return StoreLocation(
        endpoint_url=spec.endpoint_url,
        region=spec.region,
        container=container,
        prefix=spec.prefix,
        addressing=spec.addressing,
        access=spec.access,
        create_container=spec.create_container,
        storage_class=spec.storage_class,
        server_side_encryption=spec.server_side_encryption,
        allowed_endpoints=list(allowed_endpoints) or None,
        upload_bytes_per_second=spec.limits.upload_bytes_per_second,
        download_bytes_per_second=spec.limits.download_bytes_per_second,
    )
