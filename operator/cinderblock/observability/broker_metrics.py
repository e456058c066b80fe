"""Metrics of the broker since its start."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from cinderblock.observability.request_metrics import RequestMetrics

REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""A signature for a known token takes about 1 ms, the first request of a token 10 to 50 ms."""


class BrokerMetrics(RequestMetrics):
    """Requests by path and code, refusals by reason, the certificate, and metrics of the process."""

    def __init__(self) -> None:
        super().__init__("cinderblock_broker_request_duration_seconds", "path", REQUEST_BUCKETS)
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

    def count_refusal(self, reason: str) -> None:
        """Record a request that was refused. ``reason`` is a `Reason`."""
        self._refusals.labels(reason).inc()

    def set_certificate_expiry(self, seconds: float) -> None:
        """Record when the certificate expires, in seconds since 1970."""
        self._expiry.set(seconds)
