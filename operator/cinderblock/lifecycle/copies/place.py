"""Which stores may get copies of the backups of a store, and how the place of a copy is recorded."""

from __future__ import annotations

import hashlib

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.store import access
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason


def place_of(store: BackupStore) -> str:
    """Return a digest of server, bucket and prefix. The region decides only without an endpoint."""
    spec = store.spec
    server = spec.endpoint_url.rstrip("/") if spec.endpoint_url is not None else f"region {spec.region}"
    return hashlib.sha256(f"{server}\n{spec.container}\n{spec.prefix}".encode()).hexdigest()[:16]


def refusal(store: BackupStore, name: str, target: StoreLookup) -> Fail | None:
    """Return why a store cannot get copies until a person changes something; None if it can.

    Args:
        store: the store of the backups. The API server refuses spec.copies of a store that namespaces share.
        name: the store that spec.copies names.
        target: that store.
    """
    if target.store is None:
        return Fail(target.missing_reason, target.missing)
    if target.store.is_shared:
        cause = f"BackupStore {name} belongs to a ClusterBackupStore, whose movers get no credentials."
        return Fail(Reason.COPY_NOT_SUPPORTED, f"{cause} Copy to a BackupStore with credentials of its own.")
    if place_of(target.store) == place_of(store):
        cause = f"BackupStore {name} has the same server, bucket and prefix as BackupStore {store.name}."
        return Fail(Reason.COPY_NOT_SUPPORTED, f"{cause} Copy to another place.")
    if target.store.is_leaving:
        return Fail(Reason.STORE_BEING_DELETED, f"BackupStore {name} is being deleted.")
    if target.store.is_read_only:
        error = access.read_only(target.store)
        return Fail(error.reason, error.message)
    return target.refusal or _no_locks(target.store)


def _no_locks(target: BackupStore) -> Fail | None:
    """Return why a store that asks for locks cannot lock copies, as its own last probe says; None if it can."""
    ready = next((c for c in target.status.conditions if c.type == ConditionType.READY), None)
    if target.spec.object_lock is None or ready is None or ready.reason != Reason.OBJECT_LOCK_UNAVAILABLE:
        return None
    return Fail(Reason.OBJECT_LOCK_UNAVAILABLE, f"BackupStore {target.name} gets no copies. {ready.message}")
