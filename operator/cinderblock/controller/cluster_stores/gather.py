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
    stores, unreadable = await _stores(context, cluster)
    observed = ObservedClusterStore(cluster, stores=stores, unreadable=unreadable)
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


async def _stores(context: Context, cluster: ClusterBackupStore) -> tuple[dict[str, BackupStore], frozenset[str]]:
    """Return the BackupStores with the name of a ClusterBackupStore, by namespace, and where one does not parse."""
    found: dict[str, BackupStore] = {}
    names = set[str]()
    async for page in context.kube.pages(kinds.BACKUP_STORE, fields=f"metadata.name={cluster.name}"):
        if page is None:
            found, names = {}, set()
        found |= {store.namespace: store for store in parse_all(BackupStore, page or [])}
        names |= {body["metadata"]["namespace"] for body in page or []}
        await asyncio.sleep(0)
    return found, frozenset(names - found.keys())


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
    refused = movers.refusal(StoreLookup(whole), context.policy.mover)
    silence = await unreachable(context, broker, is_ready=observed.cluster.is_ready)
    return replace(observed, rules=rules, unreachable=refused or silence)


async def unreachable(context: Context, broker: Broker, *, is_ready: bool) -> Fail | None:
    """Return why movers cannot reach the broker; None if they can.

    Args:
        context: the settings.
        broker: the broker.
        is_ready: whether the store is shown as ready now. If so, a short silence does not count.
    """
    if not context.policy.mover.broker_url:
        return None
    error = await broker.check(context.policy.mover, was_reachable=is_ready)
    return Fail(error.reason, error.message) if error is not None else None
