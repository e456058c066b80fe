"""Hand a filled PersistentVolume over from our hidden claim to a claim of the asked name.

Each step can be seen in the world, so that a crash after any of them is continued:

1. mark the volume with the restore's UID, and keep it when its claim goes (reclaim policy Retain);
2. delete the mover, then the hidden claim: the volume is Released;
3. point the volume's claimRef at the asked name, without UID: it becomes Available, reserved for that claim;
4. only then create the claim, as a child of the restore: it is Bound. (A claim that comes while the volume is not yet
   Available meets a conflict, and is bound with the next resync of Kubernetes' volume controller, after up to 15 s.)
   If the volume is bound to it and it is not, it is changed once, and is bound then: see `_nudge`;
5. make the claim the user's own (`release`): from here on nothing takes it away;
6. record that the restore is available, and only then give the volume its reclaim policy back and take the mark off
   (`abandon`): the mark is what tells our claim from somebody else's of the same name.

Every step but the first is heard of through a watch: of claims by their labels, of the volume by its mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle import children
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, Action, CreateClaim, DeleteChild, PatchClaim, PatchVolume
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import checks
from cinderblock.lifecycle.verdicts import Fail, Wait

RESTORE_LABEL = "cinderblock.io/restore-uid"
"""On a PersistentVolume that is being handed over: UID of the VolumeRestore."""
POLICY_ANNOTATION = "cinderblock.io/reclaim-policy"
"""On the same: the reclaim policy that it had."""
NUDGED_ANNOTATION = "cinderblock.io/nudged"
"""On a claim that is being bound to it: the claim was changed so that its binding is completed at once."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, and what is awaited after it."""

    wait: Wait
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The asked claim is bound to the filled volume."""

    claim: PersistentVolumeClaim


def has_begun(observed: ObservedRestore) -> bool:
    """Whether the volume carries our mark: from here on the copy is known to be whole."""
    return observed.volume is not None and _is_marked(observed.volume, observed)


def next_step(observed: ObservedRestore) -> Step | Finished | Fail:
    """The next step of handing over."""
    volume = observed.volume
    if observed.target is not None and volume is not None and observed.target.spec.volume_name == volume.name:
        return _bound(observed, observed.target, volume)
    if volume is None:
        return Step(_rebinding(observed, "waiting for the filled volume"))
    if not _is_marked(volume, observed):
        return Step(_rebinding(observed, "keeping the filled volume"), (_mark(observed, volume),))
    if observed.target is not None:
        return Fail("NameTaken", f"PersistentVolumeClaim {observed.target.name} was made by somebody else meanwhile.")
    leftovers = children.cleanup(observed.restore.uid, observed.mover.job, observed.staging_claim, None)
    if leftovers or observed.staging_claim is not None:
        return Step(_rebinding(observed, "releasing the hidden claim"), leftovers)
    return _claim(observed, volume)


def release_volume(observed: ObservedRestore) -> tuple[Action, ...]:
    """Let a marked volume go: handed over, it stays with its claim; not handed over, its own policy decides again.

    A volume that is reserved for a claim which does not come would be Available for ever: nobody reclaims it. So its
    reservation gets the UID of no claim, and the PersistentVolume controller finds it Released (syncVolume).
    """
    volume, uid = observed.volume, observed.restore.uid
    if volume is None or not _is_marked(volume, observed) or children.is_ours(observed.staging_claim, uid):
        return ()
    return () if is_child(observed.target, observed.restore) else (unmark(volume, observed.target),)


def unmark(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> PatchVolume:
    """Let a marked volume go, whatever claim has the name that it is reserved for; see `abandon`."""
    reference = volume.spec.claim_ref
    is_promised = claim is not None and claim.spec.volume_name == volume.name
    is_stranded = reference is not None and not reference.uid and not is_promised
    return _unmark(volume, spec={"claimRef": {"uid": volume.metadata.labels[RESTORE_LABEL]}} if is_stranded else {})


def keep_volume(volume: PersistentVolume) -> PatchVolume:
    """Take the mark off and let the volume stay whatever becomes of its claim: somebody may have written to it."""
    return _patch(volume, {"metadata": _no_marks()})


def is_child(claim: PersistentVolumeClaim | None, restore: VolumeRestore) -> TypeGuard[PersistentVolumeClaim]:
    """Whether a claim was made by the restore and has not been handed over.

    The label says so as well as the owner: who makes the restore the owner of a claim of theirs, has not made it ours.
    """
    return children.is_ours(claim, restore.uid) and claim.metadata.labels.get(labels.OWNER_UID_LABEL) == restore.uid


def release(claim: PersistentVolumeClaim, restore: VolumeRestore) -> PatchClaim:
    """Make a claim that is bound the user's own."""
    owners = [owner.to_wire() for owner in claim.metadata.owner_references if owner.uid != restore.uid]
    metadata = {
        "resourceVersion": claim.metadata.resource_version,
        "ownerReferences": owners,
        "labels": dict.fromkeys(children.child_labels(restore)),
        "annotations": {labels.OWNER_NAME_ANNOTATION: None, NUDGED_ANNOTATION: None},
    }
    return PatchClaim(claim.name, {"metadata": metadata})


def clean_up_claim(observed: ObservedRestore) -> tuple[Action, ...]:
    """Deal with a claim of ours whose restore has ended: cancelled, failed, or long since available.

    One that is not bound has no content, and goes. One that is bound may be in use already: it is the user's.
    """
    claim = observed.target
    if not is_child(claim, observed.restore) or claim.metadata.is_being_deleted:
        return ()
    if claim.is_bound:
        return (release(claim, observed.restore),)
    return (DeleteChild("PersistentVolumeClaim", claim.name, claim.uid),)


def _bound(observed: ObservedRestore, target: PersistentVolumeClaim, volume: PersistentVolume) -> Step | Finished:
    if target.is_bound:
        return Finished(target)
    waiting = _rebinding(observed, f"waiting for claim {target.name} to be bound")
    is_half_bound = volume.status.phase == "Bound" and _is_bound_to(volume, target)
    if is_half_bound and is_child(target, observed.restore) and NUDGED_ANNOTATION not in target.metadata.annotations:
        return Step(waiting, (_nudge(target),))
    return Step(waiting)


def _is_bound_to(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return volume.spec.claim_ref is not None and volume.spec.claim_ref.uid == claim.uid


def _nudge(claim: PersistentVolumeClaim) -> PatchClaim:
    """Have Kubernetes' volume controller look at a claim again whose volume is bound to it already.

    Its two workers both set the volume's phase; if the one that binds the claim comes second, it gives up and tries
    again when the claim changes, or with its next resync, after up to 15 s (pv_controller.go: bind, updateClaim). With
    Kubernetes 1.35 that is every second binding.
    """
    metadata = {"resourceVersion": claim.metadata.resource_version, "annotations": {NUDGED_ANNOTATION: "true"}}
    return PatchClaim(claim.name, {"metadata": metadata})


def _claim(observed: ObservedRestore, volume: PersistentVolume) -> Step:
    """Reserve the released volume for the asked name, and create the claim."""
    reference = volume.spec.claim_ref
    name = checks.target_name(observed)
    # With a UID, it is the reference to a claim that was bound and is gone.
    wanted = (observed.restore.namespace, name, "")
    reserved = reference is not None and (reference.namespace, reference.name, reference.uid) == wanted
    if not reserved and volume.status.phase != "Released":
        return Step(_rebinding(observed, "waiting for the volume to be released"))
    reserving = _rebinding(observed, f"reserving the volume for claim {name}")
    if not reserved:
        patch = {"spec": {"claimRef": _reference(observed.restore.namespace, name)}}
        return Step(reserving, (_patch(volume, patch),))
    if volume.status.phase != "Available":
        return Step(reserving)
    if observed.manifest is None:
        return Step(_rebinding(observed, "waiting for the store"))
    request = checks.claim_request(observed)
    request = children.ClaimRequest(
        request.size, volume.spec.storage_class_name, request.volume_mode, request.access_modes
    )
    body = children.restored_claim(observed.restore, name, request, volume.name)
    return Step(_rebinding(observed, f"creating claim {name}"), (CreateClaim(body),))


def _reference(namespace: str, name: str) -> dict[str, str | None]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace,
        "name": name,
        "uid": None,
        "resourceVersion": None,
    }


def _is_marked(volume: PersistentVolume, observed: ObservedRestore) -> bool:
    return volume.metadata.labels.get(RESTORE_LABEL) == observed.restore.uid


def _mark(observed: ObservedRestore, volume: PersistentVolume) -> PatchVolume:
    policy = volume.spec.persistent_volume_reclaim_policy
    metadata = {"labels": {RESTORE_LABEL: observed.restore.uid}, "annotations": {POLICY_ANNOTATION: policy}}
    return _patch(volume, {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": "Retain"}})


def _unmark(volume: PersistentVolume, spec: dict[str, Any]) -> PatchVolume:
    policy = volume.metadata.annotations.get(POLICY_ANNOTATION) or "Delete"
    return _patch(volume, {"metadata": _no_marks(), "spec": {"persistentVolumeReclaimPolicy": policy} | spec})


def _no_marks() -> dict[str, Any]:
    return {"labels": {RESTORE_LABEL: None}, "annotations": {POLICY_ANNOTATION: None}}


def _patch(volume: PersistentVolume, patch: dict[str, Any]) -> PatchVolume:
    """A merge-patch that holds only for the volume as it was seen."""
    metadata = patch.get("metadata", {}) | {"resourceVersion": volume.metadata.resource_version}
    return PatchVolume(volume.name, patch | {"metadata": metadata})


def _rebinding(observed: ObservedRestore, detail: str, requeue_after: float = MIN_REQUEUE_SECONDS) -> Wait:
    return Wait(
        "Rebinding",
        f"The volume is filled; {detail}",
        limit=observed.policy.deadlines.rebind,
        requeue_after=requeue_after,
    )
