"""Whether a store may be changed (spec.access)."""

from __future__ import annotations

from typing import Final

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import StoreReadOnly
from cinderblock.lifecycle.store import owner
from cinderblock.lifecycle.verdicts import Fail

READ_ONLY: Final = "It is read-only (spec.access): nothing in it changes, and it takes no new backups"
"""Sentence of condition Ready about such a store."""


def read_only(store: BackupStore) -> StoreReadOnly:
    """Return the error of a change of a store whose access is ReadOnly. It says who can permit changes."""
    if store.is_foreign and store.status.owner is not None:
        return owner.refusal(store, store.status.owner)
    reference = store.spec.cluster_store_ref
    if reference is not None:
        return StoreReadOnly(
            f"ClusterBackupStore {reference.name} is read-only. Ask an administrator to set its spec.access to"
            " ReadWrite."
        )
    return StoreReadOnly(f"BackupStore {store.name} is read-only. Set its spec.access to ReadWrite to permit changes.")


def refusal(store: BackupStore) -> Fail | None:
    """Return why no new backup may be made in a store; None if it may be."""
    if not store.is_read_only:
        return None
    error = read_only(store)
    return Fail(error.reason, f"Cannot make a backup: {error.message} Or choose another BackupStore.")
