"""``decide`` for a BackupStore: report whether it answers, and keep it while backups need it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus, OwnerState, StoreAccess
from cinderblock.errors import TransientError
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Action, AddFinalizer, Decision, RemoveFinalizer
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import access, movers, owner, place
from cinderblock.lifecycle.store.container_conditions import conditions_of
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

RETRY_SECONDS = 10.0
"""Seconds between checks of a store that does not answer: it may be starting."""
RECHECK_SECONDS = 60.0
"""Seconds between checks of a store that answers and is in use, or that refuses; up to a tenth more."""

LISTED_BACKUPS = 10
"""Names of backups in a message."""
_MOVED = "Ask an administrator, who finds the remedy in the condition Ready of its ClusterBackupStore."
_HELD = " This BackupStore is being deleted, and stays while VolumeBackups need it: {}."
_USED = " It is used as before, and the operator makes it again when it is gone."
"""About a BackupStore with clusterStoreRef in deletion."""


def decide(observed: ObservedStore, now: datetime) -> Decision:
    """Return what to do about a BackupStore: report its state, and keep it while VolumeBackups need it."""
    return Decision(_status(observed, now), _finalizer(observed), _requeue_after(observed))


def default_store(stores: Sequence[BackupStore], namespace: str) -> StoreLookup:
    """Return the default store of a namespace, or why it has none: there must be exactly one.

    A store of the namespace itself goes before one that an administrator shares with it.
    """
    marked = [store for store in stores if store.is_default and not store.is_leaving]
    defaults = [store for store in marked if not store.is_shared] or marked
    if len(defaults) == 1:
        return StoreLookup(defaults[0])
    if not defaults:
        cause = f"Cannot choose a BackupStore: namespace {namespace} has no default BackupStore."
        remedy = 'Set spec.storeName, or annotate a BackupStore with cinderblock.io/is-default-store: "true".'
        return StoreLookup(missing=f"{cause} {remedy}")
    listed = ", ".join(sorted(store.name for store in defaults))
    cause = f"Cannot choose a BackupStore: namespace {namespace} has several default BackupStores ({listed})."
    return StoreLookup(missing=f"{cause} Set spec.storeName.")


def _requeue_after(observed: ObservedStore) -> float | None:
    if isinstance(observed.lookup.error, TransientError):
        return RETRY_SECONDS
    is_owner_late = observed.owner is not None and isinstance(observed.owner.error, TransientError)
    needs_check = observed.lookup.error or observed.used_by or observed.store.is_shared or _mover_refusal(observed)
    if needs_check or is_owner_late:
        return RECHECK_SECONDS * (1 + _jitter(observed.store.uid) / 10)
    return None


def _jitter(uid: str) -> float:
    """Return a number from 0 to 1 that depends on the store, so that stores are not checked at the same moment."""
    return zlib.crc32(uid.encode()) / 0xFFFFFFFF


def _finalizer(observed: ObservedStore) -> tuple[Action, ...]:
    has_finalizer = labels.STORE_FINALIZER in observed.store.metadata.finalizers
    if observed.used_by and not has_finalizer and not observed.store.metadata.is_being_deleted:
        return (AddFinalizer(labels.STORE_FINALIZER),)
    if has_finalizer and not observed.used_by:
        return (RemoveFinalizer(labels.STORE_FINALIZER),)
    return ()


def _status(observed: ObservedStore, now: datetime) -> BackupStoreStatus:
    generation = observed.store.metadata.generation
    before = observed.store.status.conditions
    is_held = observed.store.metadata.is_being_deleted and bool(observed.used_by)
    held = _HELD.format(_listed(observed.used_by)) if is_held else ""
    owned = owner.status_of(observed.store, observed.owner) if not observed.store.is_shared else None
    is_foreign = owned is not None and owned.state is OwnerState.FOREIGN
    is_refused = is_foreign and observed.store.spec.access is StoreAccess.READ_WRITE
    if is_held and not observed.store.is_shared:
        message = f"VolumeBackups need this store: {_listed(observed.used_by)}"
        shown = conditions.reconciling(before, now, generation, Reason.IN_USE, message)
    elif observed.lookup.error is not None:
        error = observed.lookup.error
        message = f"{error.message.removesuffix('.')}.{held}" if held else error.message
        shown = conditions.stalled(before, now, generation, error.reason, message)
    elif observed.misplaced:
        moved = _listed(observed.misplaced)
        message = f"The data of VolumeBackups is not in the place that the store has now: {moved}. {_MOVED}"
        shown = conditions.stalled(before, now, generation, Reason.MANIFEST_MISPLACED, message)
    elif (refusal := _mover_refusal(observed) or observed.unreachable) is not None:
        shown = conditions.stalled(before, now, generation, refusal.reason, refusal.message)
    elif is_refused and owned is not None:
        shown = conditions.stalled(
            before, now, generation, Reason.FOREIGN_OWNER, owner.refusal(observed.store, owned).message
        )
    else:
        message = "The store answers and the container may be listed"
        message += f". {access.READ_ONLY}" if observed.store.spec.access is StoreAccess.READ_ONLY else ""
        message = f"{message.removesuffix('.')}.{held}{_USED}" if held else message
        shown = conditions.ready(before, now, generation, Reason.ANSWERS, message)
    shown = _with_rules(observed, _with_unsealed(observed, shown, now), now)
    if observed.lookup.error is None:
        shown = owner.with_owner(shown, observed.store, observed.owner, owned, now)
    # Without its ClusterBackupStore, the spec of a shared one holds defaults of the API server.
    known = observed.store.spec if place.is_known(observed.store) else observed.store.status
    return BackupStoreStatus(
        observed_generation=generation,
        conditions=shown,
        access=StoreAccess.READ_ONLY if is_foreign else known.access,
        container=known.container,
        endpoint_url=known.endpoint_url,
        owner=owned,
        # The import of its backups sets these.
        inventory=observed.store.status.inventory,
        released=observed.store.status.released,
        # Copies of its backups set these.
        copy_targets=observed.store.status.copy_targets,
        copy_mover=observed.store.status.copy_mover,
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:LISTED_BACKUPS])


def _with_rules(observed: ObservedStore, shown: list[Condition], now: datetime) -> list[Condition]:
    """Add the conditions about the rules of the container. Without an answer, the earlier ones stay."""
    if observed.rules is None:
        return shown
    for found in conditions_of(observed.rules, observed.store.spec.prefix):
        shown = conditions.with_lasting(
            shown,
            now,
            observed.store.metadata.generation,
            kind=found.kind,
            status=found.status,
            reason=found.reason,
            message=found.message,
        )
    return shown


def _mover_refusal(observed: ObservedStore) -> Fail | None:
    return movers.refusal(observed.lookup, observed.mover) if observed.mover is not None else None


def _with_unsealed(observed: ObservedStore, shown: list[Condition], now: datetime) -> list[Condition]:
    """Add the condition about backups that are not encrypted although the store has an encryption Secret."""
    if not observed.unsealed:
        return conditions.without(shown, ConditionType.UNSEALED_BACKUPS)
    listed, count = _listed(observed.unsealed), len(observed.unsealed)
    number = f"{count} or more" if observed.more_unsealed else str(count)
    return conditions.with_lasting(
        shown,
        now,
        observed.store.metadata.generation,
        kind=ConditionType.UNSEALED_BACKUPS,
        status="True",
        reason=Reason.NOT_ENCRYPTED,
        message=f"{number} VolumeBackups in this store are not encrypted. They can be restored. Among them: {listed}",
    )
