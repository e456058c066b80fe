"""The settings of BackupStores that a ClusterBackupStore has, read live, each at most once per reconciliation."""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.kube.kinds import CLUSTER_BACKUP_STORE, NAMESPACE, Kind
from cinderblock.lifecycle.observed import OperatorPolicy, StoreLookup
from cinderblock.lifecycle.store.resolve import resolve
from cinderblock.lifecycle.store.shared import former_name
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)


class SharedStoreReader:
    """The ClusterBackupStores and Namespaces that one reconciliation has read. Make a new reader for each."""

    def __init__(self) -> None:
        self._read: dict[tuple[Kind, str], asyncio.Task[JsonObject | None]] = {}

    async def resolve(self, kube: KubeClient, store: BackupStore, policy: OperatorPolicy) -> StoreLookup:
        """Return a BackupStore with its settings; see `lifecycle.store.resolve`. Raises what the API server raises."""
        reference = store.spec.cluster_store_ref
        if reference is None:
            return StoreLookup(store)
        if not policy.cluster_stores:
            message = f"BackupStore {store.name} names a ClusterBackupStore, and this operator does not work on these."
            remedy = "Ask an administrator to set the Helm value stores.cluster, and to leave watchNamespaces empty."
            return StoreLookup(missing=f"{message} {remedy}", missing_reason=Reason.CLUSTER_STORE_NOT_FOUND)
        cluster, namespace = await asyncio.gather(
            self._get(kube, CLUSTER_BACKUP_STORE, reference.name), self._get(kube, NAMESPACE, store.namespace)
        )
        try:
            found = ClusterBackupStore.model_validate(cluster) if cluster is not None else None
        except ValidationError as error:
            # The CRD rejects what does not parse. An object from before an upgrade may still not parse.
            problems = error.errors(include_input=False, include_url=False)
            log.error("ClusterBackupStore %s does not parse: %s", reference.name, problems)
            message = f"ClusterBackupStore {reference.name} is of another release. Ask an administrator to correct it."
            return StoreLookup(missing=message, missing_reason=Reason.INVALID_INPUT)
        parsed = Object.model_validate(namespace) if namespace is not None else None
        name = former_name(found, parsed) if found is not None and parsed is not None else None
        earlier = await self._get(kube, NAMESPACE, name) if name is not None else None
        former = Object.model_validate(earlier) if earlier is not None else None
        return resolve(store, found, parsed, policy.account.namespace, former)

    async def _get(self, kube: KubeClient, kind: Kind, name: str) -> JsonObject | None:
        key = kind, name
        if key not in self._read:
            self._read[key] = asyncio.create_task(kube.get(kind, name))
        return await self._read[key]
