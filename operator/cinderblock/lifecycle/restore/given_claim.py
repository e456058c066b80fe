"""The claim of a user to which a restored volume is handed over (spec.claim): rules, properties, and reservation.

The volume is reserved for the claim by name and UID. So no later claim of the same name gets it, and Kubernetes' volume
controller binds both without a further write: the operator never changes the claim.
"""

from __future__ import annotations

from typing import Any

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POPULATED_ANNOTATION
from cinderblock.lifecycle.children import ClaimRequest
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.verdicts import Fail, Verdict
from cinderblock.reasons import Reason


def check(observed: ObservedRestore) -> Verdict:
    """The claim is the one that was named, asks for its content, is unbound, and has the volumeMode of the backup."""
    given = observed.restore.spec.claim
    if given is None:
        return None
    gone = still_waits(observed, None)
    if gone is not None or observed.target is None:
        return gone
    mode, manifest = observed.target.spec.volume_mode, observed.manifest
    if manifest is not None and mode is not manifest.description.volume_mode:
        cause = (
            f"PersistentVolumeClaim {given.name} has volumeMode {mode}, the backup {manifest.description.volume_mode}"
        )
        return Fail(Reason.VOLUME_MODE_MISMATCH, f"{cause}. Create the claim again with that volumeMode.")
    return None


def still_waits(observed: ObservedRestore, volume: PersistentVolume | None) -> Fail | None:
    """Fail if the claim does not wait for ``volume`` any more: it is gone, or bound to another one."""
    given, claim = observed.restore.spec.claim, observed.target
    if given is None:
        return None
    if claim is None or claim.uid != given.uid or claim.metadata.is_being_deleted:
        message = f"PersistentVolumeClaim {given.name} with UID {given.uid} was deleted"
        return Fail(Reason.VOLUME_NOT_FOUND, f"{message}. Its restored volume is released.")
    if not claim.asks_for_backup:
        return Fail(Reason.INVALID_INPUT, f"The dataSourceRef of PersistentVolumeClaim {given.name} names no backup.")
    bound_to = claim.spec.volume_name
    if bound_to and (volume is None or bound_to != volume.name):
        return Fail(Reason.BOUND_ELSEWHERE, bound_elsewhere(claim))
    return None


def bound_elsewhere(claim: PersistentVolumeClaim) -> str:
    """Return the message about a claim that was bound to a volume that the operator did not fill."""
    return (
        f"PersistentVolumeClaim {claim.name} was bound to PersistentVolume {claim.spec.volume_name}, which does not"
        " hold the backup: another volume of its class was available, or its provisioner ignores dataSourceRef. Do not"
        " use it. Delete the claim, and what took its place."
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
    return volume is not None and volume.metadata.annotations.get(POPULATED_ANNOTATION) == claim.uid
