"""Rebind a filled PersistentVolume from our staging claim to a claim with the requested name.

The objects of the cluster show each step, so that another process can continue after a crash:

1. Mark the volume with the UID of the restore, and set its reclaim policy to Retain so that it survives its claim.
2. Delete the mover, then the staging claim: the volume becomes Released.
3. Point the claimRef of the volume to the requested name, without UID: it becomes Available, reserved for that claim.
4. Only then create the claim, as a child of the restore: it becomes Bound. A claim that is created before the volume is
   Available meets a conflict, and is bound at the next resync of Kubernetes' volume controller, after up to 15 s. If
   the volume is bound but the claim is not, change the claim once: see `_nudge`.
5. Release the claim to the user (`release`): from here on nothing removes it. A scratch claim is never released.
6. Record that the restore is available. Only then restore the reclaim policy of the volume and remove the mark
   (`release_volume`): the mark distinguishes our claim from somebody else's of the same name.

A given claim (spec.claim) exists already, and belongs to the user. Then step 3 reserves the volume with the UID of that
claim, and steps 4 and 5 are left out: Kubernetes binds the claim to the volume.

Watches report every step except the first: those of claims by their labels, that of the volume by its mark.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from cinderblock.api import labels
from cinderblock.api.kubernetes import READ_ONLY_MANY, PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import (
    NUDGED_ANNOTATION,
    POLICY_ANNOTATION,
    POPULATED_ANNOTATION,
    RESTORE_LABEL,
    TEMPORARY_ANNOTATION,
)
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import children
from cinderblock.lifecycle.actions import (
    MIN_REQUEUE_SECONDS,
    Action,
    CheckClaim,
    CreateClaim,
    DeleteChild,
    PatchClaim,
    PatchVolume,
    RecordEvent,
)
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import checks, given_claim
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.reasons import Reason


@dataclass(frozen=True, slots=True)
class Step:
    """The next actions, and the wait that follows them."""

    wait: Wait
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The requested claim is bound to the filled volume."""

    claim: PersistentVolumeClaim


def is_scratch(restore: VolumeRestore) -> bool:
    """Return whether the restored volume is a scratch volume: it is never released, and goes with the VolumeRestore.

    A BackupVerification owns such a VolumeRestore. Others who set that owner get such a volume as well.
    """
    owners = restore.metadata.owner_references
    return restore.spec.volume_id is None and any(o.kind == "BackupVerification" and o.controller for o in owners)


def dispose(observed: ObservedRestore, claim: PersistentVolumeClaim) -> tuple[PatchVolume, ...]:
    """Return the action by which the volume of the staging claim goes with it, and keeps its policy for the hand-over.

    See `children.dispose`. Somebody may delete the claim, or the namespace, at any time during the copy.
    """
    volume = observed.volume
    if volume is None or _is_marked(volume, observed):
        return ()
    policy = volume.spec.persistent_volume_reclaim_policy
    recorded = {"metadata": {"annotations": {POLICY_ANNOTATION: policy}}}
    return tuple(_patch(volume, action.patch | recorded) for action in children.dispose(volume, claim))


def has_begun(observed: ObservedRestore) -> bool:
    """Return whether the volume has our mark, which shows that the copy is complete."""
    return observed.volume is not None and _is_marked(observed.volume, observed)


def next_step(observed: ObservedRestore) -> Step | Finished | Fail:
    """Return the next step of the rebinding."""
    volume, is_given = observed.volume, observed.restore.spec.claim is not None
    refused = given_claim.still_waits(observed, volume)
    if refused is not None:
        return refused
    if observed.target is not None and volume is not None and _is_promised(observed.target, volume, is_given=is_given):
        return _bound(observed, observed.target, volume)
    if volume is None:
        return Step(_rebinding(observed, "waiting for its PersistentVolume"))
    if not _is_marked(volume, observed):
        return Step(_rebinding(observed, "retaining its PersistentVolume"), (_mark(observed, volume),))
    if observed.target is not None and not is_given:
        cause = f"Cannot create PersistentVolumeClaim {observed.target.name}: somebody else created it meanwhile."
        return Fail(Reason.NAME_TAKEN, f"{cause} Restore again under another name.")
    owned = children.Children(job=observed.mover.job, claim=observed.staging_claim)
    leftovers = children.cleanup(observed.restore, owned)
    if leftovers or observed.staging_claim is not None:
        return Step(_rebinding(observed, "deleting the staging claim"), leftovers)
    return _reserve_for_given(observed, volume) if is_given else _reserve_and_claim(observed, volume)


def _is_promised(claim: PersistentVolumeClaim, volume: PersistentVolume, *, is_given: bool) -> bool:
    """Return whether the claim and the volume name each other.

    The user may write the name of any volume into a given claim, also that of the volume that is being filled.
    """
    return claim.spec.volume_name == volume.name and (not is_given or given_claim.is_reserved(volume, claim))


def release_volume(observed: ObservedRestore) -> tuple[Action, ...]:
    """Return the action that unmarks the volume of an ended restore: it stays with its claim, or is reclaimed.

    A volume that is reserved for a claim that nobody creates would stay Available forever. So its reservation gets a
    UID that no claim has, and the PersistentVolume controller marks it Released (syncVolume).
    """
    volume, restore, target = observed.volume, observed.restore, observed.target
    if volume is None or not _is_marked(volume, observed) or children.belongs_to(observed.staging_claim, restore):
        return ()
    if is_scratch(restore):
        return (unmark_scratch(volume),)
    # Users can set our labels and owner on their claim again, so they must not delay this once the restore is complete.
    is_handed_over = restore.own_phase is RestorePhase.AVAILABLE and target is not None and target.is_bound
    return () if is_left(target, observed) and not is_handed_over else (unmark(volume, target),)


def unmark(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> PatchVolume:
    """Remove the mark of a volume and restore its reclaim policy; see `release_volume`.

    A volume that was provisioned for the restore and never handed over is deleted, whatever its StorageClass says.
    """
    reference, uid = volume.spec.claim_ref, volume.metadata.labels[RESTORE_LABEL]
    is_wanted = claim is not None and claim.spec.volume_name == volume.name
    is_stranded = reference is not None and not reference.uid and not is_wanted
    spec: dict[str, Any] = {"claimRef": {"uid": uid}} if is_stranded else {}
    is_temporary = TEMPORARY_ANNOTATION in volume.metadata.annotations
    if is_temporary and not is_wanted and (not _was_handed_over(volume, uid) or _was_refused(volume, claim)):
        spec["persistentVolumeReclaimPolicy"] = "Delete"
    return _unmark(volume, spec)


def unmark_scratch(volume: PersistentVolume) -> PatchVolume:
    """Remove the mark of a scratch volume, so that it goes with its claim, whatever its StorageClass says.

    A volume that was not provisioned for the restore gets its policy back.
    """
    reference, uid = volume.spec.claim_ref, volume.metadata.labels[RESTORE_LABEL]
    is_reserved = reference is not None and not reference.uid
    spec: dict[str, Any] = {"claimRef": {"uid": uid}} if is_reserved else {}
    if TEMPORARY_ANNOTATION in volume.metadata.annotations:
        spec["persistentVolumeReclaimPolicy"] = "Delete"
    return _unmark(volume, spec)


def _was_handed_over(volume: PersistentVolume, uid: str) -> bool:
    """Return whether the volume was bound to another claim than the staging claim of the restore with this UID."""
    reference = volume.spec.claim_ref
    return reference is not None and bool(reference.uid) and reference.name != labels.child_name(uid)


def _was_refused(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> bool:
    """Return whether the claim that the volume is reserved for was bound to another one, so that nobody has used it."""
    reference = volume.spec.claim_ref
    is_same = claim is not None and reference is not None and reference.uid == claim.uid
    return is_same and claim is not None and claim.spec.volume_name not in ("", volume.name)


def keep_volume(volume: PersistentVolume) -> PatchVolume:
    """Remove the mark of a volume and keep the reclaim policy Retain: somebody may have written to the volume."""
    return _patch(volume, {"metadata": _no_marks(volume)})


def judge_orphan(
    volume: PersistentVolume, claim: PersistentVolumeClaim | None, uid: str
) -> tuple[PatchVolume, RecordEvent]:
    """Return what to do about a marked volume whose VolumeRestore somebody removed by force.

    Nothing else would restore the reclaim policy of such a volume. A volume that was bound to a claim is kept.

    Args:
        volume: the marked volume.
        claim: the claim that its claimRef names, if that exists.
        uid: the UID of the VolumeRestore.
    """
    reference = volume.spec.claim_ref
    is_lost = claim is None or claim.metadata.is_being_deleted or (reference is not None and claim.uid != reference.uid)
    if reference is not None and _was_handed_over(volume, uid) and is_lost:
        cause = f"VolumeRestore {uid} and PersistentVolumeClaim {reference.namespace}/{reference.name} do not exist"
        note = f"{cause} any more. The volume was bound to that claim and is kept. Delete it if nobody needs its data."
        return keep_volume(volume), RecordEvent("Warning", Reason.VOLUME_KEPT, note)
    note = f"VolumeRestore {uid} no longer exists. The volume gets its reclaim policy back."
    return unmark(volume, claim), RecordEvent("Warning", Reason.VOLUME_ABANDONED, note)


def is_child(claim: PersistentVolumeClaim | None, restore: VolumeRestore) -> TypeGuard[PersistentVolumeClaim]:
    """Return whether the restore created the claim and has not released it.

    Both the owner and the label must match: users can make the restore an owner of their own claims.
    """
    return children.is_ours(claim, restore.uid) and claim.metadata.labels.get(labels.OWNER_UID_LABEL) == restore.uid


def is_left(claim: PersistentVolumeClaim | None, observed: ObservedRestore) -> TypeGuard[PersistentVolumeClaim]:
    """Return whether the restore created the claim, and still has to release or delete it.

    A claim that lost its owner to `kubectl delete --cascade=orphan` has our label, and requests the marked volume.
    """
    if claim is None or is_child(claim, observed.restore):
        return claim is not None
    volume, metadata = observed.volume, claim.metadata
    is_labelled = metadata.labels.get(labels.OWNER_UID_LABEL) == observed.restore.uid
    is_orphan = is_labelled and not metadata.owner_references
    return is_orphan and volume is not None and _is_marked(volume, observed) and claim.spec.volume_name == volume.name


def keeps_scratch(restore: VolumeRestore) -> bool:
    """Return whether the scratch volume of a restore that is complete stays: until the VolumeRestore is deleted."""
    return is_scratch(restore) and restore.own_phase is RestorePhase.AVAILABLE and not restore.metadata.is_being_deleted


def release(claim: PersistentVolumeClaim, restore: VolumeRestore) -> PatchClaim:
    """Release a bound claim to the user: remove our owner reference, labels and annotations."""
    owners = [owner.to_wire() for owner in claim.metadata.owner_references if owner.uid != restore.uid]
    metadata = {
        "resourceVersion": claim.metadata.resource_version,
        "ownerReferences": owners,
        "labels": dict.fromkeys(children.child_labels(restore)),
        "annotations": {labels.OWNER_NAME_ANNOTATION: None, NUDGED_ANNOTATION: None},
    }
    return PatchClaim(claim.name, {"metadata": metadata})


def clean_up_claim(observed: ObservedRestore) -> tuple[Action, ...]:
    """Release or delete our claim whose restore has ended, in whatever phase.

    An unbound claim has no content and is deleted. A bound claim may be in use already, so it is released to the user.
    """
    claim = observed.target
    if not is_left(claim, observed) or claim.metadata.is_being_deleted:
        return ()
    if is_scratch(observed.restore):
        return () if keeps_scratch(observed.restore) else (DeleteChild("PersistentVolumeClaim", claim.name, claim.uid),)
    if claim.is_bound:
        return (release(claim, observed.restore),)
    return (DeleteChild("PersistentVolumeClaim", claim.name, claim.uid),)


def _bound(observed: ObservedRestore, target: PersistentVolumeClaim, volume: PersistentVolume) -> Step | Finished:
    if target.is_bound:
        return Finished(target)
    waiting = _rebinding(observed, f"waiting for PersistentVolumeClaim {target.name} to be bound")
    is_half_bound = volume.status.phase == "Bound" and _is_bound_to(volume, target)
    if is_half_bound and is_child(target, observed.restore) and NUDGED_ANNOTATION not in target.metadata.annotations:
        return Step(waiting, (_nudge(target),))
    return Step(waiting)


def _is_bound_to(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return volume.spec.claim_ref is not None and volume.spec.claim_ref.uid == claim.uid


def _nudge(claim: PersistentVolumeClaim) -> PatchClaim:
    """Change a claim so that Kubernetes' volume controller completes its binding.

    Two workers of the controller set the phase of the volume. If the worker that binds the claim comes second, it gives
    up and tries again when the claim changes, or at its next resync, after up to 15 s (pv_controller.go: bind,
    updateClaim). With Kubernetes 1.35, this happens at every second binding.
    """
    metadata = {"resourceVersion": claim.metadata.resource_version, "annotations": {NUDGED_ANNOTATION: "true"}}
    return PatchClaim(claim.name, {"metadata": metadata})


def _reserve_for_given(observed: ObservedRestore, volume: PersistentVolume) -> Step:
    """Reserve the released volume for the given claim, and wait until Kubernetes binds both."""
    claim = observed.target
    if claim is None:
        raise ValueError("a given claim that is gone ends the hand-over")
    if given_claim.is_reserved(volume, claim):
        return Step(_rebinding(observed, f"waiting for PersistentVolumeClaim {claim.name} to be bound"))
    if volume.status.phase != "Released":
        return Step(_rebinding(observed, "waiting for its PersistentVolume to be released"))
    spec: dict[str, Any] = {"claimRef": given_claim.reservation(claim)}
    if set(claim.spec.access_modes) - set(volume.spec.access_modes):
        # A staging claim must be writable, and the given one may be read-only.
        spec["accessModes"] = list(claim.spec.access_modes)
    patch = {"metadata": {"annotations": {POPULATED_ANNOTATION: claim.uid}}, "spec": spec}
    reserving = _rebinding(observed, f"reserving its PersistentVolume for PersistentVolumeClaim {claim.name}")
    return Step(reserving, (_patch(volume, patch),))


def _reserve_and_claim(observed: ObservedRestore, volume: PersistentVolume) -> Step:
    """Reserve the released volume for the requested name, and create the claim."""
    reference = volume.spec.claim_ref
    name = checks.target_name(observed)
    # A reference with a UID belongs to a claim that was bound and no longer exists.
    reservation = (observed.restore.namespace, name, "")
    is_reserved = reference is not None and (reference.namespace, reference.name, reference.uid) == reservation
    if not is_reserved and volume.status.phase != "Released":
        return Step(_rebinding(observed, "waiting for its PersistentVolume to be released"))
    reserving = _rebinding(observed, f"reserving its PersistentVolume for PersistentVolumeClaim {name}")
    if not is_reserved:
        patch = {"spec": {"claimRef": _reference(observed.restore.namespace, name)}}
        return Step(reserving, (_patch(volume, patch),))
    if volume.status.phase != "Available":
        return Step(reserving)
    if observed.manifest is None:
        return Step(_rebinding(observed, "waiting for the store"))
    request = checks.claim_request(observed)
    if READ_ONLY_MANY in request.access_modes and READ_ONLY_MANY not in volume.spec.access_modes:
        # The staging claim was writable, and the driver learns from the volume how it may be mounted.
        readable: dict[str, Any] = {"spec": {"accessModes": list(request.access_modes)}}
        return Step(reserving, (_patch(volume, readable),))
    body = _requested_claim(observed, replace(request, storage_class=volume.spec.storage_class_name), volume.name)
    return Step(_rebinding(observed, f"creating PersistentVolumeClaim {name}"), (CreateClaim(body),))


def check_claim(observed: ObservedRestore) -> tuple[CheckClaim, ...]:
    """Return the action that tries to create the requested claim before anything is copied. A given claim exists.

    The name of the volume is not known yet. The API server looks up no volume when a claim is created.
    """
    if observed.restore.spec.claim is not None:
        return ()
    request = checks.claim_request(observed)
    return (CheckClaim(_requested_claim(observed, request, f"pvc-{observed.restore.uid}")),)


def _requested_claim(observed: ObservedRestore, request: children.ClaimRequest, volume: str) -> dict[str, Any]:
    """Return the requested claim, with the labels and annotations that the chart wants on every claim."""
    extras = children.extras_of(None, observed.policy.mover)
    return children.restored_claim(observed.restore, checks.target_name(observed), request, volume, extras)


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
    policy = volume.metadata.annotations.get(POLICY_ANNOTATION) or volume.spec.persistent_volume_reclaim_policy
    annotations = {POLICY_ANNOTATION: policy}
    if children.is_made_for(volume, observed.restore.metadata.creation_timestamp):
        annotations[TEMPORARY_ANNOTATION] = "true"
    metadata = {"labels": {RESTORE_LABEL: observed.restore.uid}, "annotations": annotations}
    return _patch(volume, {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": "Retain"}})


def _unmark(volume: PersistentVolume, spec: dict[str, Any]) -> PatchVolume:
    policy = volume.metadata.annotations.get(POLICY_ANNOTATION) or "Delete"
    return _patch(volume, {"metadata": _no_marks(volume), "spec": {"persistentVolumeReclaimPolicy": policy} | spec})


def _no_marks(volume: PersistentVolume) -> dict[str, Any]:
    is_temporary = TEMPORARY_ANNOTATION in volume.metadata.annotations
    marks = (POLICY_ANNOTATION, *((TEMPORARY_ANNOTATION,) if is_temporary else ()))
    return {"labels": {RESTORE_LABEL: None}, "annotations": dict.fromkeys(marks)}


def _patch(volume: PersistentVolume, patch: dict[str, Any]) -> PatchVolume:
    """Return a merge-patch that applies only while the resourceVersion of the volume does not change."""
    metadata = patch.get("metadata", {}) | {"resourceVersion": volume.metadata.resource_version}
    return PatchVolume(volume.name, patch | {"metadata": metadata})


def _rebinding(observed: ObservedRestore, detail: str, requeue_after: float = MIN_REQUEUE_SECONDS) -> Wait:
    return Wait(
        Reason.REBINDING,
        f"The volume is filled; {detail}",
        limit=observed.policy.deadlines.rebind,
        requeue_after=requeue_after,
    )
