"""Read what a decision about a ClusterBackupStore needs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, NamespacesFrom
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.context import Context, parse_all
from cinderblock.errors import CinderblockError, InvalidInput
from cinderblock.kube import kinds
from cinderblock.kube.reduction import reduce_with_labels
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.store import cluster as cluster_rules
from cinderblock.lifecycle.store import movers, shared
from cinderblock.lifecycle.store.cluster import ObservedClusterStore
from cinderblock.lifecycle.verdicts import Fail


async def gather(context: Context, cluster: ClusterBackupStore, broker: Broker) -> ObservedClusterStore:
    """Return the observed state of a ClusterBackupStore. Raises what the API server raises."""
    observed = ObservedClusterStore(cluster, stores=await _stores(context, cluster))
    try:
        existing = await _namespaces(context, cluster)
        allowed = [
            namespace
            for namespace in existing
            if shared.allows(cluster, namespace) and not namespace.metadata.is_being_deleted
        ]
    except InvalidInput as error:
        observed = replace(observed, selector_error=error)
    else:
        names = frozenset(namespace.name for namespace in allowed)
        by_name = {namespace.name: namespace for namespace in existing}
        observed = replace(observed, allowed=names, conflicts=cluster_rules.conflicts(cluster, allowed, by_name))
    if cluster.metadata.is_being_deleted:
        return observed
    return await _with_store(context, observed, broker)


async def _namespaces(context: Context, cluster: ClusterBackupStore) -> list[Object]:
    """Return all namespaces with their labels; none if none may use the store."""
    if cluster.spec.allowed_namespaces.from_ is NamespacesFrom.NONE:
        return []
    found: dict[str, Object] = {}
    async for page in context.kube.reducing(reduce_with_labels).pages(kinds.NAMESPACE):
        if page is None:
            found = {}
        found |= {namespace.name: namespace for namespace in parse_all(Object, page or [])}
        await asyncio.sleep(0)
    return list(found.values())


async def _stores(context: Context, cluster: ClusterBackupStore) -> dict[str, BackupStore]:
    """Return the BackupStores with the name of a ClusterBackupStore, by namespace."""
    found: dict[str, BackupStore] = {}
    async for page in context.kube.pages(kinds.BACKUP_STORE, fields=f"metadata.name={cluster.name}"):
        if page is None:
            found = {}
        found |= {store.namespace: store for store in parse_all(BackupStore, page or [])}
        await asyncio.sleep(0)
    return found


async def _with_store(context: Context, observed: ObservedClusterStore, broker: Broker) -> ObservedClusterStore:
    """Add whether the store answers, and whether movers can reach it."""
    whole = shared.whole(observed.cluster, context.policy.account.namespace)
    container = whole.spec.container
    try:
        await context.stores.check(whole, container, context.secrets)
    except CinderblockError as error:
        return replace(observed, error=error)
    try:
        rules = await context.stores.container_rules(whole, container, context.secrets)
    except CinderblockError:
        rules = None
    return replace(observed, rules=rules, unreachable=await _unreachable(context, StoreLookup(whole), broker))


async def _unreachable(context: Context, lookup: StoreLookup, broker: Broker) -> Fail | None:
    refused = movers.refusal(lookup, context.policy.mover)
    if refused is not None:
        return refused
    error = await broker.check(context.policy.mover)
    return Fail(error.reason, error.message) if error is not None else None
