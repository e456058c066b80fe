"""Metrics of the broker since its start."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""A signature for a known token takes about 1 ms, the first request of a token 10 to 50 ms."""


class BrokerMetrics:
    """Requests by path and code, refusals by reason, the certificate, and metrics of the process.

    Attributes:
        registry: the registry of these metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "cinderblock_broker_request_duration_seconds",
            "Time from the head of a request to the end of the response.",
            ["path", "code"],
            registry=self.registry,
            buckets=REQUEST_BUCKETS,
        )
        self._refusals = Counter(
            "cinderblock_broker_refusals",
            "Requests that were refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._expiry = Gauge(
            "cinderblock_broker_certificate_expiry_timestamp_seconds",
            "Time when the certificate of the broker expires, in seconds since 1970.",
            registry=self.registry,
        )

    def observe_request(self, path: str, code: int, seconds: float) -> None:
        """Record a request. ``path`` must be one of a fixed set, so that callers cannot create series."""
        self._requests.labels(path, str(code)).observe(seconds)

    def count_refusal(self, reason: str) -> None:
        """Record a request that was refused. ``reason`` is a `Reason`."""
        self._refusals.labels(reason).inc()

    def set_certificate_expiry(self, seconds: float) -> None:
        """Record when the certificate expires, in seconds since 1970."""
        self._expiry.set(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the Accept header selects, and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
