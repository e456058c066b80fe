"""Read what a decision about a BackupStore needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.cluster_stores.gather import unreachable
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.gather import probe_locks, probe_store
from cinderblock.controller.reconcile.related import LIST_ALL_LIMIT, has_own_backups, list_store_users, list_unsealed
from cinderblock.errors import CinderblockError, PermanentError, TransientError
from cinderblock.kube import kinds
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.lifecycle.store.owner import ObservedOwner
from cinderblock.reasons import Reason


async def gather(context: Context, store: BackupStore, broker: Broker) -> ObservedStore:
    """Return the observed state of a BackupStore: whether it answers, its rules, and which backups need it."""
    refusal = await _too_many_stores(context, store)
    if refusal is not None:
        return ObservedStore(store, StoreLookup(store, error=refusal), await list_store_users(context, store))
    lookup = await context.resolve(store)
    if lookup.store is None or lookup.refusal is not None:
        reason, message = lookup.missing_reason, lookup.missing
        if lookup.refusal is not None:
            reason, message = Reason(lookup.refusal.reason), lookup.refusal.message
        refused = StoreLookup(store, error=PermanentError(message, reason=reason))
        return ObservedStore(store, refused, await list_store_users(context, store))
    store = lookup.store
    lookup = await probe_store(context, lookup, store.spec.container)
    lookup = await probe_locks(context, lookup, store.spec.container)
    rules = await _container_rules(context, store) if lookup.error is None else None
    used_by = await list_store_users(context, store)
    observed = ObservedStore(store, lookup, used_by, rules=rules, mover=context.policy.mover)
    if store.is_shared:
        silence = await unreachable(context, broker, is_ready=store.is_ready)
        observed = replace(observed, misplaced=await _misplaced(context, store), unreachable=silence)
    elif lookup.error is None:
        observed = replace(observed, owner=await observe_owner(context, store))
    if store.spec.encryption_secret_ref is None:
        return observed
    unsealed, is_all = await list_unsealed(context, store)
    return replace(observed, unsealed=unsealed, more_unsealed=not is_all)


async def observe_owner(context: Context, store: BackupStore) -> ObservedOwner | None:
    """Return which cluster owns a store, after this one has marked a store that is nobody's.

    Without the right to read the namespace kube-system, this cluster does not know its UID, and marks nothing.
    """
    cluster = await context.cluster.uid(context.kube)
    if not cluster:
        return None
    claim = partial(context.owners.claim, cluster=cluster, release=context.policy.release, now=context.clock())
    # The store knows no leader: check here, as the client does before each write to the API server.
    context.kube.write_guard()
    try:
        marker = await claim(context.stores, store, context.secrets)
    except CinderblockError as error:
        return ObservedOwner(cluster, error=error)
    is_foreign = marker is not None and marker.cluster != cluster
    has_own = is_foreign and store.status.owner is None and await has_own_backups(context, store)
    return ObservedOwner(cluster, marker, has_own_backups=has_own)


async def wait_for_owner(context: Context, lookup: StoreLookup) -> StoreLookup:
    """Add that a new store is not used before its reconciliation has judged the marker of another cluster."""
    store = lookup.store
    if store is None or store.is_shared or store.status.owner is not None or lookup.error or lookup.refusal:
        return lookup
    cluster = await context.cluster.uid(context.kube)
    try:
        marker = await context.owners.read(context.stores, store, context.secrets) if cluster else None
    except CinderblockError:
        # The condition ForeignOwner of the store says so.
        return lookup
    if marker is None or marker.cluster == cluster:
        return lookup
    message = f"BackupStore {store.name} has the marker of another cluster, and is being checked"
    return replace(lookup, error=TransientError(message, reason=Reason.FOREIGN_OWNER))


async def refuse_moved(context: Context, lookup: StoreLookup, known: Sequence[VolumeBackup] = ()) -> StoreLookup:
    """Add that a shared store takes no new backups while backups of the namespace are in another place of it.

    Others than the known ones are looked for if the BackupStore shows some, or if the namespace continues an earlier
    one. The known ones come first: with many namespaces, a BackupStore shows a moved place only minutes later.

    Args:
        context: what to read with.
        lookup: the store.
        known: VolumeBackups of the namespace that were read already.
    """
    store = lookup.store
    if not isinstance(store, SharedStore) or lookup.refusal is not None:
        return lookup
    near = [backup for backup in known if backup.status.store_name == store.name and place.misplaced(backup, store)]
    if near:
        return replace(lookup, refusal=place.moved(store, tuple(backup.name for backup in near)))
    shows_some = any(shown.reason == Reason.MANIFEST_MISPLACED for shown in store.status.conditions)
    if not shows_some and store.spec.prefix == store.own_prefix:
        return lookup
    found = await _misplaced(context, store)
    return replace(lookup, refusal=place.moved(store, found)) if found else lookup


async def _misplaced(context: Context, store: BackupStore) -> tuple[str, ...]:
    """Return names of VolumeBackups whose data is not in the present place of a store, among the first ones."""
    fields = f"status.storeName={store.name}"
    bodies, _ = await context.kube.list_first(kinds.VOLUME_BACKUP, store.namespace, LIST_ALL_LIMIT, fields=fields)
    return tuple(backup.name for backup in parse_all(VolumeBackup, bodies) if place.misplaced(backup, store))


async def _too_many_stores(context: Context, store: BackupStore) -> PermanentError | None:
    """Return why a new store is not checked: its namespace has more BackupStores than the operator works on."""
    limit = context.policy.object_limit
    if store.is_ready:
        return None
    bodies, more = await context.kube.list_first(kinds.BACKUP_STORE, store.namespace, 1)
    if len(bodies) + more <= limit:
        return None
    message = f"The namespace has more than {limit} BackupStores. The operator uses no new ones until you delete some."
    return PermanentError(message, reason=Reason.TOO_MANY_OBJECTS)


async def _container_rules(context: Context, store: BackupStore) -> ContainerRules | None:
    """Return what the container does with deleted objects. A store is ready without an answer."""
    try:
        return await context.stores.container_rules(store, store.spec.container, context.secrets)
    except CinderblockError:
        return None
