"""Metrics of the gateway since its start."""

from __future__ import annotations

from typing import Final

from cinderblock.observability.request_metrics import RequestMetrics

REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Showing a backup takes about 5 ms, listing 10,000 of them 1 s. 30 s is the time limit of one API call."""


class GatewayMetrics(RequestMetrics):
    """Requests by operation and code, and metrics of the process."""

    def __init__(self) -> None:
        super().__init__("cinderblock_gateway_request_duration_seconds", "operation", REQUEST_BUCKETS)
