"""The checks of a restore whose backup is one of another namespace.

Without a grant, a refusal says the same whether the namespace and the backup exist or not.
"""

from __future__ import annotations

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.backup_grants.rules import GrantState
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.verdicts import Fail, Verdict, Wait
from cinderblock.reasons import Reason

RECHECK_SECONDS = 60.0
"""Seconds until grants are read again, if no event reports a change."""


def backup_is_granted(observed: ObservedRestore) -> Verdict:
    """A BackupGrant in the namespace of the backup permits the restore. Wait for one: people apply both together."""
    restore, source = observed.restore, observed.restore.granted_from
    if source is None or observed.grant is GrantState.GRANTED:
        return None
    if not observed.policy.cluster_stores:
        message = (
            "This operator works in some namespaces only, and restores no backups of other namespaces. Ask an"
            " administrator for a release that watches all namespaces (Helm values watchNamespaces and stores.cluster)."
        )
        return Fail(Reason.STORE_NOT_SHARED, message)
    was_accepted = restore.own_phase is not None and restore.status.backup_namespace is not None
    if was_accepted and observed.backup is None:
        # It was there, so that it is gone tells nothing new.
        return None
    if was_accepted and observed.grant is GrantState.NONE:
        message = f"The BackupGrant in namespace {source} was withdrawn before the mover of the restore started."
        return Fail(Reason.NOT_GRANTED, message)
    message = (
        f"No BackupGrant in namespace {source} lets namespace {restore.namespace} restore backup"
        f" {restore.spec.backup_id}. Ask the owner of {source} for one."
    )
    # The operator itself ends a pending grant. It may have been away for longer than people may take to make one.
    limit = None if observed.grant is GrantState.PENDING else observed.policy.deadlines.grant
    return Wait(Reason.NOT_GRANTED, message, limit=limit, requeue_after=RECHECK_SECONDS)


def backup_is_shared(observed: ObservedRestore) -> Verdict:
    """The backup of another namespace is in a ClusterBackupStore whose broker signs each request.

    Movers mount the Secrets of any other store, and session credentials cannot name the packs of one backup.
    """
    store = observed.store.store
    if observed.restore.granted_from is None or store is None:
        return None
    remedy = "Ask the owner of the backup to restore it, or to back the volume up to a ClusterBackupStore."
    if not isinstance(store, SharedStore):
        message = f"The backup is in BackupStore {store.name} of its namespace, whose Secrets no other namespace gets."
        return Fail(Reason.STORE_NOT_SHARED, f"{message} {remedy}")
    if store.mover_access.mode is not MoverAccess.SIGNED_REQUESTS:
        message = (
            f"Movers of ClusterBackupStore {store.cluster_store} get session credentials, which cannot be limited to"
            " one backup. Ask an administrator to set spec.moverAccess.mode to SignedRequests."
        )
        return Fail(Reason.STORE_NOT_SHARED, message)
    return None


def before_start(observed: ObservedRestore) -> Verdict:
    """The grant counts now, and the backup exists. A queue may hold a mover back for longer than either."""
    verdict = backup_is_granted(observed)
    if verdict is not None or observed.restore.granted_from is None or observed.backup is not None:
        return verdict
    return Fail(Reason.BACKUP_NOT_FOUND, f"Backup {observed.restore.spec.backup_id} could not be found.")


def before_mover(observed: ObservedRestore) -> Verdict:
    """The same, and the backup records the restore, so that its deletion waits."""
    verdict = before_start(observed) or backup_is_shared(observed)
    if verdict is not None or observed.restore.granted_from is None or observed.backup is None:
        return verdict
    if readers.is_recorded(observed.restore, observed.backup):
        return None
    return Wait(Reason.ACCEPTED, "The restore was accepted")
