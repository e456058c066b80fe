"""Read what a decision about a BackupStore needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.cluster_stores.gather import unreachable
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.gather import probe_locks, probe_store
from cinderblock.controller.reconcile.related import LIST_ALL_LIMIT, list_store_users, list_unsealed
from cinderblock.errors import CinderblockError, PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.store.container_rules import ContainerRules
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
    if store.spec.encryption_secret_ref is None:
        return observed
    unsealed, is_all = await list_unsealed(context, store)
    return replace(observed, unsealed=unsealed, more_unsealed=not is_all)


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
