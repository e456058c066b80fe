"""``decide`` for a BackupStore: say whether it answers, and keep it while backups need it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus
from cinderblock.errors import TransientError
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Action, AddFinalizer, Decision, RemoveFinalizer
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup

RETRY_SECONDS = 10.0
"""Seconds between looks at a store that does not answer: it may only be starting."""
RECHECK_SECONDS = 60.0
"""Seconds between looks at a store that answers and is in use, or that refuses; up to a tenth more."""


LISTED_BACKUPS = 10
"""Most names of backups in a message."""


def decide(observed: ObservedStore, now: datetime) -> Decision:
    """What to do about a BackupStore: report its state; keep it from going while VolumeBackups need it."""
    return Decision(_status(observed, now), _finalizer(observed), _look_again(observed))


def default_store(stores: Sequence[BackupStore], namespace: str) -> StoreLookup:
    """The default one of a namespace's stores; without exactly one, why there is none."""
    defaults = [store for store in stores if store.is_default and not store.metadata.is_being_deleted]
    if len(defaults) == 1:
        return StoreLookup(defaults[0])
    if not defaults:
        return StoreLookup(
            missing=f"Namespace {namespace} has no default BackupStore: set spec.storeName, or annotate one with"
            ' cinderblock.io/is-default-store: "true".'
        )
    listed = ", ".join(sorted(store.name for store in defaults))
    return StoreLookup(
        missing=f"Namespace {namespace} has several default BackupStores ({listed}): set spec.storeName."
    )


def _look_again(observed: ObservedStore) -> float | None:
    if isinstance(observed.lookup.error, TransientError):
        return RETRY_SECONDS
    return (
        RECHECK_SECONDS * (1 + _share(observed.store.uid) / 10) if observed.lookup.error or observed.used_by else None
    )


def _share(uid: str) -> float:
    """A number from 0 to 1 that is another one for each store: they are not all asked in the same moment."""
    return zlib.crc32(uid.encode()) / 0xFFFFFFFF


def _finalizer(observed: ObservedStore) -> tuple[Action, ...]:
    has = labels.STORE_FINALIZER in observed.store.metadata.finalizers
    if observed.used_by and not has and not observed.store.metadata.is_being_deleted:
        return (AddFinalizer(labels.STORE_FINALIZER),)
    if has and not observed.used_by:
        return (RemoveFinalizer(labels.STORE_FINALIZER),)
    return ()


def _status(observed: ObservedStore, now: datetime) -> BackupStoreStatus:
    generation = observed.store.metadata.generation
    old = observed.store.status.conditions
    if observed.store.metadata.is_being_deleted and observed.used_by:
        listed = ", ".join(sorted(observed.used_by)[:10])
        shown = conditions.reconciling(old, now, generation, "InUse", f"VolumeBackups need this store: {listed}")
    elif observed.lookup.error is not None:
        shown = conditions.stalled(old, now, generation, observed.lookup.error.reason, observed.lookup.error.message)
    else:
        shown = conditions.ready(old, now, generation, "Answers", "The store answers and the container may be listed")
    return BackupStoreStatus(observed_generation=generation, conditions=_with_unsealed(observed, shown, now))


def _with_unsealed(observed: ObservedStore, shown: list[Condition], now: datetime) -> list[Condition]:
    """Add which backups are not encrypted although the store has keys."""
    if not observed.unsealed:
        return conditions.without(shown, ConditionType.UNSEALED_BACKUPS)
    listed, count = ", ".join(sorted(observed.unsealed)[:LISTED_BACKUPS]), len(observed.unsealed)
    words = f"{count} or more" if observed.more_unsealed else str(count)
    return conditions.with_lasting(
        shown,
        now,
        observed.store.metadata.generation,
        kind=ConditionType.UNSEALED_BACKUPS,
        status="True",
        reason="NotEncrypted",
        message=f"{words} VolumeBackups in this store are not encrypted. They can be restored. Among them: {listed}",
    )
