"""How a verdict looks in a status: the parts that backups and restores share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.meta import Object
from cinderblock.api.mover import (
    StoreLocation,
    VolumeMode,
)
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.actions import Action, DeleteChild

Child = TypeVar("Child", bound=Object)


def cleanup(
    owner: str, job: Job | None, snapshot_claim: PersistentVolumeClaim | None, snapshot: VolumeSnapshot | None
) -> tuple[Action, ...]:
    """Remove what was made for one run. The Job goes first: it uses the claim, which was made from the snapshot.

    What only has a child's name, and not the ``owner`` with this UID, is somebody else's and stays.
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
    "The mover was told to stop and has not: {pods}. Nothing else touches its volume before it has. If that node is off"
    " for good, taint it with node.kubernetes.io/out-of-service, or delete the pod with --force."
)
"""Only who sees the machine can say that nothing runs on it any more; a Kubernetes that guesses corrupts volumes."""


def is_ours(child: Child | None, owner: str) -> TypeGuard[Child]:
    """Whether there is a child, and the object with the UID ``owner`` owns it."""
    return child is not None and child.metadata.is_owned_by(owner)


Owner = VolumeBackup | VolumeRestore


def child_metadata(owner: Owner) -> dict[str, Any]:
    """Metadata of a child: name from the owner's UID, owner reference, labels."""
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
    """Labels by which a child is watched and found."""
    return {
        labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
        labels.OWNER_KIND_LABEL: owner.kind,
        labels.OWNER_UID_LABEL: owner.uid,
    }


def volume_snapshot(owner: Owner, claim_name: str, class_name: str) -> dict[str, Any]:
    """A VolumeSnapshot of a claim."""
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
    """What a new claim is to be: size in bytes, StorageClass (None: the cluster's default), mode and access modes."""

    size: int
    storage_class: str | None
    volume_mode: VolumeMode
    access_modes: tuple[str, ...]


def claim(owner: Owner, request: ClaimRequest, *, from_snapshot: str | None = None) -> dict[str, Any]:
    """A claim of ours: empty (to be restored into), or made from a VolumeSnapshot (to be backed up)."""
    spec = _claim_spec(request)
    if from_snapshot:
        spec["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": from_snapshot,
        }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": child_metadata(owner), "spec": spec}


def restored_claim(owner: VolumeRestore, name: str, request: ClaimRequest, volume_name: str) -> dict[str, Any]:
    """The claim that a restore was asked for, bound to the volume that has been filled.

    It is a child of the restore like any other until it is bound and handed over (`rebinding`): one that is created
    late, by an operator that does not lead any more, goes with its owner, or is removed by it.
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


def location(store: BackupStore, container: str) -> StoreLocation:
    """Where a backup of this store is, as a mover is told."""
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
        upload_bytes_per_second=spec.limits.upload_bytes_per_second,
        download_bytes_per_second=spec.limits.download_bytes_per_second,
    )
