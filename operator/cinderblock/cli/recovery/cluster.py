"""The new cluster: namespaces, StorageClasses, claims, and the BackupStores that recover them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cinderblock.api.conditions import ConditionType
from cinderblock.api.kubernetes import StorageClass
from cinderblock.api.meta import Object
from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.cli.output import warn
from cinderblock.errors import AccessDenied, InvalidInput, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey, ClusterView
from cinderblock.lifecycle.store import shared
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.reasons import Reason

NAMED: Final = 10
"""Namespaces that one message names."""


async def read_view(kube: KubeClient, namespaces: Iterable[str]) -> ClusterView:
    """Return what the cluster has in these namespaces. Raises what the API server answers."""
    existing, claims, deleting = set(), set[ClaimKey](), set[ClaimKey]()
    for name in sorted(set(namespaces)):
        if await kube.get(kinds.NAMESPACE, name) is None:
            continue
        existing.add(name)
        for body in await kube.list(kinds.PVC, name):
            key = name, body["metadata"]["name"]
            claims.add(key)
            deleting |= {key} if "deletionTimestamp" in body["metadata"] else set()
    classes = await _classes(kube)
    default = next((each.name for each in classes or () if each.is_default), None)
    names = None if classes is None else frozenset(each.name for each in classes)
    return ClusterView(frozenset(existing), frozenset(claims), names, default, frozenset(deleting))


async def _classes(kube: KubeClient) -> list[StorageClass] | None:
    """Return the StorageClasses; None if the caller may not read them."""
    try:
        return [StorageClass.model_validate(body) for body in await kube.list(kinds.STORAGE_CLASS)]
    except AccessDenied as error:
        warn(f"StorageClasses are not checked: {error.message}")
        return None


async def name_of(kube: KubeClient) -> str:
    """Return which cluster a client leads to, for people: address, and context of the kubeconfig."""
    config = await kube.config()
    address = urlsplit(config.server)
    # A URL may contain a password.
    server = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
    return f"the cluster {server} (context {config.context})" if config.context else f"the cluster {server}"


async def check_served(kube: KubeClient) -> None:
    """Raise NotFound if the cluster does not serve our kinds."""
    if not await kube.serves(kinds.VOLUME_RESTORE):
        raise NotFound("Cannot recover: the cluster does not serve VolumeRestores. Install the chart first.")


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """The BackupStores of the target namespaces.

    Attributes:
        names: name of the BackupStore by namespace.
        problems: what is wrong, by namespace.
        may_come: whether waiting can solve all problems.
        endpoints: endpoints of the BackupStores that are not that of the plan.
    """

    names: dict[str, str]
    problems: dict[str, str]
    may_come: bool
    endpoints: frozenset[str] = frozenset()

    def raise_problems(self) -> None:
        """Raise InvalidInput if there are problems."""
        if self.problems:
            listed = [f"{namespace}: {problem}" for namespace, problem in sorted(self.problems.items())]
            more = f"; and {len(listed) - NAMED} more namespaces" if len(listed) > NAMED else ""
            raise InvalidInput(f"Cannot recover, and nothing was restored. {'; '.join(listed[:NAMED])}{more}")


async def check_stores(
    kube: KubeClient, namespaces: Iterable[str], store_name: str | None, location: StoreLocation
) -> StoreCheck:
    """Check the BackupStore of each namespace: it exists, is ready, and is the place from which the plan was made.

    Args:
        kube: the cluster.
        namespaces: existing namespaces.
        store_name: name of the BackupStore; None: the default one of each namespace.
        location: where the plan was made.
    """
    names, problems, endpoints, may_come = dict[str, str](), dict[str, str](), set[str](), True
    for namespace in sorted(namespaces):
        store, missing = await _choose(kube, namespace, store_name)
        if store is None:
            problems[namespace] = missing
            continue
        names[namespace] = store.name
        place, unknown = await _known_place(kube, store)
        misplaced = unknown or _misplaced(store, place, location)
        if misplaced:
            problems[namespace], may_come = misplaced, False
        elif not store.is_ready and not _can_be_read(store):
            problems[namespace] = f"BackupStore {store.name} is not ready: {_why_not_ready(store)}"
        if place is not None and place.endpoint != _endpoint(location.endpoint_url):
            endpoints.add(place.endpoint)
    return StoreCheck(names, problems, may_come, frozenset(endpoints))


class _Place(NamedTuple):
    """Bucket, prefix and endpoint of a BackupStore."""

    container: str
    prefix: str
    endpoint: str


def _endpoint(url: str | None) -> str:
    return url.rstrip("/") if url else "AWS"


async def _choose(kube: KubeClient, namespace: str, name: str | None) -> tuple[BackupStore | None, str]:
    """Return the BackupStore, or why there is none."""
    if name is None:
        bodies = await kube.list(kinds.BACKUP_STORE, namespace)
        lookup = default_store([BackupStore.model_validate(body) for body in bodies], namespace)
        return lookup.store, f"{lookup.missing} Or give --store."
    body = await kube.get(kinds.BACKUP_STORE, name, namespace)
    store = BackupStore.model_validate(body) if body is not None else None
    if store is not None and store.is_leaving:
        return None, f"BackupStore {name} is being deleted"
    return store, f"BackupStore {name} does not exist"


def _can_be_read(store: BackupStore) -> bool:
    """Return whether a store answers, and takes no new backups because the lost cluster still owns it."""
    ready = next((c for c in store.status.conditions if c.type == ConditionType.READY), None)
    return ready is not None and ready.reason == Reason.FOREIGN_OWNER


def _why_not_ready(store: BackupStore) -> str:
    ready = next((each for each in store.status.conditions if each.type == "Ready"), None)
    return ready.message if ready else "the operator has not checked it yet"


async def _known_place(kube: KubeClient, store: BackupStore) -> tuple[_Place | None, str]:
    """Return the place of a BackupStore if it is known, and what is wrong with it."""
    try:
        return await _place(kube, store), ""
    except AccessDenied as error:
        warn(f"the place of BackupStore {store.namespace}/{store.name} is not checked: {error.message}")
        return None, ""
    except InvalidInput as error:
        return None, error.message


def _misplaced(store: BackupStore, place: _Place | None, location: StoreLocation) -> str:
    """Return how the place of a BackupStore differs from that of the plan; empty if it does not, or is not known.

    The endpoint may have another address inside the cluster, so only bucket and prefix count. After the import, the
    content digest proves that the operator has read the same backup.
    """
    here = location.container, location.prefix
    if place is None or place[:2] == here:
        return ""
    there, plan = (f"s3://{container}/{prefix}".rstrip("/") for container, prefix in (place[:2], here))
    return f"BackupStore {store.name} holds {there}, and the plan is of {plan}. Correct --from, or the BackupStore"


async def _place(kube: KubeClient, store: BackupStore) -> _Place | None:
    """Return the place of a BackupStore; None if its ClusterBackupStore is missing. Raises AccessDenied."""
    reference = store.spec.cluster_store_ref
    if reference is None:
        return _Place(store.spec.container, store.spec.prefix, _endpoint(store.spec.endpoint_url))
    body = await kube.get(kinds.CLUSTER_BACKUP_STORE, reference.name)
    own = await kube.get(kinds.NAMESPACE, store.namespace)
    if body is None or own is None:
        return None
    cluster, namespace = ClusterBackupStore.model_validate(body), Object.model_validate(own)
    former_name = shared.former_name(cluster, namespace)
    former = await kube.get(kinds.NAMESPACE, former_name) if former_name else None
    prefix = shared.prefix_of(cluster, namespace, Object.model_validate(former) if former else None)
    return _Place(cluster.spec.container, prefix, _endpoint(cluster.spec.endpoint_url))
