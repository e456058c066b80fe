"""Mutual exclusion on a volume: one operation at a time, in order of age."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Final

from cinderblock.api import labels
from cinderblock.api.conditions import ConditionType
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle.verdicts import Deadlines, Wait
from cinderblock.reasons import Reason, parse_reason

Operation = VolumeBackup | VolumeRestore


class OperationState(Enum):
    """How far an operation in progress is, as far as other operations on its volume need to know."""

    WAITING = auto()
    """It has not touched its volume and waits for its turn."""
    HELD_UP = auto()
    """It has not touched its volume and cannot begin, so others need not wait for it."""
    WORKING = auto()
    """It may have touched its volume."""


STATE_BY_REASON: Final[Mapping[Reason, OperationState]] = {
    **dict.fromkeys(
        (
            *(Reason.ACCEPTED, Reason.NAME_TAKEN, Reason.NOTICED, Reason.QUEUED, Reason.VOLUME_BUSY),
            Reason.TOO_MANY_OBJECTS,
        ),
        OperationState.WAITING,
    ),
    **dict.fromkeys(
        (
            *(Reason.NOT_S3, Reason.RECALLING, Reason.SNAPSHOT_NOT_AVAILABLE, Reason.STORE_UNREACHABLE),
            *(Reason.VOLUME_NOT_BOUND, Reason.VOLUME_STILL_ATTACHED, Reason.THROTTLED, Reason.STORE_TOO_SLOW),
            *(Reason.BROKER_UNAVAILABLE, Reason.MANIFEST_MISPLACED, Reason.NOT_GRANTED),
        ),
        OperationState.HELD_UP,
    ),
    **dict.fromkeys(
        (
            # Steps of the copy.
            *(Reason.SNAPSHOT_REQUESTED, Reason.SNAPSHOT_NOT_READY, Reason.MOVER_STARTED, Reason.MOVER_PENDING),
            *(Reason.MOVER_STARTING, Reason.MOVER_RUNNING, Reason.MOVER_RETRYING, Reason.MOVER_STALLED),
            *(Reason.MOVER_UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.REBINDING),
            *(Reason.CLAIM_NOT_BOUND, Reason.MOVER_SUSPENDED, Reason.MOVER_REFUSED, Reason.LIMIT_RANGE_VIOLATED),
            # The end of an operation, and deletions, which may wait for a mover.
            *(Reason.AVAILABLE, Reason.RESTORED, Reason.STATUS_LOST, Reason.STATUS_RESET, Reason.CANCELLED),
            *(
                Reason.CANCELLING,
                Reason.STOPPING_MOVER,
                Reason.CHILDREN_REMAIN,
                Reason.BACKUP_IN_USE,
                Reason.HAS_DEPENDENT_BACKUPS,
            ),
            *(Reason.READING_REFERENCES, Reason.REFERENCES_UNKNOWN, Reason.DELETING_DATA, Reason.DELETED),
            *(Reason.EXPIRED, Reason.HIDDEN, Reason.RETAINED, Reason.DATA_LEFT),
            *(Reason.VOLUME_ABANDONED, Reason.VOLUME_KEPT),
            # Actions that the API server or the store rejected, in the middle of an operation or before it.
            *(Reason.ACCESS_DENIED, Reason.ALREADY_EXISTS, Reason.CONFLICT, Reason.INVALID_INPUT),
            *(Reason.KUBE_UNAVAILABLE, Reason.NAMESPACE_TERMINATING, Reason.NOT_FOUND, Reason.NOT_LEADING),
            *(Reason.POD_SECURITY_VIOLATION, Reason.QUOTA_EXCEEDED, Reason.UNAUTHORIZED),
            *(Reason.STORE_NOT_FOUND, Reason.STORE_BEING_DELETED, Reason.STORE_FULL, Reason.STORE_REFUSES),
            *(Reason.STORE_READ_ONLY, Reason.OBJECT_LOCK_UNAVAILABLE, Reason.LOCK_NOT_EXTENDED),
            Reason.FOREIGN_OWNER,
            *(Reason.CONTAINER_NOT_FOUND, Reason.NOT_TLS, Reason.CERTIFICATE_NOT_TRUSTED, Reason.LOCKED),
            *(Reason.ARCHIVED, Reason.TOO_LARGE, Reason.WRONG_REGION, Reason.CREDENTIALS_EXPIRED, Reason.CLOCK_SKEWED),
            *(Reason.ENDPOINT_NOT_ALLOWED, Reason.CLUSTER_STORE_NOT_FOUND, Reason.STORE_NOT_ALLOWED),
            *(Reason.FORMER_NAMESPACE_REFUSED, Reason.BROKER_DISABLED, Reason.UNSIGNED_HEADERS_ACCEPTED),
            # Claims that ask for a backup: most are reasons of Events only.
            *(Reason.BOUND_ELSEWHERE, Reason.CLASS_NOT_SUPPORTED, Reason.SOURCE_NOT_FOUND, Reason.LOOKING),
            *(Reason.CANNOT_TELL, Reason.NO_BACKUP, Reason.POPULATING, Reason.POPULATED, Reason.NOT_POPULATED),
            *(Reason.GRANTED, Reason.NOTHING_GRANTED, Reason.NAMESPACE_REPLACED, Reason.STORE_NOT_SHARED),
            *(Reason.NAMESPACE_ABSENT, Reason.READ_ELSEWHERE),
            *(Reason.SECRET_NOT_FOUND, Reason.SECRET_INCOMPLETE, Reason.KEY_UNAVAILABLE, Reason.READ_ONLY_KEY),
            # Failures of checks, movers and stored data.
            *(Reason.VOLUME_NOT_FOUND, Reason.VOLUME_LOST, Reason.VOLUME_NOT_AVAILABLE, Reason.VOLUME_IN_USE),
            *(Reason.VOLUME_TOO_SMALL, Reason.VOLUME_MODE_MISMATCH, Reason.STORAGE_CLASS_NOT_FOUND),
            *(Reason.SNAPSHOT_NOT_FOUND, Reason.SNAPSHOT_MISMATCH, Reason.SNAPSHOT_CLASS_NOT_FOUND),
            *(Reason.BACKUP_NOT_FOUND, Reason.BACKUP_NOT_AVAILABLE, Reason.NO_PARENT, Reason.PARENT_GONE),
            *(Reason.ID_TAKEN, Reason.MANIFEST_MISSING, Reason.MANIFEST_REPLACED),
            *(Reason.FOREIGN_MANIFEST, Reason.SEAL_BROKEN, Reason.SEALED_TOO_LATE, Reason.INTEGRITY_ERROR),
            *(Reason.UNSUPPORTED_FORMAT, Reason.MOVER_FAILED, Reason.MOVER_DIED, Reason.MOVER_DELETED),
            Reason.MOVER_NOT_PERMITTED,
            *(Reason.MOVER_OUT_OF_MEMORY, Reason.OVERTAKEN, Reason.TERMINATED, Reason.UNEXPECTED),
            *(Reason.SOURCE_ERROR, Reason.SOURCE_CHANGING, Reason.SOURCE_VANISHED, Reason.TARGET_ERROR),
            # Reasons that no operation waits for.
            *(Reason.ANSWERS, Reason.IN_USE, Reason.NOT_ENCRYPTED, Reason.FILES_UNREADABLE, Reason.CHANGE_MISSED),
            *(Reason.EMPTY, Reason.INCOMPRESSIBLE, Reason.SHRUNK, Reason.FEWER_ENTRIES, Reason.MANY_CHANGES),
            *(Reason.ALARM_ACCEPTED, Reason.ALARM_UNKNOWN, Reason.VERIFIED, Reason.DAMAGED, Reason.NOT_ALL_READ),
            *(Reason.SCHEDULED, Reason.SUSPENDED, Reason.INVALID_SCHEDULE, Reason.INVALID_TIME_ZONE),
            *(Reason.INVALID_SELECTOR, Reason.VOLUMES_SELECTED, Reason.NO_VOLUMES, Reason.NO_STORE),
            *(Reason.RUN_IN_PROGRESS, Reason.RUN_COMPLETED, Reason.RUN_INCOMPLETE, Reason.MISSED),
            *(Reason.RULES_APPLIED, Reason.RULES_REFUSED, Reason.RULES_NOT_APPLIED, Reason.CLOCK_DIFFERS),
            *(Reason.VERIFICATIONS_CREATED, Reason.VERIFICATIONS_REFUSED),
            # Verifications, which use no volume of a user.
            *(Reason.DATA_TOO_OLD, Reason.DRILL_RESTORING, Reason.CHECK_PENDING, Reason.CHECK_RUNNING),
            *(Reason.CHECK_FAILED, Reason.CHECK_INTERRUPTED, Reason.CHECK_NOT_FOUND, Reason.CHECK_NOT_PERMITTED),
            Reason.TIMED_OUT,
            *(Reason.NOT_ALL_KEPT, Reason.PATH_NOT_FOUND, Reason.NOT_IN_VERSION, Reason.NOT_ACCEPTABLE),
            *(Reason.REQUEST_TIMEOUT, Reason.REQUEST_TOO_LARGE, Reason.UNSUPPORTED_MEDIA_TYPE),
            *(Reason.UNVERSIONED, Reason.VERSIONS_KEPT, Reason.VERSIONS_EXPIRE, Reason.NO_OBJECT_LOCK),
            *(Reason.OBJECT_LOCK_ENABLED, Reason.DEFAULT_RETENTION, Reason.BACKUPS_EXPIRE, Reason.BACKUPS_ARCHIVED),
            *(Reason.NO_HARMFUL_RULE, Reason.STORAGE_CLASS_UNKNOWN, Reason.NOT_SUPPORTED),
            *(Reason.STORES_CREATED, Reason.CREATING_STORES, Reason.STORES_NOT_CREATED),
            *(Reason.IMPORTING, Reason.IMPORTED, Reason.UNREADABLE_LEFT_OUT, Reason.TOO_MANY_BACKUPS),
            *(Reason.INVENTORY_SHRUNK, Reason.TOO_MANY_RELEASED, Reason.RECORDING_RELEASE),
            *(Reason.COPYING, Reason.COPIED, Reason.COPIES_LATE, Reason.COPY_NOT_SUPPORTED),
        ),
        OperationState.WORKING,
    ),
}
"""The state of an operation whose condition Reconciling has a reason. No other field of a status stores the state.

When in doubt, a reason stands for WORKING: a wait that is too long does less harm than two writers on one volume.
"""


def state_of(operation: Operation) -> OperationState | None:
    """Return the state of an operation; None if its own status does not say that it is in progress."""
    if not operation.has_own_status:
        return None
    for condition in operation.status.conditions:
        if condition.type == ConditionType.RECONCILING:
            reason = parse_reason(condition.reason)
            return STATE_BY_REASON[reason] if isinstance(reason, Reason) else OperationState.WORKING
    return None


def still_attached(rule: str, nodes: tuple[str, ...], deadlines: Deadlines) -> Wait | None:
    """Wait while a volume is attached to ``nodes`` although no pod uses it there.

    Args:
        rule: Cinder's sentence about a volume in use.
        nodes: the nodes.
        deadlines: how long to wait.
    """
    if not nodes:
        return None
    cause = f"It is still attached to node {', '.join(nodes[:3])}, although no pod uses it."
    return Wait(Reason.VOLUME_STILL_ATTACHED, f"{rule} {cause}", limit=deadlines.detach, requeue_after=5.0)


def still_written(claim: PersistentVolumeClaim, writers: tuple[str, ...]) -> Wait | None:
    """Wait for movers of restores whose VolumeRestore somebody removed by force."""
    if not writers:
        return None
    cause = f"Pod {', '.join(writers[:3])} of another restore may still write to volume {claim.name}."
    return Wait(Reason.VOLUME_BUSY, f"{cause} If this lasts, check the node of the pod.", requeue_after=10.0)


def wait_for_volume(
    me: Operation,
    claim: PersistentVolumeClaim,
    backups: tuple[VolumeBackup, ...],
    restores: tuple[VolumeRestore, ...],
) -> Wait | None:
    """Wait for an operation on the same volume that is working or takes precedence."""
    for backup in backups:
        is_unfinished = backup.own_phase in (None, BackupPhase.CREATING) and not backup.metadata.is_being_deleted
        if is_unfinished and names_volume(backup.spec.volume_id, claim) and precedes(backup, me):
            return Wait(Reason.VOLUME_BUSY, f"VolumeBackup {backup.name} uses volume {claim.name}", requeue_after=10.0)
    for restore in restores:
        if names_volume(restore.spec.volume_id, claim) and _may_still_write(restore):
            return Wait(Reason.VOLUME_BUSY, _stopping_message(restore), requeue_after=10.0)
        if not restore.has_ended and names_volume(restore.spec.volume_id, claim) and precedes(restore, me):
            cause = f"VolumeRestore {restore.name} writes to volume {claim.name}"
            return Wait(Reason.VOLUME_BUSY, cause, requeue_after=10.0)
    return None


def _stopping_message(restore: VolumeRestore) -> str:
    cause = f"VolumeRestore {restore.name} is being stopped, and its mover may still write."
    return f"{cause} If this lasts, check the pod of the mover."


def _may_still_write(restore: VolumeRestore) -> bool:
    """Return whether a failed restore still has our finalizer, so that its mover may not have ended."""
    has_failed = restore.own_phase is RestorePhase.ERROR_RESTORING
    return has_failed and labels.RESTORE_FINALIZER in restore.metadata.finalizers


def names_volume(reference: str | None, claim: PersistentVolumeClaim) -> bool:
    """Return whether ``reference`` is the UID or the name of the claim."""
    return reference is not None and reference in (claim.uid, claim.name)


def precedes(other: Operation, me: Operation) -> bool:
    """Return whether ``other`` goes first: it is working; or neither is, and it is older and not held up."""
    if is_at_work(other) or is_at_work(me):
        return is_at_work(other)
    return state_of(other) is not OperationState.HELD_UP and age_key(other) < age_key(me)


def is_at_work(operation: Operation) -> bool:
    """Return whether an operation may have touched its volume."""
    return state_of(operation) is OperationState.WORKING


def age_key(operation: Object) -> tuple[datetime | None, str]:
    """Return a key that sorts operations by age, and those of the same second by UID."""
    return (operation.metadata.creation_timestamp, operation.uid)
