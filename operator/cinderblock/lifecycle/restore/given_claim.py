"""The claim of a user to which a restored volume is handed over (spec.claim): rules, properties, and reservation.

The volume is reserved for the claim by name and UID. So no later claim of the same name gets it, and Kubernetes' volume
controller binds both without a further write: the operator never changes the claim.
"""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POPULATED_ANNOTATION, populate_name
from cinderblock.api.v1alpha1.restore import GivenClaim
from cinderblock.lifecycle.children import ClaimRequest
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.verdicts import Fail, Verdict
from cinderblock.reasons import Reason

VOLUME_BACKUP: Final = "VolumeBackup"
RESTORE_SOURCE: Final = "RestoreSource"
"""Kinds that a dataSourceRef may name."""


def check(observed: ObservedRestore) -> Verdict:
    """The claim is the one that was named, asks for its content, is unbound, and has the volumeMode of the backup."""
    given = observed.restore.spec.claim
    if given is None:
        return None
    gone = still_waits(observed, None) or _other_request(observed, given)
    if gone is not None or observed.target is None:
        return gone
    mode, manifest = observed.target.spec.volume_mode, observed.manifest
    if manifest is not None and mode is not manifest.description.volume_mode:
        cause = (
            f"PersistentVolumeClaim {given.name} has volumeMode {mode}, the backup {manifest.description.volume_mode}"
        )
        return Fail(Reason.VOLUME_MODE_MISMATCH, f"{cause}. Create the claim again with that volumeMode.")
    return None


def _other_request(observed: ObservedRestore, given: GivenClaim) -> Fail | None:
    """Fail if the restore is not the one that the claim asks for.

    Anybody who may create VolumeRestores can name a claim in one, and a claim shall get what its dataSourceRef says.
    """
    restore, source = observed.restore, observed.target.spec.data_source_ref if observed.target is not None else None
    if restore.name != populate_name(given.uid) or not restore.metadata.is_owned_by(given.uid):
        cause = "Only the operator creates VolumeRestores with spec.claim"
        return Fail(Reason.INVALID_INPUT, f"{cause}. Name the VolumeBackup in the dataSourceRef of the claim instead.")
    if source is None or source.kind != VOLUME_BACKUP or not (observed.backup or restore.fills_nothing):
        return None
    if observed.backup is None or observed.backup.name != source.name:
        cause = f"PersistentVolumeClaim {given.name} asks for VolumeBackup {source.name}"
        return Fail(Reason.INVALID_INPUT, f"{cause}, and this restore has other content. Delete this VolumeRestore.")
    return None


def refusal_of_source(claim: PersistentVolumeClaim) -> str | None:
    """Return why the dataSourceRef of a claim cannot be followed; None: it can.

    A reference into another namespace must not lead to an object of the same name in the namespace of the claim.
    """
    source = claim.spec.data_source_ref
    if source is None or not claim.asks_for_backup:
        return f"The dataSourceRef of PersistentVolumeClaim {claim.name} names no backup."
    if source.kind not in (VOLUME_BACKUP, RESTORE_SOURCE):
        cause = f"The dataSourceRef of PersistentVolumeClaim {claim.name} names a {source.kind[:63]}"
        return f"{cause}. Create the claim again with a VolumeBackup or a RestoreSource there."
    if source.namespace not in ("", claim.namespace):
        cause = f"PersistentVolumeClaim {claim.name} asks for a {source.kind} of another namespace"
        return f"{cause}. Create the claim again without dataSourceRef.namespace, or restore by a BackupGrant."
    return None


def still_waits(observed: ObservedRestore, volume: PersistentVolume | None) -> Fail | None:
    """Fail if the claim does not wait for ``volume`` any more: it is gone, or bound to another one."""
    given, claim = observed.restore.spec.claim, observed.target
    if given is None:
        return None
    if claim is None or claim.uid != given.uid or claim.metadata.is_being_deleted:
        message = f"PersistentVolumeClaim {given.name} with UID {given.uid} was deleted"
        return Fail(Reason.VOLUME_NOT_FOUND, f"{message}. Its restored volume is released.")
    refused = refusal_of_source(claim)
    if refused is not None:
        return Fail(Reason.INVALID_INPUT, refused)
    bound_to = claim.spec.volume_name
    if bound_to and (volume is None or bound_to != volume.name):
        return Fail(Reason.BOUND_ELSEWHERE, bound_elsewhere(claim))
    return None


def bound_elsewhere(claim: PersistentVolumeClaim) -> str:
    """Return the message about a claim that was bound to a volume that the operator did not fill."""
    return (
        f"PersistentVolumeClaim {claim.name} was bound to PersistentVolume {claim.spec.volume_name}, which was not"
        " filled for it. If you gave it this volume yourself, there is nothing to do. Otherwise it does not hold the"
        " backup: another volume of its class was available, or its provisioner ignores dataSourceRef. Then do not use"
        " it, and create the claim again."
    )


def request(observed: ObservedRestore) -> ClaimRequest:
    """Return the properties of the staging claim: those of the given claim, and at least the size of the backup."""
    claim, manifest = observed.target, observed.manifest
    if claim is None or (manifest is None and not observed.restore.fills_nothing):
        raise ValueError("the checks let nothing pass without the claim, and without the manifest of a backup")
    stored = manifest.description.volume_bytes if manifest is not None else 0
    return ClaimRequest(
        size=max(claim.capacity_bytes, stored),
        storage_class=claim.spec.storage_class_name,
        volume_mode=claim.spec.volume_mode,
        access_modes=claim.spec.access_modes,
        attributes_class=claim.spec.volume_attributes_class_name,
        node=claim.selected_node,
    )


def reservation(claim: PersistentVolumeClaim) -> dict[str, Any]:
    """Return the claimRef of a volume that is reserved for the claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.uid,
        "resourceVersion": None,
    }


def is_reserved(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Return whether the volume is reserved for the claim, by name and UID."""
    reference = volume.spec.claim_ref
    wanted = (claim.namespace, claim.name, claim.uid)
    return reference is not None and (reference.namespace, reference.name, reference.uid) == wanted


def holds_backup(volume: PersistentVolume | None, claim: PersistentVolumeClaim) -> bool:
    """Return whether the operator has handed the volume over to the claim."""
    if volume is None or not is_reserved(volume, claim):
        return False
    return volume.metadata.annotations.get(POPULATED_ANNOTATION) == claim.uid
