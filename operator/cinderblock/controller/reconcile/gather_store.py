"""Read what a decision about a BackupStore needs."""

from __future__ import annotations

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import probe_store
from cinderblock.controller.reconcile.related import list_store_users, list_unsealed
from cinderblock.errors import CinderblockError, PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.observed import ObservedStore, StoreLookup
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.reasons import Reason


async def gather(context: Context, store: BackupStore) -> ObservedStore:
    """Return the observed state of a BackupStore: whether it answers, its rules, and which backups need it."""
    refusal = await _too_many_stores(context, store)
    if refusal is not None:
        return ObservedStore(store, StoreLookup(store, error=refusal), await list_store_users(context, store))
    lookup = await probe_store(context, StoreLookup(store), store.spec.container)
    rules = await _container_rules(context, store) if lookup.error is None else None
    used_by = await list_store_users(context, store)
    if store.spec.encryption_secret_ref is None:
        return ObservedStore(store, lookup, used_by, rules=rules, mover=context.policy.mover)
    unsealed, is_all = await list_unsealed(context, store)
    return ObservedStore(
        store, lookup, used_by, unsealed, more_unsealed=not is_all, rules=rules, mover=context.policy.mover
    )


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
