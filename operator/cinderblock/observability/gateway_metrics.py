"""What the gateway has answered, and how quickly, since it started."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds. Showing a backup takes some 5 ms, listing 10,000 of them 1 s, and 30 s is the limit of one API call."""


class GatewayMetrics:
    """A histogram of requests by operation and code, and figures of the process.

    Attributes:
        registry: where they are collected.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "cinderblock_gateway_request_duration_seconds",
            "Time from the head of a request to the end of its answer.",
            ["operation", "code"],
            registry=self.registry,
            buckets=REQUEST_BUCKETS,
        )

    def answered(self, operation: str, code: int, seconds: float) -> None:
        """A request was answered. ``operation`` is one of a fixed set of words, whatever callers invent."""
        self._requests.labels(operation, str(code)).observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All figures and their content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
