"""Dependencies that all gatherers share: API client, stores, policy, clock, metrics and caches."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from cinderblock.api.broker import CA_BYTES
from cinderblock.api.meta import Object, ObjectMeta
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_identity import ClusterIdentity
from cinderblock.controller.id_index import IdIndex
from cinderblock.controller.imports.pending import PendingReleases
from cinderblock.controller.large_namespaces import LargeNamespaces
from cinderblock.controller.reconcile.admission import MoverAdmission
from cinderblock.controller.reconcile.failed_actions import FailedActions
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.singleflight import SingleFlight
from cinderblock.controller.stores.certificates import certificates_in
from cinderblock.controller.stores.expiry import ExpiryRuns
from cinderblock.controller.stores.lock_probes import LockProbes
from cinderblock.controller.stores.owners import OwnerMarkers
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.controller.stores.shared import SharedStoreReader
from cinderblock.controller.verifications.pending import PendingRecords
from cinderblock.errors import PermanentError
from cinderblock.kube.client import JsonObjects, KubeClient
from cinderblock.kube.kinds import BACKUP_VERIFICATION, Kind
from cinderblock.lifecycle.observed import OperatorPolicy, StoreLookup
from cinderblock.observability.operator_metrics import OperatorMetrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)


def wall_clock() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


async def _ignore(_key: ObjectKey) -> None:
    """Do nothing: without a queue, the resync comes to each object."""


@dataclass(frozen=True, slots=True)
class Context:
    """Shared dependencies of the gatherers, and of what executes their decisions.

    Attributes:
        kube: the API server.
        stores: the open stores.
        policy: the operator's settings that decisions depend on.
        clock: the current time.
        metrics: measurements of this process.
        admission: which movers of backups and restores may start.
        verification_admission: which movers of verifications may start.
        failed_actions: failures of the API server that repeat.
        singleflight: shares concurrent reads.
        large_namespaces: which namespaces have very many objects.
        id_index: which VolumeBackups have which id, read once for many imports.
        cluster: the identity of the cluster.
        lock_probes: whether containers lock objects, for stores with spec.objectLock.
        references: which backups need packs of which others.
        expiries: removals of expired backups.
        owners: the owner markers of stores.
        pending_records: which backups the findings of verifications still change.
        pending_releases: released backups that BackupStores have not taken note of yet.
        secrets: the Secrets of stores, new for each reconciliation.
        shared: the ClusterBackupStores of stores, new for each reconciliation.
        enqueue: has another object reconciled soon.
    """

    kube: KubeClient
    stores: StorePool
    policy: OperatorPolicy
    clock: Callable[[], datetime] = wall_clock
    metrics: OperatorMetrics = field(default_factory=OperatorMetrics)
    admission: MoverAdmission = field(default_factory=MoverAdmission)
    verification_admission: MoverAdmission = field(default_factory=MoverAdmission)
    failed_actions: FailedActions = field(default_factory=FailedActions)
    singleflight: SingleFlight = field(default_factory=SingleFlight)
    large_namespaces: LargeNamespaces = field(default_factory=LargeNamespaces)
    id_index: IdIndex = field(default_factory=IdIndex)
    cluster: ClusterIdentity = field(default_factory=ClusterIdentity)
    lock_probes: LockProbes = field(default_factory=LockProbes)
    references: ReferenceLookups = field(default_factory=ReferenceLookups)
    expiries: ExpiryRuns = field(default_factory=ExpiryRuns)
    owners: OwnerMarkers = field(default_factory=OwnerMarkers)
    pending_records: PendingRecords = field(default_factory=PendingRecords)
    pending_releases: PendingReleases = field(default_factory=PendingReleases)
    secrets: SecretReader = field(default_factory=SecretReader)
    shared: SharedStoreReader = field(default_factory=SharedStoreReader)
    enqueue: Callable[[ObjectKey], Awaitable[None]] = _ignore

    def admission_of(self, kind: str) -> MoverAdmission:
        """Return what decides which movers of this kind of operation may start."""
        return self.verification_admission if kind == BACKUP_VERIFICATION.kind else self.admission

    async def resolve(self, store: BackupStore) -> StoreLookup:
        """Return a BackupStore with its settings, which a ClusterBackupStore may have."""
        found = await self.shared.resolve(self.kube, store, self.policy)
        if not isinstance(found.store, SharedStore) or found.store.spec.ca_secret_ref is None:
            return found
        try:
            secret = await self.secrets.read(self.kube, found.store, found.store.spec.ca_secret_ref.name)
        except PermanentError:
            # Opening the store reports it, and no mover starts without the certificates.
            return found
        certificates = certificates_in(secret.data.get("ca.crt", b""))
        if len(certificates) > CA_BYTES:
            return found
        return replace(found, store=found.store.model_copy(update={"ca_certificates": certificates}))

    async def get(self, model: type[T], kind: Kind, name: str, namespace: str | None = None) -> T | None:
        """Return an object as a model; None if it does not exist."""
        body = await self.kube.get(kind, name, namespace)
        return model.model_validate(body) if body is not None else None

    async def list(self, model: type[T], kind: Kind, namespace: str | None = None, *, labels: str = "") -> list[T]:
        """Return all objects as models. An object that does not parse is left out: it must not hide the others."""

        async def read() -> list[T]:
            return parse_all(model, await self.kube.list(kind, namespace, labels=labels))

        return await self.singleflight.do((model, kind, namespace, labels), read)

    async def bodies(self, kind: Kind, namespace: str | None = None, *, fields: str = "") -> JsonObjects:
        """Return all objects as the API server gave them. Concurrent callers share them: do not change them."""
        read = partial(self.kube.list, kind, namespace, fields=fields)
        return await self.singleflight.do((kind, namespace, fields), read)


def parse_all(model: type[T], bodies: list[dict[str, Any]]) -> list[T]:
    """Return objects as models. An object that does not parse is logged and left out."""
    parsed = []
    for body in bodies:
        try:
            parsed.append(model.model_validate(body))
        except ValidationError as error:
            metadata = ObjectMeta.model_validate(body.get("metadata", {}))
            problems = error.errors(include_input=False, include_url=False)
            log.warning("Object %s/%s does not parse: %s", metadata.namespace, metadata.name, problems)
    return parsed
