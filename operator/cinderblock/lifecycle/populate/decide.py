"""``decide`` for a claim that asks for its content: judge it, choose its backup, and create its VolumeRestore.

The VolumeRestore records the choice: while it exists, nothing is chosen again. The claim itself is never written to, so
a copy of its annotations, for example by a backup of Kubernetes objects, says nothing about another claim.

Everything that fails or is in doubt leaves the claim unbound. Only a VolumeRestore fills it, or leaves it empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.restore import GivenClaim, RestorePhase, VolumeRestore, VolumeRestoreSpec
from cinderblock.api.v1alpha1.restore_source import OnMissing
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, CreateChild, RecordEvent
from cinderblock.lifecycle.populate.choice import CannotTell, Chosen, Looking, NoBackup
from cinderblock.lifecycle.populate.observed import ObservedClaim
from cinderblock.lifecycle.restore import given_claim
from cinderblock.reasons import Reason, parse_reason

NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
"""Provisioner of classes whose volumes an administrator creates (Kubernetes: Local volumes)."""
IMMEDIATE: Final = "Immediate"
"""Value of BIND_ANNOTATION."""
WAIT_SECONDS: Final = 60.0
"""Seconds until a claim is judged again that waits for the store, or for a person."""
MISSING_SECONDS: Final = 600.0
"""The same with onMissing Fail."""
BACKUP_SECONDS: Final = 10.0
"""Seconds until a VolumeBackup is read again that is being created or imported."""
YOUNG: Final = timedelta(days=1)
"""Age of a bound claim from which a start of the operator does not judge it again."""


@dataclass(frozen=True, slots=True)
class ImportChosen:
    """Create a VolumeBackup for the chosen backup."""

    chosen: Chosen


@dataclass(frozen=True, slots=True)
class ClaimDecision:
    """The next step of a claim.

    Attributes:
        report: the Event that tells its state; None: there is nothing to tell.
        action: the next write; None: there is none.
        requeue_after: seconds until the claim is judged again; None: not before something changes.
        must_look: whether the store must be searched first.
    """

    report: RecordEvent | None = None
    action: CreateChild | ImportChosen | None = None
    requeue_after: float | None = None
    must_look: bool = False


def decide(observed: ObservedClaim) -> ClaimDecision:
    """Return the next step of a claim whose dataSourceRef names one of our kinds."""
    claim = observed.claim
    if claim.metadata.is_being_deleted or not claim.asks_for_backup:
        return ClaimDecision()
    if claim.spec.volume_name:
        return _bound(observed)
    unusable = given_claim.refusal_of_source(claim)
    if unusable is not None:
        return ClaimDecision(RecordEvent("Warning", Reason.INVALID_INPUT, unusable))
    if observed.restore is not None:
        return _follow(observed, observed.restore)
    refusal = _refusal(observed)
    if refusal is not None:
        return _wait(refusal)
    if observed.waits_for_node and claim.metadata.annotations.get(labels.BIND_ANNOTATION) != IMMEDIATE:
        # Kubernetes itself tells with its Event WaitForFirstConsumer.
        return ClaimDecision(requeue_after=WAIT_SECONDS)
    source = claim.spec.data_source_ref
    if source is not None and source.kind == "VolumeBackup":
        return _restore_backup(observed, source.name)
    return _from_source(observed)


def _bound(observed: ObservedClaim) -> ClaimDecision:
    """Say whether the claim got the volume that was filled for it."""
    claim = observed.claim
    if not given_claim.holds_backup(observed.volume, claim):
        return ClaimDecision(RecordEvent("Warning", Reason.BOUND_ELSEWHERE, given_claim.bound_elsewhere(claim)))
    if observed.restore is None:
        return ClaimDecision()
    if not claim.is_bound or not observed.restore.has_ended:
        return ClaimDecision(requeue_after=MIN_REQUEUE_SECONDS)
    if observed.restore.own_phase is not RestorePhase.AVAILABLE:
        # Somebody deleted the VolumeRestore that filled the volume, and the next one came too late.
        return ClaimDecision()
    is_empty = observed.restore.fills_nothing
    content = "is empty" if is_empty else f"holds backup {observed.restore.spec.backup_id}"
    note = f"PersistentVolume {claim.spec.volume_name} {content} (VolumeRestore {observed.restore.name})"
    return ClaimDecision(RecordEvent("Normal", Reason.POPULATED, note))


def _follow(observed: ObservedClaim, restore: VolumeRestore) -> ClaimDecision:
    """Report how far the restore is, and why it fails."""
    given = restore.spec.claim
    if given is None or given.uid != observed.claim.uid or not restore.metadata.is_owned_by(observed.claim.uid):
        message = f"VolumeRestore {restore.name} has the name of the restore for this claim, and is not. Delete it."
        return _wait(RecordEvent("Warning", Reason.NAME_TAKEN, message))
    if restore.own_phase is RestorePhase.ERROR_RESTORING:
        cause = f"VolumeRestore {restore.name} failed: {restore.status.fail_reason}"
        message = f"{cause}. The claim stays unbound. Remove the cause and delete the VolumeRestore: it is made again."
        return _wait(RecordEvent("Warning", Reason.NOT_POPULATED, message))
    shown = next((c.reason for c in restore.status.conditions if c.type == "Reconciling"), "")
    percent = restore.status.progress.percent if restore.status.progress is not None else None
    progress = f", {percent // 10 * 10} %" if percent is not None else ""
    detail = f" ({parse_reason(shown)}{progress})" if shown else ""
    note = f"VolumeRestore {restore.name} fills a new volume{detail}"
    return ClaimDecision(RecordEvent("Normal", Reason.POPULATING, note), requeue_after=BACKUP_SECONDS)


def _refusal(observed: ObservedClaim) -> RecordEvent | None:
    """Return why no volume can be made for the claim."""
    name, storage_class = observed.claim.spec.storage_class_name, observed.storage_class
    if not name:
        return _unsupported("it names no StorageClass, so no volume can be created for it")
    if storage_class is None:
        return RecordEvent("Warning", Reason.STORAGE_CLASS_NOT_FOUND, f"StorageClass {name} could not be found.")
    if storage_class.provisioner == NO_PROVISIONER:
        return _unsupported(f"StorageClass {name} creates no volumes")
    if observed.claim.spec.selector:
        return _unsupported("it has a selector, which no new volume matches")
    return None


def _unsupported(cause: str) -> RecordEvent:
    note = f"Cannot fill the claim: {cause}. Create it again with a StorageClass that creates volumes."
    return RecordEvent("Warning", Reason.CLASS_NOT_SUPPORTED, note)


def _restore_backup(observed: ObservedClaim, name: str) -> ClaimDecision:
    """Restore the VolumeBackup that the claim names, when it is available."""
    backup = observed.backup
    if backup is None:
        message = f"VolumeBackup {name} could not be found. The claim waits for it."
        return _wait(RecordEvent("Warning", Reason.SOURCE_NOT_FOUND, message), BACKUP_SECONDS)
    if not backup.is_complete or backup.metadata.is_being_deleted:
        return _wait(_not_available(observed), BACKUP_SECONDS)
    return _create(observed, backup.backup_id)


def _not_available(observed: ObservedClaim) -> RecordEvent:
    backup = observed.backup
    name, phase = (backup.name, backup.own_phase or "new") if backup is not None else ("", "")
    is_failed = backup is not None and (backup.has_ended or backup.metadata.is_being_deleted)
    message = f"VolumeBackup {name} is not available ({phase}). The claim waits for it."
    return RecordEvent("Warning" if is_failed else "Normal", Reason.BACKUP_NOT_AVAILABLE, message)


def _from_source(observed: ObservedClaim) -> ClaimDecision:
    """Choose a backup in the store of a RestoreSource, and restore it."""
    reference, source = observed.claim.spec.data_source_ref, observed.source
    if source is None:
        named = f"{reference.kind} {reference.name}" if reference is not None else "RestoreSource"
        message = f"{named} could not be found. The claim waits for it."
        return _wait(RecordEvent("Warning", Reason.SOURCE_NOT_FOUND, message), BACKUP_SECONDS)
    if source.spec.suspend or source.metadata.is_being_deleted:
        return _wait(RecordEvent("Normal", Reason.SUSPENDED, f"RestoreSource {source.name} is suspended."))
    if observed.store.store is None:
        return _wait(RecordEvent("Warning", observed.store.missing_reason, observed.store.missing))
    match observed.outcome:
        case None:
            return ClaimDecision(must_look=True)
        case Looking(message, seconds):
            return ClaimDecision(RecordEvent("Normal", Reason.LOOKING, message), requeue_after=seconds)
        case CannotTell(reason, message):
            return _wait(RecordEvent("Warning", reason, f"{message} The claim waits."))
        case NoBackup() as missing:
            return _missing(observed, missing, source.spec.on_missing, allow_empty_store=source.spec.allow_empty_store)
        case Chosen() as chosen:
            return _restore_chosen(observed, chosen)


def _missing(
    observed: ObservedClaim, missing: NoBackup, on_missing: OnMissing, *, allow_empty_store: bool
) -> ClaimDecision:
    """Apply spec.onMissing. Only here, a claim may get an empty volume."""
    if on_missing is OnMissing.FAIL:
        return _wait(RecordEvent("Warning", Reason.NO_BACKUP, f"{missing.message} The claim waits."), MISSING_SECONDS)
    if on_missing is OnMissing.WAIT:
        return _wait(RecordEvent("Normal", Reason.NO_BACKUP, f"{missing.message} The claim waits."))
    if not missing.stored and not allow_empty_store:
        message = "The store holds no backup of any volume: it may be the wrong bucket. If it is a new one, create"
        remedy = "the RestoreSource again with allowEmptyStore. The claim waits."
        return _wait(RecordEvent("Warning", Reason.CANNOT_TELL, f"{message} {remedy}"))
    if observed.waits_for_node:
        # Nothing can be filled before there is a pod, and only the scheduler knows where the volume is needed.
        return ClaimDecision(requeue_after=WAIT_SECONDS)
    return _create(observed, None)


def _restore_chosen(observed: ObservedClaim, chosen: Chosen) -> ClaimDecision:
    backup, stored = observed.backup, chosen.manifest.stored
    if observed.has_other_backup and backup is not None:
        message = f"VolumeBackup {backup.name} has the id of backup {stored.backup_id}, and is not in its place."
        return _wait(RecordEvent("Warning", Reason.ID_TAKEN, f"{message} The claim waits."))
    if backup is None:
        note = f"Backup {stored.backup_id} was chosen, with data of {chosen.manifest.data_time:%Y-%m-%dT%H:%M:%SZ}"
        return ClaimDecision(RecordEvent("Normal", Reason.IMPORTING, note), ImportChosen(chosen), 0.0)
    if not backup.is_complete or backup.metadata.is_being_deleted:
        return _wait(_not_available(observed), BACKUP_SECONDS)
    return _create(observed, backup.backup_id)


def _create(observed: ObservedClaim, backup_id: str | None) -> ClaimDecision:
    """Create the VolumeRestore, which records the choice."""
    body = restore_body(observed.claim, backup_id)
    content = f"is filled from backup {backup_id}" if backup_id is not None else "stays empty"
    note = f"VolumeRestore {body['metadata']['name']} makes a new volume, which {content}"
    return ClaimDecision(
        RecordEvent("Normal", Reason.POPULATING, note), CreateChild("VolumeRestore", body), MIN_REQUEUE_SECONDS
    )


def restore_body(claim: PersistentVolumeClaim, backup_id: str | None) -> dict[str, Any]:
    """Return the VolumeRestore for a claim. The claim owns it, so that it goes with the claim.

    Args:
        claim: the claim.
        backup_id: id of the backup; None: the claim gets an empty volume.
    """
    reference = claim.spec.data_source_ref
    named = reference.name if reference is not None and reference.kind == "RestoreSource" else None
    given = GivenClaim(name=claim.name, uid=claim.uid, empty=backup_id is None)
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name, "uid": claim.uid}
    spec = VolumeRestoreSpec(backup_id=backup_id, claim=given)
    return {
        "apiVersion": f"{labels.GROUP}/{labels.VERSION}",
        "kind": "VolumeRestore",
        "metadata": {
            "name": labels.populate_name(claim.uid),
            "namespace": claim.namespace,
            "labels": {
                labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
                labels.OWNER_KIND_LABEL: "PersistentVolumeClaim",
                labels.OWNER_UID_LABEL: claim.uid,
            },
            "annotations": {labels.SOURCE_ANNOTATION: named} if named is not None else {},
            "ownerReferences": [owner | {"controller": False, "blockOwnerDeletion": False}],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }


def _wait(report: RecordEvent, seconds: float = WAIT_SECONDS) -> ClaimDecision:
    return ClaimDecision(report, requeue_after=seconds)
