"""Metrics with their names and labels, from figures that were just read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from cinderblock.observability.cluster_state import ClusterState, OperationKind
from cinderblock.observability.operator_metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Everything that is read when a page of metrics is asked for.

    Attributes:
        version: ours.
        now: seconds since 1970.
        is_leading: whether this process acts.
        watch_silence: seconds since the most silent watch was heard; None: nobody knows.
        queue: keys by what they wait for: due, delayed, running.
        requests: requests to the API server by verb, resource and code; code 0: no answer.
        mover_limit: movers that may run at once.
        state: the last reading of the cluster; None: this process does not read it, or could not yet.
        state_age: seconds since that reading.
    """

    version: str
    now: float
    is_leading: bool = True
    watch_silence: float | None = None
    queue: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    mover_limit: int = 0
    state: ClusterState | None = None
    state_age: float = 0.0


class MetricsPage:
    """A page of metrics: instruments, figures, and what the kernel says of this process."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_RegistryCollector(metrics.registry))
        ProcessCollector(registry=self._registry)

    def render(self, figures: MetricsSnapshot, accept: str = "") -> tuple[bytes, str]:
        """The page in the format that an Accept header asks for, and its content type."""
        # A page of its own for every request: figures of one are never seen in another.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_RegistryCollector(self._registry))
        registry.register(_CallbackCollector(lambda: families(figures)))
        encoder, content_type = choose_encoder(accept)
        return encoder(registry), content_type


class _RegistryCollector(Collector):
    """All of another registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @override
    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _CallbackCollector(Collector):
    """What a function gives."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    @override
    def collect(self) -> Iterable[Metric]:
        return self._collect()


def families(figures: MetricsSnapshot) -> Iterator[Metric]:
    """The figures as metrics."""
    yield from _process(figures)
    if figures.state is not None:
        age = "Time since the cluster was read for the figures that come from its objects."
        yield GaugeMetricFamily("cinderblock_state_age_seconds", age, value=figures.state_age)
        yield from _operations(figures.state, figures.now)
        yield from _movers(figures.state, figures.mover_limit)
        yield from _volumes(figures.state)
        yield from _stores(figures.state)


def _process(figures: MetricsSnapshot) -> Iterator[Metric]:
    build = GaugeMetricFamily("cinderblock_build_info", "Always 1; which version this is.", labels=["version"])
    build.add_metric([figures.version], 1)
    yield build
    yield GaugeMetricFamily("cinderblock_leader", "Whether this process acts: 1 or 0.", value=figures.is_leading)
    if figures.watch_silence is not None:
        silence = "Time since the most silent watch was heard."
        yield GaugeMetricFamily("cinderblock_watch_silence_seconds", silence, value=figures.watch_silence)
    queue = GaugeMetricFamily(
        "cinderblock_queue_keys",
        "Objects that wait for their turn (due), for a time, or are worked on.",
        labels=["state"],
    )
    for state, count in figures.queue.items():
        queue.add_metric([state], count)
    yield queue
    requests = CounterMetricFamily(
        "cinderblock_kubernetes_requests",
        "Requests to the API server, but for watches; code 0: no answer.",
        labels=["verb", "resource", "code"],
    )
    for (verb, resource, code), count in sorted(figures.requests.items()):
        requests.add_metric([verb, resource, str(code)], count)
    yield requests


def _operations(state: ClusterState, now: float) -> Iterator[Metric]:
    objects = GaugeMetricFamily("cinderblock_objects", "Objects of ours, by phase.", labels=["kind", "phase"])
    for (kind, phase), count in sorted(state.objects.items()):
        objects.add_metric([kind, phase], count)
    yield objects
    age = GaugeMetricFamily(
        "cinderblock_oldest_pending_operation_age_seconds",
        "Age of the oldest operation that has not ended; 0: there is none.",
        labels=["operation"],
    )
    for operation in OperationKind:
        since = state.oldest_pending.get(operation)
        age.add_metric([operation], 0.0 if since is None else max(0.0, now - since))
    yield age
    failures = GaugeMetricFamily(
        "cinderblock_last_failure_timestamp_seconds",
        "When an operation failed last whose object is still there.",
        labels=["operation"],
    )
    for operation, when in sorted(state.last_failures.items()):
        failures.add_metric([operation], when)
    yield failures


def _movers(state: ClusterState, limit: int) -> Iterator[Metric]:
    movers = GaugeMetricFamily(
        "cinderblock_movers", "Movers that run, and operations queued for one.", labels=["state"]
    )
    movers.add_metric(["running"], state.running_movers)
    movers.add_metric(["queued"], state.queued_movers)
    yield movers
    yield GaugeMetricFamily("cinderblock_movers_limit", "Movers that may run at once in the cluster.", value=limit)


def _volumes(state: ClusterState) -> Iterator[Metric]:
    yield _per_volume(
        "cinderblock_volume_first_request_timestamp_seconds",
        "Creation of the oldest VolumeBackup of the volume that is still there.",
        {(v.namespace, v.name): v.first_request for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_success_timestamp_seconds",
        "The instant whose data the newest complete backup of the volume holds.",
        {(v.namespace, v.name): v.last_success for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_incomplete_timestamp_seconds",
        "The instant whose data the newest backup of the volume that lacks unreadable files holds.",
        {(v.namespace, v.name): v.last_incomplete for v in state.volumes},
    )
    yield _per_volume(
        "cinderblock_volume_last_failure_timestamp_seconds",
        "When the newest failed backup of the volume had failed.",
        {(v.namespace, v.name): v.last_failure for v in state.volumes},
    )


def _per_volume(name: str, text: str, values: Mapping[tuple[str, str], float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["volume_namespace", "volume"])
    for (namespace, volume), value in values.items():
        if value is not None:
            family.add_metric([namespace, volume], value)
    return family


def _stores(state: ClusterState) -> Iterator[Metric]:
    ready = GaugeMetricFamily(
        "cinderblock_store_ready",
        "Whether the store answered when asked last: 1 or 0.",
        labels=["store_namespace", "store"],
    )
    stored = GaugeMetricFamily(
        "cinderblock_store_stored_bytes",
        "Bytes that VolumeBackups have in the store.",
        labels=["store_namespace", "store"],
    )
    for store in state.stores:
        ready.add_metric([store.namespace, store.name], store.is_ready)
        stored.add_metric([store.namespace, store.name], store.stored_bytes)
    yield ready
    yield stored
