"""Metrics of the gateway since its start."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Showing a backup takes about 5 ms, listing 10,000 of them 1 s. 30 s is the time limit of one API call."""


class GatewayMetrics:
    """A histogram of requests by operation and code, and metrics of the process.

    Attributes:
        registry: the registry of these metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "cinderblock_gateway_request_duration_seconds",
            "Time from the head of a request to the end of the response.",
            ["operation", "code"],
            registry=self.registry,
            buckets=REQUEST_BUCKETS,
        )

    def observe_request(self, operation: str, code: int, seconds: float) -> None:
        """Record a request. ``operation`` must be one of a fixed set, so that callers cannot create series."""
        self._requests.labels(operation, str(code)).observe(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the Accept header selects, and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
