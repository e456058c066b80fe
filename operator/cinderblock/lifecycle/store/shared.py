"""Shared stores: which namespaces may use a ClusterBackupStore, and where the objects of each are.

The operator and the broker both decide by these functions, so that they never disagree.
"""

from __future__ import annotations

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, NamespacesFrom, SharedStore
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreSpec
from cinderblock.lifecycle import selector


def allows(cluster: ClusterBackupStore, namespace: Object) -> bool:
    """Return whether a namespace may use the store. Raises InvalidInput for a selector that is wrong."""
    allowed = cluster.spec.allowed_namespaces
    match allowed.from_:
        case NamespacesFrom.NONE:
            return False
        case NamespacesFrom.ALL:
            return True
        case NamespacesFrom.NAMES:
            return namespace.name in allowed.names
        case NamespacesFrom.SELECTOR if allowed.selector is None:
            return False
        case NamespacesFrom.SELECTOR:
            parsed = selector.parse(allowed.selector, "spec.allowedNamespaces.selector")
            return parsed.matches(namespace.metadata.labels)


def prefix_of(cluster: ClusterBackupStore, namespace: Object) -> str:
    """Return the prefix of all keys of a namespace, without a slash at its end.

    The UID is part of it. A name can be used again, and the next owner of the name must not find the objects of the
    earlier one. Only the API server chooses a UID, so nobody can ask for that of somebody else.
    """
    former = next((entry for entry in cluster.spec.former_namespaces if entry.namespace == namespace.name), None)
    name, uid = (former.name or namespace.name, former.uid) if former else (namespace.name, namespace.uid)
    return "/".join(part for part in (cluster.spec.prefix, name, uid) if part)


def share(cluster: ClusterBackupStore, store: BackupStore, namespace: Object, secrets_in: str) -> SharedStore:
    """Return a BackupStore with the settings of its ClusterBackupStore. Whether it may be used is not checked.

    Args:
        cluster: the ClusterBackupStore.
        store: the BackupStore that names it.
        namespace: the namespace of ``store``.
        secrets_in: the namespace of the Secrets, which is that of the operator.
    """
    fields = {name: getattr(cluster.spec, name) for name in BackupStoreSpec.model_fields}
    spec = BackupStoreSpec.model_construct(
        **fields | {"cluster_store_ref": store.spec.cluster_store_ref, "prefix": prefix_of(cluster, namespace)}
    )
    return SharedStore(
        metadata=store.metadata,
        spec=spec,
        status=store.status,
        cluster_store=cluster.name,
        cluster_store_uid=cluster.uid,
        secrets_in=secrets_in,
        mover_access=cluster.spec.mover_access,
        movers_per_namespace=cluster.spec.limits.movers_per_namespace,
    )
