"""Reconcile one ClusterBackupStore: its BackupStores in the namespaces that may use it, and its conditions.

Every write may be repeated, and a crash between any two of them loses nothing: the next reconciliation reads what
exists.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.cluster_stores.gather import gather
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.related import list_store_users
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import AlreadyExists, Conflict, KubeUnavailable, NotFound, PermanentError
from cinderblock.kube.kinds import BACKUP_STORE
from cinderblock.lifecycle.actions import AddFinalizer, Decision
from cinderblock.lifecycle.store.cluster import MAX_WRITES, Plan, Turns, backup_store, decide, must_be_held, plan

log = logging.getLogger(__name__)

REMOVAL_DELAY: Final = timedelta(seconds=30)
"""How long a namespace must not be allowed before its BackupStore is removed. A reconciliation that has seen it as
allowed, and may still record a backup, takes less time."""
FAILING_NAMESPACES: Final = 3
"""Namespaces without an answer of the API server after which the others wait for the next reconciliation. Each costs
seconds, because the API server or a webhook of the namespace is down."""


class ClusterStoreReconciler:
    """Reconciles ClusterBackupStores. It remembers only when removals are due, and which namespaces are next.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker | None = None) -> None:
        self._broker = broker or Broker()
        self._not_allowed: dict[str, dict[str, datetime]] = {}
        """When the BackupStores of a ClusterBackupStore were first seen in namespaces that may not use it, by UID."""
        self._turns: dict[str, Turns] = {}

    def forget(self, key: ObjectKey) -> None:
        """Forget a ClusterBackupStore that no longer exists."""
        self._not_allowed.pop(key.name, None)
        self._turns.pop(key.name, None)

    async def step(self, context: Context, cluster: ClusterBackupStore) -> Decision:
        """Change BackupStores, and return the status to write. Raises what the API server raises to reads."""
        observed = await gather(context, cluster, self._broker)
        if must_be_held(observed):
            return Decision(None, (AddFinalizer(labels.STORE_FINALIZER),), 0.0)
        turns = self._turns.get(cluster.name, Turns())
        planned = plan(observed, turns)
        created = await _in_each(planned.creations, "create", partial(_create, context, cluster))
        changes = {store.namespace: store for store in planned.changes}
        changed = await _in_each(changes, "change", lambda namespace: _change(context, cluster, changes[namespace]))
        due = self._due(cluster, planned, context.clock())
        removed = await _in_each(due, "remove", lambda namespace: _remove(context, due[namespace]))
        self._turns[cluster.name] = Turns(
            created.last or turns.created,
            changed.last or turns.changed,
            removed.last or turns.removed,
            planned.checks[-1].namespace if planned.checks else turns.checked,
        )
        for store in planned.checks:
            await context.enqueue(ObjectKey(BACKUP_STORE.kind, store.namespace, store.name))
        is_all = planned.is_all and created.is_all and changed.is_all and removed.is_all
        done = replace(planned, creations=created.namespaces, is_all=is_all)
        failures = created.failures | changed.failures | removed.failures
        return decide(observed, done, failures, context.clock())

    def _due(self, cluster: ClusterBackupStore, planned: Plan, now: datetime) -> dict[str, BackupStore]:
        """Return the BackupStores to remove now, each after it was not allowed for a while, by namespace."""
        seen = self._not_allowed.get(cluster.name, {})
        since = {store.uid: seen.get(store.uid, now) for store in planned.removals}
        self._not_allowed[cluster.name] = since
        due = [store for store in planned.removals if now - since[store.uid] >= REMOVAL_DELAY]
        return {store.namespace: store for store in due[:MAX_WRITES]}


@dataclass(frozen=True, slots=True)
class _Writes:
    """The results of writes in several namespaces.

    Attributes:
        namespaces: those whose turn it was.
        failures: why some failed, by namespace.
        is_all: whether all had their turn.
    """

    namespaces: tuple[str, ...]
    failures: dict[str, str]
    is_all: bool = True

    @property
    def last(self) -> str:
        """The namespace whose turn was the last one; empty: there was none."""
        return self.namespaces[-1] if self.namespaces else ""


async def _in_each(namespaces: Iterable[str], verb: str, write: Callable[[str], Awaitable[None]]) -> _Writes:
    """Write in each namespace. A refusal in one stops no other one; silence of the API server in several does."""
    failures, done, unanswered, all_of_them = dict[str, str](), list[str](), 0, list(namespaces)
    for namespace in all_of_them:
        if unanswered >= FAILING_NAMESPACES:
            break
        done.append(namespace)
        try:
            await write(namespace)
        except (PermanentError, KubeUnavailable) as error:
            log.warning("Could not %s a BackupStore in %s: %s", verb, namespace, error.message)
            failures[namespace] = error.message
            unanswered += isinstance(error, KubeUnavailable)
    return _Writes(tuple(done), failures, len(done) == len(all_of_them))


async def _create(context: Context, cluster: ClusterBackupStore, namespace: str) -> None:
    """Create the BackupStore of a namespace. If one exists, the next reconciliation tells whose it is."""
    try:
        await context.kube.create(BACKUP_STORE, backup_store(cluster, namespace))
    except (AlreadyExists, NotFound) as error:
        log.info("BackupStore %s/%s was not created: %s", namespace, cluster.name, error.message)
    else:
        log.info("Created BackupStore %s/%s", namespace, cluster.name)


async def _change(context: Context, cluster: ClusterBackupStore, store: BackupStore) -> None:
    """Give a BackupStore the default annotation of the ClusterBackupStore."""
    metadata = {
        "annotations": {labels.DEFAULT_STORE_ANNOTATION: "true" if cluster.is_default else None},
        "uid": store.uid,
        "resourceVersion": store.metadata.resource_version,
    }
    with contextlib.suppress(Conflict, NotFound):
        await context.kube.merge_patch(BACKUP_STORE, store.name, store.namespace, {"metadata": metadata})


async def _remove(context: Context, store: BackupStore) -> None:
    """Remove a BackupStore, unless a backup needs it, or it has changed."""
    if await list_store_users(context, store):
        return
    version = store.metadata.resource_version
    try:
        await context.kube.delete(BACKUP_STORE, store.name, store.namespace, uid=store.uid, resource_version=version)
    except Conflict:
        log.info("BackupStore %s/%s has changed, and is looked at again", store.namespace, store.name)
    else:
        log.info("Removed BackupStore %s/%s", store.namespace, store.name)
