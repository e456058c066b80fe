"""Resolve the settings of a BackupStore, which may come from a ClusterBackupStore."""

from __future__ import annotations

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.store import shared
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason


def resolve(
    store: BackupStore,
    cluster: ClusterBackupStore | None,
    namespace: Object | None,
    secrets_in: str,
    former: Object | None = None,
) -> StoreLookup:
    """Return a BackupStore with its settings, or why there are none, or why nothing new may use it.

    Args:
        store: the BackupStore.
        cluster: the ClusterBackupStore that it names; None: it does not exist.
        namespace: the namespace of the BackupStore; None: it does not exist.
        secrets_in: the namespace of the Secrets of ClusterBackupStores.
        former: the namespace that has the name `shared.former_name` now; None: there is none.
    """
    reference = store.spec.cluster_store_ref
    if reference is None:
        return StoreLookup(store)
    if cluster is None:
        cause = f"ClusterBackupStore {reference.name}, which BackupStore {store.name} names, could not be found."
        return _missing(Reason.CLUSTER_STORE_NOT_FOUND, f"{cause} Ask an administrator to create it.")
    if namespace is None:
        return _missing(Reason.STORE_NOT_FOUND, f"Namespace {store.namespace} could not be found.")
    try:
        found = shared.share(cluster, store, namespace, secrets_in, former)
    except InvalidInput as error:
        return _missing(Reason.FORMER_NAMESPACE_REFUSED, error.message)
    return StoreLookup(found, refusal=refusal(cluster, store, namespace))


def refusal(cluster: ClusterBackupStore, store: BackupStore, namespace: Object) -> Fail | None:
    """Return why nothing new may use a BackupStore with clusterStoreRef; None if it may be used."""
    if store.name != cluster.name:
        return Fail(
            Reason.INVALID_INPUT,
            f"BackupStore {store.name} names ClusterBackupStore {cluster.name}. Give it the same name, so that no other"
            " BackupStore of the namespace has the same place.",
        )
    if cluster.metadata.is_being_deleted:
        return Fail(
            Reason.STORE_BEING_DELETED,
            f"ClusterBackupStore {cluster.name} is being deleted, and accepts nothing new. Choose another BackupStore.",
        )
    if is_allowed(cluster, namespace):
        return None
    message = f"ClusterBackupStore {cluster.name} does not allow namespace {namespace.name}."
    remedy = "Ask an administrator to allow it in spec.allowedNamespaces, or choose another BackupStore."
    return Fail(Reason.STORE_NOT_ALLOWED, f"{message} {remedy}")


def target_refusal(cluster: ClusterBackupStore | None, store: SharedStore, target: Object | None) -> Fail | None:
    """Return why a namespace may not restore a backup of another one from a shared store; None if it may.

    An administrator decides which namespaces use the store. A grant decides about backups, not about that.
    """
    if cluster is not None and target is not None and is_allowed(cluster, target):
        return None
    name = target.name if target is not None else "of the restore"
    message = f"ClusterBackupStore {store.cluster_store}, which holds the backup, does not allow namespace {name}."
    return Fail(Reason.STORE_NOT_ALLOWED, f"{message} Ask an administrator to allow it in spec.allowedNamespaces.")


def is_allowed(cluster: ClusterBackupStore, namespace: Object) -> bool:
    """Return whether a namespace may use a ClusterBackupStore. A selector that is wrong allows none."""
    try:
        return shared.allows(cluster, namespace)
    except InvalidInput:
        return False


def _missing(reason: Reason, message: str) -> StoreLookup:
    return StoreLookup(missing=message, missing_reason=reason)
