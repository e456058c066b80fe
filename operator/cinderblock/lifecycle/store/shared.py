"""Shared stores: which namespaces may use a ClusterBackupStore, and where the objects of each are.

The operator and the broker both decide by these functions, so that they never disagree.
"""

from __future__ import annotations

from cinderblock.api import labels
from cinderblock.api.meta import Object, ObjectMeta
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, FormerNamespace, NamespacesFrom, SharedStore
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


def prefix_of(cluster: ClusterBackupStore, namespace: Object, former: Object | None = None) -> str:
    """Return the prefix of all keys of a namespace, without a slash at its end.

    The UID is part of it. A name can be used again, and the next owner of the name must not find the objects of the
    earlier one. Only the API server chooses a UID, so nobody can ask for that of somebody else.

    Args:
        cluster: the ClusterBackupStore.
        namespace: the namespace.
        former: the namespace that has the name `former_name` now; None: there is none.

    Raises InvalidInput (FormerNamespaceRefused) if the entry of the namespace in spec.formerNamespaces is refused. The
    message is for the namespace, and names no other one: see `former_conflict`.
    """
    if former_conflict(cluster, namespace, former) is not None:
        raise InvalidInput(
            f"ClusterBackupStore {cluster.name} has no place for namespace {namespace.name}: its entry in"
            " spec.formerNamespaces is refused. Ask an administrator, who finds the cause in the condition Ready of the"
            " ClusterBackupStore.",
            reason=Reason.FORMER_NAMESPACE_REFUSED,
        )
    entry = entry_of(cluster, namespace)
    return _join(cluster, _own_place(namespace) if entry is None else _place(entry))


def former_name(cluster: ClusterBackupStore, namespace: Object) -> str | None:
    """Return the name of the earlier namespace that this one continues; None: it continues none."""
    entry = entry_of(cluster, namespace)
    return None if entry is None else _place(entry)[0]


def former_conflict(cluster: ClusterBackupStore, namespace: Object, former: Object | None) -> str | None:
    """Return why the entry of a namespace in spec.formerNamespaces is refused, for an administrator; None: it is not.

    A namespace that exists keeps its place, whatever an entry says: nobody else may read or delete its backups.

    Args:
        cluster: the ClusterBackupStore.
        namespace: the namespace.
        former: the namespace that has the name `former_name` now; None: there is none.
    """
    entry = entry_of(cluster, namespace)
    if entry is None or _place(entry) == _own_place(namespace):
        return None
    place = _place(entry)
    gives = f"spec.formerNamespaces of ClusterBackupStore {cluster.name} gives the place {'/'.join(place)}"
    if former is not None and _own_place(former) == place:
        return f"{gives} to namespace {namespace.name}, but its owner still exists. Remove the entry."
    others = sorted(
        other.namespace for other in cluster.spec.former_namespaces if other != entry and _place(other) == place
    )
    if others:
        listed = ", ".join(others[:3])
        return f"{gives} of namespace {namespace.name} to namespace {listed} as well. Correct one of the entries."
    return None


def entry_of(cluster: ClusterBackupStore, namespace: Object) -> FormerNamespace | None:
    """Return the entry of spec.formerNamespaces for a namespace; None: there is none.

    The entry names the UID of the present namespace. So the next namespace of the name does not get the place.
    """
    present = namespace.name, namespace.uid
    entries = cluster.spec.former_namespaces
    return next((entry for entry in entries if (entry.namespace, entry.namespace_uid) == present), None)


def _place(entry: FormerNamespace) -> tuple[str, str]:
    return entry.name or entry.namespace, entry.uid


def _own_place(namespace: Object) -> tuple[str, str]:
    return namespace.name, namespace.uid


def _join(cluster: ClusterBackupStore, place: tuple[str, str]) -> str:
    return "/".join(part for part in (cluster.spec.prefix, *place) if part)


def share(
    cluster: ClusterBackupStore, store: BackupStore, namespace: Object, secrets_in: str, former: Object | None = None
) -> SharedStore:
    """Return a BackupStore with the settings of its ClusterBackupStore. Whether it may be used is not checked.

    Settings of the BackupStore itself do not count. The API server refuses them, but it stores the defaults of the
    release that created the object, which a later release may have changed.

    Args:
        cluster: the ClusterBackupStore.
        store: the BackupStore that names it.
        namespace: the namespace of ``store``.
        secrets_in: the namespace of the Secrets, which is that of the operator.
        former: the namespace that has the name `former_name` now; None: there is none.

    Raises InvalidInput as `prefix_of` does.
    """
    own = _join(cluster, _own_place(namespace))
    return _with_settings(cluster, store, prefix_of(cluster, namespace, former), secrets_in, own)


def whole(cluster: ClusterBackupStore, secrets_in: str) -> SharedStore:
    """Return a ClusterBackupStore as a store without a namespace, so that the operator can check it for all of them."""
    metadata = ObjectMeta(name=cluster.name, uid=cluster.uid, generation=cluster.metadata.generation)
    reference = ClusterStoreReference(name=cluster.name)
    own = BackupStore(metadata=metadata, spec=BackupStoreSpec(cluster_store_ref=reference))
    return _with_settings(cluster, own, cluster.spec.prefix, secrets_in, cluster.spec.prefix)


def _with_settings(
    cluster: ClusterBackupStore, store: BackupStore, prefix: str, secrets_in: str, own_prefix: str
) -> SharedStore:
    listed = cluster.metadata.annotations.get(labels.MOVED_FROM_ANNOTATION, "")
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
        moved_from=frozenset(part.strip() for part in listed.split(",") if part.strip()),
        own_prefix=own_prefix,
        secrets_in=secrets_in,
        mover_access=cluster.spec.mover_access,
        movers_per_namespace=cluster.spec.limits.movers_per_namespace,
    )
