"""Reconcile one ClusterBackupStore: its BackupStores in the namespaces that may use it, and its conditions.

Every write may be repeated, and a crash between any two of them loses nothing: the next look finds what exists.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
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
from cinderblock.kube import kinds
from cinderblock.kube.kinds import BACKUP_STORE
from cinderblock.lifecycle.actions import AddFinalizer, Decision
from cinderblock.lifecycle.store.cluster import MAX_WRITES, Plan, backup_store, decide, must_be_held, plan

log = logging.getLogger(__name__)

REMOVAL_DELAY: Final = timedelta(seconds=30)
"""For how long a namespace must not be allowed before its BackupStore is removed: longer than any reconciliation that
has seen it as allowed, and may still record a backup."""
FAILING_NAMESPACES: Final = 3
"""Namespaces in which the API server does not answer before it counts as down. One may have a webhook that is."""


class ClusterStoreReconciler:
    """Reconciles ClusterBackupStores. Its memory only delays removals.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker | None = None) -> None:
        self._broker = broker or Broker()
        self._not_allowed: dict[str, dict[str, datetime]] = {}
        """When the BackupStores of a ClusterBackupStore were first seen in namespaces that may not use it, by UID."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a ClusterBackupStore that no longer exists."""
        self._not_allowed.pop(key.name, None)

    async def step(self, context: Context, cluster: ClusterBackupStore) -> Decision:
        """Change BackupStores, and return the status to write. Raises what the API server raises."""
        observed = await gather(context, cluster, self._broker)
        if must_be_held(observed):
            return Decision(None, (AddFinalizer(labels.STORE_FINALIZER),), 0.0)
        planned = plan(observed)
        failures = await _create(context, cluster, planned)
        failures |= await _change(context, cluster, planned)
        failures |= await self._remove(context, cluster, planned)
        for store in planned.checks:
            await context.enqueue(ObjectKey(BACKUP_STORE.kind, store.namespace, store.name))
        return decide(observed, planned, failures, context.clock())

    async def _remove(self, context: Context, cluster: ClusterBackupStore, planned: Plan) -> dict[str, str]:
        """Remove BackupStores that no backup needs, each after it was not allowed for a while."""
        now, failures = context.clock(), dict[str, str]()
        seen = self._not_allowed.get(cluster.name, {})
        since = {store.uid: seen.get(store.uid, now) for store in planned.removals}
        self._not_allowed[cluster.name] = since
        due = [store for store in planned.removals if now - since[store.uid] >= REMOVAL_DELAY]
        for store in due[:MAX_WRITES]:
            if await list_store_users(context, store):
                continue
            try:
                version = store.metadata.resource_version
                await context.kube.delete(
                    BACKUP_STORE, store.name, store.namespace, uid=store.uid, resource_version=version
                )
            except Conflict:
                log.info("BackupStore %s/%s has changed, and is looked at again", store.namespace, store.name)
            except PermanentError as error:
                failures[store.namespace] = error.message
            else:
                log.info("Removed BackupStore %s/%s", store.namespace, store.name)
        return failures


async def _create(context: Context, cluster: ClusterBackupStore, planned: Plan) -> dict[str, str]:
    """Create BackupStores. A refusal in one namespace stops no other one."""
    failures: dict[str, str] = {}
    for namespace in planned.creations:
        try:
            await context.kube.create(BACKUP_STORE, backup_store(cluster, namespace))
        except AlreadyExists:
            # The next look tells whose it is.
            continue
        except NotFound:
            log.info("Namespace %s no longer exists", namespace)
        except (PermanentError, KubeUnavailable) as error:
            log.warning("Could not create BackupStore %s/%s: %s", namespace, cluster.name, error.message)
            failures[namespace] = error.message
            if isinstance(error, KubeUnavailable) and len(failures) >= FAILING_NAMESPACES:
                raise
        else:
            log.info("Created BackupStore %s/%s", namespace, cluster.name)
    return failures


async def _change(context: Context, cluster: ClusterBackupStore, planned: Plan) -> dict[str, str]:
    """Give BackupStores the default annotation of the ClusterBackupStore."""
    failures: dict[str, str] = {}
    for store in planned.changes:
        try:
            await _annotate(context, store, "true" if cluster.is_default else None)
        except (Conflict, NotFound):
            continue
        except PermanentError as error:
            failures[store.namespace] = error.message
    return failures


async def _annotate(context: Context, store: BackupStore, value: str | None) -> None:
    metadata = {
        "annotations": {labels.DEFAULT_STORE_ANNOTATION: value},
        "uid": store.uid,
        "resourceVersion": store.metadata.resource_version,
    }
    await context.kube.merge_patch(kinds.BACKUP_STORE, store.name, store.namespace, {"metadata": metadata})
