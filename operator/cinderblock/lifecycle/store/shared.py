"""Shared stores: which namespaces may use a ClusterBackupStore, and where the objects of each are.

The operator and the broker both decide by these functions, so that they never disagree.
"""

from __future__ import annotations

from cinderblock.api.meta import Object, ObjectMeta
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, NamespacesFrom, SharedStore
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreSpec, ClusterStoreReference
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import selector
from cinderblock.reasons import Reason


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

    Raises InvalidInput (FormerNamespaceRefused) if spec.formerNamespaces gives that place to another namespace.
    """
    places = {entry.namespace: (entry.name or entry.namespace, entry.uid) for entry in cluster.spec.former_namespaces}
    place = places.get(namespace.name, (namespace.name, namespace.uid))
    others = sorted(other for other, taken in places.items() if taken == place and other != namespace.name)
    if others:
        raise InvalidInput(
            f"spec.formerNamespaces of ClusterBackupStore {cluster.name} gives the place {'/'.join(place)} of namespace"
            f" {namespace.name} to namespace {', '.join(others[:3])} as well. Correct one of the entries.",
            reason=Reason.FORMER_NAMESPACE_REFUSED,
        )
    return "/".join(part for part in (cluster.spec.prefix, *place) if part)


def share(cluster: ClusterBackupStore, store: BackupStore, namespace: Object, secrets_in: str) -> SharedStore:
    """Return a BackupStore with the settings of its ClusterBackupStore. Whether it may be used is not checked.

    Args:
        cluster: the ClusterBackupStore.
        store: the BackupStore that names it.
        namespace: the namespace of ``store``.
        secrets_in: the namespace of the Secrets, which is that of the operator.

    Raises InvalidInput as `prefix_of` does.
    """
    return _with_settings(cluster, store, prefix_of(cluster, namespace), secrets_in)


def whole(cluster: ClusterBackupStore, secrets_in: str) -> SharedStore:
    """Return a ClusterBackupStore as a store without a namespace, so that the operator can check it for all of them."""
    metadata = ObjectMeta(name=cluster.name, uid=cluster.uid, generation=cluster.metadata.generation)
    reference = ClusterStoreReference(name=cluster.name)
    own = BackupStore(metadata=metadata, spec=BackupStoreSpec(cluster_store_ref=reference))
    return _with_settings(cluster, own, cluster.spec.prefix, secrets_in)


def own_settings(store: BackupStore) -> tuple[str, ...]:
    """Return the fields of a BackupStore with clusterStoreRef that it may not have, as in the object.

    The rules of the CustomResourceDefinition refuse them. An object of another release may have them all the same.
    """
    fields = BackupStoreSpec.model_fields.items()
    found = [(name, info) for name, info in fields if name != "cluster_store_ref"]
    return tuple(info.alias or name for name, info in found if getattr(store.spec, name) != info.default)


def _with_settings(cluster: ClusterBackupStore, store: BackupStore, prefix: str, secrets_in: str) -> SharedStore:
    fields = {name: getattr(cluster.spec, name) for name in BackupStoreSpec.model_fields}
    spec = BackupStoreSpec.model_construct(
        **fields | {"cluster_store_ref": store.spec.cluster_store_ref, "prefix": prefix}
    )
    return SharedStore(
        metadata=store.metadata,
        spec=spec,
        status=store.status,
        cluster_store=cluster.name,
        cluster_store_uid=cluster.uid,
        root_prefix=cluster.spec.prefix,
        secrets_in=secrets_in,
        mover_access=cluster.spec.mover_access,
        movers_per_namespace=cluster.spec.limits.movers_per_namespace,
    )
