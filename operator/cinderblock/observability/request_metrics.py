"""Metrics that all servers of HTTP have: requests, and the process."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder


class RequestMetrics:
    """A histogram of requests by kind and code, and metrics of the process.

    Args:
        name: name of the histogram.
        label: label with the kind of a request.
        buckets: upper limits of the buckets, in seconds.

    Attributes:
        registry: the registry of these metrics.
    """

    def __init__(self, name: str, label: str, buckets: Sequence[float]) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            name,
            "Time from the head of a request to the end of the response.",
            [label, "code"],
            registry=self.registry,
            buckets=buckets,
        )

    def observe_request(self, kind: str, code: int, seconds: float) -> None:
        """Record a request. ``kind`` must be one of a fixed set, so that callers cannot create series."""
        self._requests.labels(kind, str(code)).observe(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the Accept header selects, and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
