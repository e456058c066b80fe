"""The children of a backup or a restore, as plain data: VolumeSnapshot and PersistentVolumeClaim.

Every child has, from its creation, the owner reference and the labels by which the operator finds and removes it. The
labels and annotations of the owner are not copied: a GitOps tool would treat the child as its own and prune it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.meta import Object
from cinderblock.api.mover import StoreLocation, VolumeMode
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.actions import Action, DeleteChild

Child = TypeVar("Child", bound=Object)


def cleanup(
    owner: str, job: Job | None, snapshot_claim: PersistentVolumeClaim | None, snapshot: VolumeSnapshot | None
) -> tuple[Action, ...]:
    """Return the actions that remove the children. The Job goes first: it uses the claim made from the snapshot.

    An object with the name of a child that the object with the UID ``owner`` does not own is left alone.
    """
    actions: list[Action] = []
    if is_ours(job, owner) and (not job.metadata.is_being_deleted or labels.JOB_FINALIZER in job.metadata.finalizers):
        actions.append(DeleteChild("Job", job.name, job.uid))
    if is_ours(snapshot_claim, owner) and not snapshot_claim.metadata.is_being_deleted:
        actions.append(DeleteChild("PersistentVolumeClaim", snapshot_claim.name, snapshot_claim.uid))
    if is_ours(snapshot, owner) and not snapshot.metadata.is_being_deleted:
        actions.append(DeleteChild("VolumeSnapshot", snapshot.name, snapshot.uid))
    return tuple(actions)


NODE_LOST_ADVICE = (
    "Cannot stop the mover: {pods} does not end. Nothing else uses its volume until then. If the node is off for good,"
    " taint it with node.kubernetes.io/out-of-service, or delete the pod with --force."
)
"""Only an administrator can tell that nothing runs on a lost machine any more. A wrong guess corrupts the volume."""


def is_ours(child: Child | None, owner: str) -> TypeGuard[Child]:
    """Return whether the child exists and the object with the UID ``owner`` owns it."""
    return child is not None and child.metadata.is_owned_by(owner)


Owner = VolumeBackup | VolumeRestore


def child_metadata(owner: Owner) -> dict[str, Any]:
    """Return the metadata of a child: name from the UID of the owner, owner reference, labels."""
    return {
        "name": labels.child_name(owner.uid),
        "namespace": owner.namespace,
        "labels": child_labels(owner),
        "annotations": {labels.OWNER_NAME_ANNOTATION: owner.name},
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


def child_labels(owner: Owner) -> dict[str, str]:
    """Return the labels by which a child is watched and found."""
    return {
        labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
        labels.OWNER_KIND_LABEL: owner.kind,
        labels.OWNER_UID_LABEL: owner.uid,
    }


def volume_snapshot(owner: Owner, claim_name: str, class_name: str) -> dict[str, Any]:
    """Return a VolumeSnapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": child_metadata(owner),
        "spec": {
            "volumeSnapshotClassName": class_name,
            "source": {"persistentVolumeClaimName": claim_name},
        },
    }


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The properties of a new claim: size in bytes, StorageClass (None: the cluster's default), mode, access modes."""

    size: int
    storage_class: str | None
    volume_mode: VolumeMode
    access_modes: tuple[str, ...]


def claim(owner: Owner, request: ClaimRequest, *, from_snapshot: str | None = None) -> dict[str, Any]:
    """Return one of our claims: an empty one to restore into, or one made from a VolumeSnapshot to back up."""
    spec = _claim_spec(request)
    if from_snapshot:
        spec["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": from_snapshot,
        }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": child_metadata(owner), "spec": spec}


def restored_claim(owner: VolumeRestore, name: str, request: ClaimRequest, volume_name: str) -> dict[str, Any]:
    """Return the claim that a restore requests, bound to the filled volume.

    It is a child of the restore until it is bound and released (`rebind`). So a claim that a former leader creates late
    is removed with its owner, or by it.
    """
    metadata = child_metadata(owner)
    metadata["name"] = name
    metadata["labels"] = owner.spec.labels | metadata["labels"]
    metadata["annotations"] |= owner.spec.annotations | {labels.VOLUME_ID_ANNOTATION: owner.uid}
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
        create_container=spec.create_container,
        storage_class=spec.storage_class,
        server_side_encryption=spec.server_side_encryption,
        allowed_endpoints=list(allowed_endpoints) or None,
        upload_bytes_per_second=spec.limits.upload_bytes_per_second,
        download_bytes_per_second=spec.limits.download_bytes_per_second,
    )
