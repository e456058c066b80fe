"""``decide`` for a VolumeBackup: accept, snapshot, expose, copy, read back, clean up."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cinderblock.api import labels, layout
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.mover import missed_changes_sentence
from cinderblock.api.origin import Consistency
from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackupStatus
from cinderblock.errors import (
    CinderblockError,
    ForeignManifest,
    ManifestReplaced,
    SealBroken,
    SealedTooLate,
)
from cinderblock.lifecycle import (
    adoption,
    checks,
    conditions,
    deletion,
    dependents,
    movers,
    objects,
    outcomes,
    pinning,
    snapshot_checks,
)
from cinderblock.lifecycle.actions import Action, AddFinalizer, Announce, CreateChild, Decision
from cinderblock.lifecycle.backup_facts import derived_phase, incomplete, newest_failed_restore, with_manifest
from cinderblock.lifecycle.backup_tasks import container_of, data_timestamp, mover_task
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.lifecycle.worlds import BackupWorld

ASKED_AGAIN = 60.0
"""Seconds until the next question to a store that did not say which backups need this one."""

NOT_OURS = (ForeignManifest, ManifestReplaced, SealBroken, SealedTooLate)
"""The store holds something else in the place of a backup's manifest."""

REFUSED_RETRY = 60.0
"""Seconds between looks at a backup whose status was lost, while the store holds something else in its place."""


def decide(world: BackupWorld, now: datetime) -> Decision:
    """What to do about a VolumeBackup.

    Args:
        world: what was seen of it just now.
        now: the instant of the decision, with time zone.
    """
    decision = _decide(world, now)
    return _stamp(decision, world.backup.status, now)


def noticed(world: BackupWorld, waiting: int, now: datetime) -> VolumeBackupStatus | None:
    """What to say of a new backup that has to wait before anybody looks at it; None: something is known of it already.

    Cinder's API answers with ``creating`` at once, however much there is to do.

    Args:
        world: the backup alone.
        waiting: how many objects want to be looked at, this one among them.
        now: the instant of the decision, with time zone.
    """
    backup = world.backup
    if checks.own_phase(backup) or backup.metadata.is_being_deleted or checks.is_forgotten(backup):
        return None
    message = f"The backup waits for its turn: {waiting} objects are to be looked at"
    decision = _stamp(_wait(world, now, Wait(checks.NOTICED, message)), backup.status, now)
    return decision.status if isinstance(decision.status, VolumeBackupStatus) else None


def refused(world: BackupWorld, now: datetime, error: CinderblockError) -> Decision:
    """What to do when an action was refused: what is wrong ends the backup, what may pass is waited for.

    A store that does not remove the data ends nothing: see `deletion.cannot_remove`.
    """
    if world.backup.metadata.is_being_deleted:
        return _stamp(deletion.cannot_remove(world, now, error), world.backup.status, now)
    verdict = outcomes.from_refusal(error, world.policy.deadlines)
    return _stamp(_verdict(world, now, verdict), world.backup.status, now)


def _decide(world: BackupWorld, now: datetime) -> Decision:
    backup, forgotten = world.backup, checks.is_forgotten(world.backup)
    if backup.metadata.is_being_deleted:
        return (_record(world, now) if forgotten else None) or deletion.decide(world, now)
    phase = checks.own_phase(backup)
    if backup.spec.import_ and phase is not BackupPhase.ERROR and phase not in checks.WHOLE:
        return _adopt(world, now)
    spoilt = _spoilt(world) if phase is BackupPhase.CREATING and not forgotten else None
    if spoilt is not None:
        return _fail(world, now, spoilt)
    if phase in checks.WHOLE or (world.manifest is not None and (forgotten or phase is not BackupPhase.ERROR)):
        return _whole(world, now)
    if forgotten and world.manifest_trouble is not None:
        return _recall(world, now, world.manifest_trouble)
    if phase is BackupPhase.ERROR:
        return _failed_before(world)
    if phase is None:
        return _accept(world, now)
    return _create(world, now)


def _spoilt(world: BackupWorld) -> Fail | None:
    """Return why a backup that is being made cannot become a good one, whatever its mover says."""
    if isinstance(world.manifest_trouble, NOT_OURS):
        return Fail(world.manifest_trouble.reason, world.manifest_trouble.message)
    return checks.intruded(world.intruders)


def _refuse_recall(world: BackupWorld, now: datetime, trouble: CinderblockError) -> Decision:
    """Refuse what the store holds, since it must not be taken for a backup whose status was lost. Look again later.

    Somebody may put the manifest right, or allow the store to take an unsealed one.
    """
    cause = "Cannot tell whether the backup is whole: its status was lost."
    remedy = "If it was made without encryption, set spec.allowUnsealed of the BackupStore."
    message = " ".join((cause, *((remedy,) if isinstance(trouble, SealBroken) else ()), trouble.message))
    failed = _fail(world, now, Fail(trouble.reason, message))
    is_told = any(c.type == "Stalled" and c.reason == trouble.reason for c in world.backup.status.conditions)
    return Decision(failed.status, () if is_told else failed.actions, REFUSED_RETRY)


def _recall(world: BackupWorld, now: datetime, trouble: CinderblockError) -> Decision:
    """A status was lost and the store does not say whether the backup is whole: it is not made anew meanwhile."""
    if isinstance(trouble, NOT_OURS):
        return _refuse_recall(world, now, trouble)
    message = f"The status was lost, and the store does not say whether the backup is whole: {trouble.message}"
    return _wait(world, now, Wait(checks.RECALLING, message, look_again=30.0))


def _record(world: BackupWorld, now: datetime) -> Decision | None:
    """A status was lost and the backup is being deleted: write down where its data is, for the deletion to find it."""
    if world.manifest is None and (world.manifest_trouble is not None or world.claim is None):
        return None
    recalled = _wait(world, now, Wait(checks.RECALLING, "The status was lost and is put together again"))
    if world.manifest is None:
        recalled = _with_choices(world, recalled)
    status = recalled.status
    if not isinstance(status, VolumeBackupStatus) or world.store.store is None:
        return None
    status = with_manifest(status, world.manifest) if world.manifest else status
    return Decision(status.model_copy(update={"phase": BackupPhase.DELETING}), look_again=0.0)


def _adopt(world: BackupWorld, now: datetime) -> Decision:
    """What is in the store becomes the status; nothing is copied."""
    verdict = checks.first_verdict(world, adoption.BEFORE_ADOPTION)
    return _whole(world, now) if verdict is None else _verdict(world, now, verdict)


def _accept(world: BackupWorld, now: datetime) -> Decision:
    """Put the finalizer on and write down what was chosen, before anything is made.

    The finalizer comes with the choices and not before: it says that something may be stored.
    A parent is chosen and recorded here, so that its deletion sees a dependent before this backup reads from it.
    """
    verdict = checks.first_verdict(world, checks.BEFORE_COPY)
    if isinstance(verdict, Wait):
        verdict = outcomes.settle(verdict, world.backup.status.conditions, now)
    if isinstance(verdict, Fail):
        return _fail(world, now, verdict)
    if verdict is not None:
        return _wait(world, now, verdict)
    actions: tuple[Action, ...] = ()
    if labels.BACKUP_FINALIZER not in world.backup.metadata.finalizers:
        actions = (AddFinalizer(labels.BACKUP_FINALIZER),)
    accepted = _wait(world, now, Wait("Accepted", "The backup was accepted", look_again=0.0), actions)
    return _with_choices(world, accepted)


def _with_choices(world: BackupWorld, accepted: Decision) -> Decision:
    """The acceptance with what it fixes: the key of the manifest, and the parent of an incremental backup.

    From here on something may be stored: a deletion asks the store. Before, it need not, even if the store is down.
    """
    status, store, claim = accepted.status, world.store.store, world.claim
    if not isinstance(status, VolumeBackupStatus) or store is None or claim is None:
        return accepted
    update: dict[str, Any] = {"manifest_key": layout.manifest_key(store.spec.prefix, claim.uid, world.backup.uid)}
    parent = checks.latest_parent(world) if world.backup.spec.incremental else None
    if parent is not None:
        update |= {"parent_id": parent.backup_id, "is_incremental": True}
    return Decision(status.model_copy(update=update), accepted.actions, accepted.look_again)


def _create(world: BackupWorld, now: datetime) -> Decision:
    """Go on with the next step that has not been done."""
    if not _is_accepted(world):
        return _accept(world, now)
    if world.mover.job is not None:
        return _copying(world, now)
    if world.snapshot is None and world.exposed is None:
        verdict = checks.first_verdict(world, checks.BEFORE_COPY)
        if verdict is not None:
            return _verdict(world, now, verdict)
    return _prepare(world, now)


def _is_accepted(world: BackupWorld) -> bool:
    """Whether the finalizer is on, and what acceptance fixes has been written down."""
    has_finalizer = labels.BACKUP_FINALIZER in world.backup.metadata.finalizers
    return has_finalizer and world.backup.status.manifest_key is not None


def _prepare(world: BackupWorld, now: datetime) -> Decision:
    """Snapshot, expose, start the mover; each step only when the one before it is there."""
    foreign = _foreign_child(world)
    if foreign:
        return _fail(world, now, foreign)
    claim, snapshot = world.claim, world.given_snapshot or world.snapshot
    if claim is None:
        return _fail(world, now, Fail("VolumeNotFound", f"Volume {world.backup.spec.volume_id} could not be found."))
    if world.exposed is not None:
        # What was exposed is what was asked for, even if its snapshot is gone by now.
        return _start(world, now, claim, world.exposed)
    if snapshot is None:
        if world.snapshot_class is None:
            return _start(world, now, claim, claim)
        body = objects.snapshot(world.backup, claim.name, world.snapshot_class.name)
        waiting = _snapshot_not_ready(world, None)
        told = Announce("Normal", "SnapshotRequested", waiting.message)
        return _wait(world, now, waiting, (CreateChild("VolumeSnapshot", body), told))
    if not snapshot.status.ready_to_use:
        return _verdict(world, now, _snapshot_not_ready(world, snapshot))
    return _expose(world, now, claim, snapshot)


def _foreign_child(world: BackupWorld) -> Fail | None:
    """A child's name taken by somebody else's object: never touched, never used."""
    for child in (world.snapshot, world.exposed, world.mover.job):
        if child is not None and not child.metadata.is_owned_by(world.backup.uid):
            return Fail("NameTaken", f"{type(child).__name__} {child.name} exists and is not ours: remove it.")
    return None


def _snapshot_not_ready(world: BackupWorld, snapshot: VolumeSnapshot | None) -> Wait:
    """Wait for a snapshot that is asked for or there: the same status, so that it is written once unless it hangs."""
    error = snapshot.status.error if snapshot else None
    detail = f": {error.message}" if error else ""
    message = f"A snapshot of volume {world.claim.name if world.claim else ''} is being made{detail}"
    return Wait("SnapshotNotReady", message, None, world.policy.deadlines.snapshot, 5.0)


def _expose(world: BackupWorld, now: datetime, claim: PersistentVolumeClaim, snapshot: VolumeSnapshot) -> Decision:
    """Make the snapshot mountable, and start the mover at once: a class may bind only when a pod asks for it."""
    size = max(claim.capacity_bytes, to_bytes(snapshot.status.restore_size or "0"))
    storage_class = snapshot_checks.exposing_class(world) or claim.spec.storage_class_name
    request = objects.ClaimRequest(size, storage_class, claim.spec.volume_mode, claim.spec.access_modes)
    body = objects.claim(world.backup, request, from_snapshot=snapshot.name)
    started = _start(world, now, claim, None)
    return Decision(started.status, (CreateChild("PersistentVolumeClaim", body), *started.actions), started.look_again)


def _start(
    world: BackupWorld, now: datetime, claim: PersistentVolumeClaim, mounted: PersistentVolumeClaim | None
) -> Decision:
    """Start the mover on ``mounted``; None: on our own claim, which is being made."""
    store = world.store.store
    if store is None:
        return _fail(world, now, Fail("StoreNotFound", world.store.missing))
    queued = movers.queued(world.mover, world.policy, store)
    if queued:
        return _wait(world, now, queued)
    parent_problem = checks.parent_is_there(world)
    if isinstance(parent_problem, Fail):
        return _fail(world, now, parent_problem)
    claim_name = mounted.name if mounted else labels.child_name(world.backup.uid)
    consistency = Consistency.LIVE if mounted is claim else Consistency.SNAPSHOT
    task = mover_task(world, store, claim, consistency)
    job = objects.mover_job(world.backup, task, store, claim_name, world.policy.mover)
    waiting = movers.starting(world.policy)
    told = Announce("Normal", "MoverStarted", f"The mover Job {job['metadata']['name']} copies volume {claim.name}")
    return _wait(world, now, waiting, (CreateChild("Job", job), told))


def _copying(world: BackupWorld, now: datetime) -> Decision:
    """The mover exists: see how it does, and believe only what can be read back from the store."""
    foreign = _foreign_child(world)
    if foreign:
        return _fail(world, now, foreign)
    start = movers.start(world.mover)
    if start is not None:
        return _wait(world, now, movers.starting(world.policy), (start,))
    verdict = movers.judge(world.mover, world.policy)
    if not isinstance(verdict, movers.Done):
        return _verdict(world, now, movers.watched(verdict, world.mover, _base(world), now, world.policy.deadlines))
    if world.manifest_trouble is not None:
        return _verdict(world, now, checks.trouble(world.manifest_trouble, world.policy.deadlines))
    return _fail(
        world, now, Fail("ManifestMissing", "The mover reported success, but the store has no manifest of the backup")
    )


def _whole(world: BackupWorld, now: datetime) -> Decision:
    """The backup is in the store: say so, derive what others make of it, and remove what was made on the way."""
    before = _base(world)
    status = pinning.recorded(world, before)
    failed = newest_failed_restore(world)
    status = status.model_copy(
        update={
            "phase": derived_phase(world),
            "fail_reason": failed.status.fail_reason if failed else None,
            "progress": None,
            "has_dependent_backups": dependents.exist(world),
            "conditions": _whole_conditions(world, now, status),
        }
    )
    actions = _cleanup(world)
    if checks.own_phase(world.backup) not in checks.WHOLE:
        # What the Job reported is recorded first; the next look at the world removes the Job.
        told = (*outcomes.losses(movers.success(world.mover)), *_missed_changes(status), *_files_unreadable(status))
        actions = (*told, Announce("Normal", "Available", _summary(status)))
    actions = (*_finalizer_again(world), *actions, *pinning.told(world))
    is_new = checks.own_phase(world.backup) not in checks.WHOLE
    asked_in_vain = world.references_trouble is not None and world.needed_by is None
    return Decision(status, actions, look_again=0.0 if is_new else ASKED_AGAIN if asked_in_vain else None)


def _files_unreadable(status: VolumeBackupStatus) -> tuple[Action, ...]:
    lacks = incomplete(status)
    return (Announce("Warning", "FilesUnreadable", lacks),) if lacks else ()


def _missed_changes(status: VolumeBackupStatus) -> tuple[Action, ...]:
    """Return an Event about changes that earlier backups may lack. The manifest counts them, so a crash loses none."""
    missed = status.missed_changes
    return (Announce("Warning", "ChangeMissed", missed_changes_sentence(missed)),) if missed else ()


def _whole_conditions(world: BackupWorld, now: datetime, status: VolumeBackupStatus) -> list[Condition]:
    """Return Ready, and Complete as False if files are missing. A complete backup has no condition Complete."""
    generation, lacks = world.backup.metadata.generation, incomplete(status)
    message = "The backup is whole in the store" + (", but files are missing: see condition Complete" if lacks else "")
    shown = pinning.shown(world, now, message)
    if lacks is None:
        return conditions.without(shown, ConditionType.COMPLETE)
    return conditions.with_lasting(
        shown, now, generation, kind=ConditionType.COMPLETE, status="False", reason="FilesUnreadable", message=lacks
    )


def _summary(status: VolumeBackupStatus) -> str:
    size = f"{status.object_count} objects, {status.stored_bytes} bytes"
    return f"Backup of volume {status.volume_name} is available: {size}"


def _failed_before(world: BackupWorld) -> Decision:
    """An error is final; what was made on the way is removed."""
    return Decision(_mirrored(world, world.backup.status), (*_finalizer_again(world), *_cleanup(world)))


def _finalizer_again(world: BackupWorld) -> tuple[Action, ...]:
    """Our finalizer, where something is stored and it is not there: an uninstalled release had taken it off."""
    stored = world.backup.status.manifest_key is not None or world.manifest is not None
    missing = labels.BACKUP_FINALIZER not in world.backup.metadata.finalizers
    return (AddFinalizer(labels.BACKUP_FINALIZER),) if stored and missing else ()


def _cleanup(world: BackupWorld) -> tuple[Action, ...]:
    return outcomes.cleanup(world.backup.uid, world.mover.job, world.exposed, world.snapshot)


def _verdict(world: BackupWorld, now: datetime, verdict: Fail | Wait) -> Decision:
    if isinstance(verdict, Wait):
        verdict = outcomes.settle(verdict, world.backup.status.conditions, now)
    return _fail(world, now, verdict) if isinstance(verdict, Fail) else _wait(world, now, verdict)


def _wait(
    world: BackupWorld, now: datetime, wait: Wait, actions: tuple[Action, ...] = (), look_again: float | None = None
) -> Decision:
    base = _base(world)
    status = base.model_copy(
        update={
            "phase": BackupPhase.CREATING,
            "progress": movers.to_progress(world.mover.progress) or base.progress,
            "conditions": conditions.working(
                base.conditions,
                now,
                world.backup.metadata.generation,
                wait.reason,
                outcomes.awaited(wait, base.conditions, now),
            ),
        }
    )
    return Decision(status, actions, wait.look_again if look_again is None else look_again)


def _fail(world: BackupWorld, now: datetime, fail: Fail) -> Decision:
    base = _base(world)
    status = base.model_copy(
        update={
            "phase": BackupPhase.ERROR,
            "fail_reason": outcomes.said(fail),
            "progress": None,
            "conditions": conditions.stalled(
                base.conditions, now, world.backup.metadata.generation, fail.reason, fail.message
            ),
        }
    )
    return Decision(status, (Announce("Warning", fail.reason, fail.message),), look_again=0.0)


def _base(world: BackupWorld) -> VolumeBackupStatus:
    """The status as far as it does not depend on the outcome: Cinder's response repeats the request."""
    backup, claim, store = world.backup, world.claim, world.store.store
    status = backup.status if checks.own_phase(backup) else VolumeBackupStatus()
    update: dict[str, Any] = checks.identity(backup) | {"created_at": backup.metadata.creation_timestamp}
    if claim is not None and status.phase not in checks.WHOLE:
        parent = checks.recorded_parent_id(world)
        update |= {
            "volume_id": claim.uid,
            "volume_name": claim.name,
            "size": to_gib(claim.capacity_bytes),
            "parent_id": parent,
            "is_incremental": parent is not None,
            "data_timestamp": data_timestamp(world),
        }
    if store is not None and status.container is None:
        update |= {"store_name": store.name, "container": container_of(world, store)}
    if world.given_snapshot is not None:
        update["snapshot_id"] = world.given_snapshot.uid
    if status.object_count is None:
        update |= {"object_count": 0, "has_dependent_backups": False}
    return _mirrored(world, status.model_copy(update=update))


def _mirrored(world: BackupWorld, status: VolumeBackupStatus) -> VolumeBackupStatus:
    """What the user may change at any time, and the generation that it was read from."""
    spec = world.backup.spec
    return status.model_copy(
        update={
            "name": spec.name,
            "description": spec.description,
            "metadata": spec.metadata or None,
            "availability_zone": spec.availability_zone,
            "observed_generation": world.backup.metadata.generation,
        }
    )


def _stamp(decision: Decision, before: VolumeBackupStatus, now: datetime) -> Decision:
    """updatedAt moves only when something else does."""
    status = decision.status
    if not isinstance(status, VolumeBackupStatus):
        return decision
    unchanged = status.model_copy(update={"updated_at": before.updated_at}) == before
    stamped = before if unchanged else status.model_copy(update={"updated_at": now})
    return Decision(stamped, decision.actions, decision.look_again)
