"""The page of metrics, with names, labels and help texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from cinderblock.lifecycle.alarms.protection import Protection
from cinderblock.observability import schedule_metrics
from cinderblock.observability.cluster_state import ClusterState, OperationKind
from cinderblock.observability.operator_metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Values that are read for each request of the page.

    Attributes:
        version: version of Cinderblock.
        now: seconds since 1970.
        is_leading: whether this process is the leader.
        watch_silence: seconds since the last event of the most idle watch; None if unknown.
        queue: number of keys by state: due, delayed, running.
        requests: requests to the API server by verb, resource and code; code 0 means no response.
        unreadable_namespaces: namespaces of the operator's list that it may not read.
        mover_limit: maximum number of concurrent movers.
        state: the last reading of the cluster; None if this process does not read it, or has not yet.
        state_age: seconds since that reading.
    """

    version: str
    now: float
    is_leading: bool = True
    watch_silence: float | None = None
    queue: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    unreadable_namespaces: int = 0
    mover_limit: int = 0
    state: ClusterState | None = None
    state_age: float = 0.0


class MetricsPage:
    """A page with the metrics of the operator, of a snapshot, and of this process."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_RegistryCollector(metrics.registry))
        ProcessCollector(registry=self._registry)

    def render(self, snapshot: MetricsSnapshot, accept: str = "") -> tuple[bytes, str]:
        """Return the page in the format that an Accept header selects, and its content type."""
        # Each request has its own registry, so concurrent requests do not mix their snapshots.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_RegistryCollector(self._registry))
        registry.register(_CallbackCollector(lambda: families(snapshot)))
        encoder, content_type = choose_encoder(accept)
        return encoder(registry), content_type


class _RegistryCollector(Collector):
    """Collects all metrics of another registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @override
    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _CallbackCollector(Collector):
    """Collects the metrics that a function returns."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    @override
    def collect(self) -> Iterable[Metric]:
        return self._collect()


def families(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    """Yield the metrics of a snapshot."""
    yield from _process(snapshot)
    if snapshot.state is not None:
        age = "Time since the objects of the cluster were read."
        yield GaugeMetricFamily("cinderblock_state_age_seconds", age, value=snapshot.state_age)
        yield from _operations(snapshot.state, snapshot.now)
        yield from _movers(snapshot.state, snapshot.mover_limit)
        yield from _volumes(snapshot.state, snapshot.now)
        yield from _alarms(snapshot.state)
        yield from _stores(snapshot.state)
        yield from schedule_metrics.families(snapshot.state.schedules)
        yield schedule_metrics.counts(len(snapshot.state.schedules), snapshot.state.suspended_schedules)


def _process(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    build = GaugeMetricFamily("cinderblock_build_info", "Always 1. The label is the version.", labels=["version"])
    build.add_metric([snapshot.version], 1)
    yield build
    yield GaugeMetricFamily(
        "cinderblock_leader", "1 if this process is the leader, otherwise 0.", value=snapshot.is_leading
    )
    if snapshot.watch_silence is not None:
        silence = "Time since the last event of the most idle watch."
        yield GaugeMetricFamily("cinderblock_watch_silence_seconds", silence, value=snapshot.watch_silence)
    unreadable = "Namespaces of watchNamespaces that the operator may not read, and skips."
    yield GaugeMetricFamily("cinderblock_unreadable_namespaces", unreadable, value=snapshot.unreadable_namespaces)
    queue = GaugeMetricFamily(
        "cinderblock_queue_keys",
        "Objects in the work queue: due, delayed, or running.",
        labels=["state"],
    )
    for state, count in snapshot.queue.items():
        queue.add_metric([state], count)
    yield queue
    requests = CounterMetricFamily(
        "cinderblock_kubernetes_requests",
        "Requests to the API server except watches. Code 0 means no response.",
        labels=["verb", "resource", "code"],
    )
    for (verb, resource, code), count in sorted(snapshot.requests.items()):
        requests.add_metric([verb, resource, str(code)], count)
    yield requests


def _operations(state: ClusterState, now: float) -> Iterator[Metric]:
    objects = GaugeMetricFamily(
        "cinderblock_objects", "Objects of Cinderblock by kind and phase.", labels=["kind", "phase"]
    )
    for (kind, phase), count in sorted(state.objects.items()):
        objects.add_metric([kind, phase], count)
    yield objects
    age = GaugeMetricFamily(
        "cinderblock_oldest_pending_operation_age_seconds",
        "Age of the oldest unfinished operation, or 0.",
        labels=["operation"],
    )
    for operation in OperationKind:
        since = state.oldest_pending.get(operation)
        age.add_metric([operation], 0.0 if since is None else max(0.0, now - since))
    yield age
    failures = GaugeMetricFamily(
        "cinderblock_last_failure_timestamp_seconds",
        "Time of the last failure among existing objects.",
        labels=["operation"],
    )
    for operation, failure in sorted(state.last_failures.items()):
        failures.add_metric([operation], failure.time)
    yield failures


def _movers(state: ClusterState, limit: int) -> Iterator[Metric]:
    movers = GaugeMetricFamily(
        "cinderblock_movers", "Running movers, and operations that wait for one.", labels=["state"]
    )
    movers.add_metric(["running"], state.running_movers)
    movers.add_metric(["queued"], state.queued_movers)
    yield movers
    yield GaugeMetricFamily(
        "cinderblock_movers_limit", "Maximum number of concurrent movers in the cluster.", value=limit
    )


def _volumes(state: ClusterState, now: float) -> Iterator[Metric]:
    yield _per_volume(
        "cinderblock_volume_first_request_timestamp_seconds",
        "Creation time of the oldest existing VolumeBackup of the volume.",
        {(v.namespace, v.name): v.first_request for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_success_timestamp_seconds",
        "Time of the data in the newest complete backup of the volume.",
        {(v.namespace, v.name): v.last_success for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_incomplete_timestamp_seconds",
        "Time of the data in the newest backup of the volume that lacks unreadable files.",
        {(v.namespace, v.name): v.last_incomplete for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_failure_timestamp_seconds",
        "Time of the last failed backup of the volume.",
        {(v.namespace, v.name): v.last_failure for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_verified_timestamp_seconds",
        "Time of the last verification of a backup of the volume that is known to be sound.",
        {(v.namespace, v.name): v.last_verified for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_protected_since_timestamp_seconds",
        "Time since which a schedule selects the volume, or creation of its oldest existing VolumeBackup, if earlier.",
        {(v.namespace, v.name): v.protected_since for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_drills_since_timestamp_seconds",
        "Time since which a schedule has drills for the volume.",
        {(v.namespace, v.name): v.drills_since for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_copies",
        "Number of stores that hold the newest complete backup of the volume: its own, and those with a verified copy.",
        {(v.namespace, v.name): v.newest.stores if v.newest is not None else None for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_copy_servers",
        "Number of different S3 servers among these stores.",
        {(v.namespace, v.name): v.newest.servers if v.newest is not None else None for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_copies_locked",
        "Number of these stores that lock the backup now.",
        {(v.namespace, v.name): v.newest.locked(now) if v.newest is not None else None for v in state.volumes},
    )
    levels = GaugeMetricFamily(
        "cinderblock_volume_last_verified_level_timestamp_seconds",
        "Time of the last verification of this level that a backup of the volume passed.",
        labels=["volume_namespace", "volume", "level"],
    )
    for volume in state.volumes:
        for level, time in volume.last_levels.items():
            levels.add_metric([volume.namespace, volume.name, level], time)
    yield levels


def _alarms(state: ClusterState) -> Iterator[Metric]:
    text = "Suspicious VolumeBackups that nobody has accepted."
    suspicious = GaugeMetricFamily("cinderblock_backups_suspicious", text, labels=["volume_namespace"])
    for namespace, count in sorted(state.suspicious.items()):
        suspicious.add_metric([namespace], count)
    yield suspicious
    damaged = GaugeMetricFamily(
        "cinderblock_backups_damaged", "VolumeBackups that a verification found damaged.", labels=["volume_namespace"]
    )
    for namespace, count in sorted(state.damaged.items()):
        damaged.add_metric([namespace], count)
    yield damaged
    for state_of_volumes, name, text in (
        (Protection.UNPROTECTED, "cinderblock_volumes_unprotected", "Bound volumes that no schedule selects."),
        (Protection.OPTED_OUT, "cinderblock_volumes_opted_out", "Bound volumes that are left out of all schedules."),
        (
            Protection.NOT_OPTED_IN,
            "cinderblock_volumes_not_opted_in",
            "Bound volumes for which only schedules with optIn exist, and that did not opt in.",
        ),
    ):
        volumes = GaugeMetricFamily(name, text, labels=["volume_namespace"])
        for namespace, counts in sorted(state.protection.items()):
            volumes.add_metric([namespace], counts[state_of_volumes])
        yield volumes


def _per_volume(name: str, text: str, values: Mapping[tuple[str, str], float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["volume_namespace", "volume"])
    for (namespace, volume), value in values.items():
        if value is not None:
            family.add_metric([namespace, volume], value)
    return family


def _stores(state: ClusterState) -> Iterator[Metric]:
    ready = GaugeMetricFamily(
        "cinderblock_store_ready",
        "1 if the last check of the store succeeded, otherwise 0. A ClusterBackupStore, without store_namespace,"
        " reports for its BackupStores, except those that are not ready for a cause of their own.",
        labels=["store_namespace", "store"],
    )
    stored = GaugeMetricFamily(
        "cinderblock_store_stored_bytes",
        "Bytes of VolumeBackups in the store.",
        labels=["store_namespace", "store"],
    )
    for store in state.stores:
        if not store.is_shared:
            ready.add_metric([store.namespace, store.name], store.is_ready)
        if store.namespace:
            stored.add_metric([store.namespace, store.name], store.stored_bytes)
    yield ready
    yield stored
    yield _disputes(state)
    yield from _imports(state)
    yield from _copies(state)


def _copies(state: ClusterState) -> Iterator[Metric]:
    """Yield the metrics of BackupStores whose backups are copied."""
    counts = GaugeMetricFamily(
        "cinderblock_store_copies",
        "Available backups of the store by state of their copy in another one: copied, pending, or pending and failed.",
        labels=["store_namespace", "store", "target", "state"],
    )
    late = GaugeMetricFamily(
        "cinderblock_store_copies_late",
        "1 if copies of backups of the store are late or impossible, otherwise 0.",
        labels=["store_namespace", "store"],
    )
    for store in state.stores:
        for (target, copy_state), count in store.copies.items():
            counts.add_metric([store.namespace, store.name, target, copy_state], count)
        if store.copies_are_late is not None:
            late.add_metric([store.namespace, store.name], store.copies_are_late)
    yield counts
    yield late


def _disputes(state: ClusterState) -> Metric:
    """Return the metric of BackupStores that another cluster owns. Those of ClusterBackupStores have no owner."""
    disputed = GaugeMetricFamily(
        "cinderblock_store_disputed",
        "1 if another cluster owns the place of the store, and this one writes to it, otherwise 0.",
        labels=["store_namespace", "store"],
    )
    for store in state.stores:
        if store.namespace and not store.cluster_store:
            disputed.add_metric([store.namespace, store.name], store.disputed_since is not None)
    return disputed


def _imports(state: ClusterState) -> Iterator[Metric]:
    """Yield the metrics of BackupStores that import backups."""
    imported = GaugeMetricFamily(
        "cinderblock_store_imported",
        "1 if each selected backup of the store has a VolumeBackup, otherwise 0.",
        labels=["store_namespace", "store"],
    )
    last = GaugeMetricFamily(
        "cinderblock_store_last_import_timestamp_seconds",
        "Time when the last complete import of the store began.",
        labels=["store_namespace", "store"],
    )
    for store in state.stores:
        if store.is_imported is not None:
            imported.add_metric([store.namespace, store.name], store.is_imported)
        if store.last_import is not None:
            last.add_metric([store.namespace, store.name], store.last_import)
    yield imported
    yield last
