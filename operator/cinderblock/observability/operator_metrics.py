"""What only this process knows: how long things took, how often, and how they ended, since it started."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from cinderblock.observability.cluster_state import OperationKind

RECONCILE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds. Reading the world takes some 20 ms; 10 s is when a store is given up, 30 s the limit of one API call."""
OPERATION_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0)
"""Seconds. A small volume takes three, a large one hours."""

SUCCESS: Final = "success"
ERROR: Final = "error"
RESULTS: Final = (SUCCESS, ERROR)


class OperatorMetrics:
    """Counters and histograms, in a registry of their own. Every series is there from the start, at zero.

    Attributes:
        registry: where they are collected.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._operations = Histogram(
            "cinderblock_operation_duration_seconds",
            "Time from the request to the end of operations that ended in this process's time.",
            ["operation", "result"],
            registry=self.registry,
            buckets=OPERATION_BUCKETS,
        )
        self._bytes = Counter(
            "cinderblock_operation_bytes",
            "Bytes of operations that succeeded: logical and transferred of the volume, stored in the store, restored.",
            ["operation", "measure"],
            registry=self.registry,
        )
        self._reconciles = Histogram(
            "cinderblock_reconcile_duration_seconds",
            "Time that one look at one object took.",
            ["kind", "result"],
            registry=self.registry,
            buckets=RECONCILE_BUCKETS,
        )
        self._store = Counter(
            "cinderblock_store_requests",
            "Calls of the operator to stores: what was asked, and ok or the reason of the error.",
            ["request", "result"],
            registry=self.registry,
        )
        for operation in OperationKind:
            for result in RESULTS:
                self._operations.labels(operation, result)
        for measure in ("logical", "transferred", "stored"):
            self._bytes.labels(OperationKind.BACKUP, measure)
        self._bytes.labels(OperationKind.RESTORE, "restored")

    def observe_operation(self, operation: OperationKind, *, is_success: bool, seconds: float) -> None:
        """An operation has ended, so long after it was asked for."""
        self._operations.labels(operation, SUCCESS if is_success else ERROR).observe(seconds)

    def add_bytes(self, operation: OperationKind, **measures: int | None) -> None:
        """An operation that succeeded has dealt with so many bytes, by measure: logical, transferred, ..."""
        for measure, count in measures.items():
            self._bytes.labels(operation, measure).inc(count or 0)

    def observe_reconcile(self, kind: str, *, is_success: bool, seconds: float) -> None:
        """An object was looked at."""
        self._reconciles.labels(kind, SUCCESS if is_success else ERROR).observe(seconds)

    def count_store_request(self, request: str, result: str) -> None:
        """A store was asked: check, put, get, list or delete. Thread-safe."""
        self._store.labels(request, result).inc()
