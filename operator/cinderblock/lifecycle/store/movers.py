"""Whether movers of a store may run, and can reach it."""

from __future__ import annotations

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import TransientError
from cinderblock.lifecycle.mover.pod_security import mover_refusal
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy, StoreLookup
from cinderblock.lifecycle.store import access
from cinderblock.lifecycle.verdicts import Fail, Verdict, Wait
from cinderblock.reasons import Reason


def before_start(lookup: StoreLookup, policy: OperatorPolicy, *, writes: bool = False) -> Verdict:
    """Fail or wait if a mover of a store must not start now, whatever was checked before.

    An operation may have waited for hours since its checks: for a snapshot, a volume, or a slot.

    Args:
        lookup: the store.
        policy: the settings of the operator.
        writes: whether the mover makes a backup.
    """
    if lookup.store is None:
        return Fail(lookup.missing_reason, lookup.missing)
    read_only = access.refusal(lookup.store) if writes else None
    if read_only is not None:
        return read_only
    if lookup.refusal is not None:
        return lookup.refusal
    error = lookup.error
    if isinstance(error, TransientError):
        return Wait(error.reason, error.message, limit=policy.deadlines.store, requeue_after=10.0)
    return Fail(error.reason, error.message) if error is not None else verdict(lookup, policy)


def verdict(lookup: StoreLookup, policy: OperatorPolicy) -> Verdict:
    """Fail or wait if movers of a store may not run, or have no way to reach it."""
    refused = refusal(lookup, policy.mover)
    if refused is not None or not isinstance(lookup.store, SharedStore):
        return refused
    if not policy.mover.broker_ca:
        message = "Movers cannot reach the store yet: the broker has no certificate. Check its Deployment."
        return Wait(Reason.BROKER_UNAVAILABLE, message, limit=policy.deadlines.store)
    if lookup.store.spec.ca_secret_ref is not None and not lookup.store.ca_certificates:
        message = (
            "Movers cannot trust the store yet: the CA Secret of its ClusterBackupStore has no certificate that can be"
            " read. Ask an administrator."
        )
        return Wait(Reason.SECRET_INCOMPLETE, message, limit=policy.deadlines.store)
    return None


def refusal(lookup: StoreLookup, settings: MoverSettings) -> Fail | None:
    """Return why movers of a store may not run until a person changes a setting; None if they may."""
    return mover_refusal(lookup, settings) or (broker_disabled(lookup.store, settings) if lookup.store else None)


def broker_disabled(store: BackupStore, settings: MoverSettings) -> Fail | None:
    """Return that a store needs the broker and the administrator has not switched it on."""
    if not isinstance(store, SharedStore) or settings.broker_url:
        return None
    message = f"Movers of ClusterBackupStore {store.cluster_store} need the broker. Set the Helm value broker.enabled."
    return Fail(Reason.BROKER_DISABLED, message)
