"""Durations, counts and results since the start of this process."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cinderblock.lifecycle.alarms.protection import MAX_SCHEDULES
from cinderblock.observability.cluster_state import OperationKind
from cinderblock.reasons import Reason

RECONCILE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Reading all objects takes about 20 ms. 10 s is the time limit of a store, 30 s of one API call."""
OPERATION_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0)
"""A small volume takes three seconds, a large one takes hours."""

ALARMS: Final = (
    *(Reason.EMPTY, Reason.INCOMPRESSIBLE, Reason.SHRUNK, Reason.FEWER_ENTRIES, Reason.MANY_CHANGES),
    Reason.CHANGE_MISSED,
)
"""Reasons of alarms, the strongest first."""

SUCCESS: Final = "success"
ERROR: Final = "error"
RESULTS: Final = (SUCCESS, ERROR)


class NotificationResult(StrEnum):
    """Result of a request to the webhook."""

    SENT = "sent"
    REJECTED = "rejected"
    """The receiver refuses this event, and accepts others. It is not repeated."""
    FAILED = "failed"
    """The receiver accepts nothing now. The event is sent later."""


class OperatorMetrics:
    """Counters and histograms of the operator. All series exist from the start, at zero.

    Attributes:
        registry: the registry of these metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._schedules: dict[str, set[str]] = defaultdict(set)
        """The BackupSchedules of each namespace that are counted."""
        self._operations = Histogram(
            "cinderblock_operation_duration_seconds",
            "Time from the request to the end of operations that this process saw end.",
            ["operation", "result"],
            registry=self.registry,
            buckets=OPERATION_BUCKETS,
        )
        self._bytes = Counter(
            "cinderblock_operation_bytes",
            "Bytes of successful operations: logical, transferred, stored, restored, read.",
            ["operation", "measure"],
            registry=self.registry,
        )
        self._alarms = Counter(
            "cinderblock_backup_alarms",
            "Backups that raised an alarm when they became available, by the strongest alarm.",
            ["reason"],
            registry=self.registry,
        )
        self._reconciles = Histogram(
            "cinderblock_reconcile_duration_seconds",
            "Duration of one reconciliation of one object.",
            ["kind", "result"],
            registry=self.registry,
            buckets=RECONCILE_BUCKETS,
        )
        self._store = Counter(
            "cinderblock_store_requests",
            "Requests of the operator to stores. The result is ok or the reason of the error.",
            ["request", "result"],
            registry=self.registry,
        )
        self._missed = Counter(
            "cinderblock_schedule_missed",
            "Scheduled times at which some volumes got no backup before the starting deadline.",
            ["schedule_namespace", "schedule"],
            registry=self.registry,
        )
        self._skipped = Counter(
            "cinderblock_schedule_skipped",
            "Volumes that runs left out, because an earlier backup had not ended, or there was no store.",
            ["schedule_namespace", "schedule"],
            registry=self.registry,
        )
        self._notifications = Counter(
            "cinderblock_webhook_notifications",
            "Requests to the webhook: sent, rejected (the receiver refuses this event), or failed (repeated later).",
            ["result"],
            registry=self.registry,
        )
        self._unsent = Gauge(
            "cinderblock_webhook_unsent",
            "Notifications that could not be sent yet, and alerts that last and that the receiver has rejected.",
            registry=self.registry,
        )
        for outcome in NotificationResult:
            self._notifications.labels(outcome)
        for operation in OperationKind:
            for result in RESULTS:
                self._operations.labels(operation, result)
        for measure in ("logical", "transferred", "stored"):
            self._bytes.labels(OperationKind.BACKUP, measure)
        self._bytes.labels(OperationKind.RESTORE, "restored")
        self._bytes.labels(OperationKind.VERIFICATION, "read")
        for reason in ALARMS:
            self._alarms.labels(reason)

    def observe_operation(self, operation: OperationKind, *, is_success: bool, seconds: float) -> None:
        """Record the end of an operation, and the time since its request."""
        self._operations.labels(operation, SUCCESS if is_success else ERROR).observe(seconds)

    def add_bytes(self, operation: OperationKind, **measures: int | None) -> None:
        """Add the bytes of a successful operation, by measure: logical, transferred, stored, restored, read."""
        for measure, count in measures.items():
            self._bytes.labels(operation, measure).inc(count or 0)

    def count_alarm(self, reason: str) -> None:
        """Count a backup that raised an alarm."""
        self._alarms.labels(reason).inc()

    def observe_reconcile(self, kind: str, *, is_success: bool, seconds: float) -> None:
        """Record a reconciliation."""
        self._reconciles.labels(kind, SUCCESS if is_success else ERROR).observe(seconds)

    def count_schedule(self, namespace: str, name: str, *, missed: int, skipped: int) -> None:
        """Add to the counts of a schedule, which begin at zero with its first reconciliation.

        At most MAX_SCHEDULES of a namespace are counted: its users may create any number.
        """
        counted = self._schedules[namespace]
        if namespace and name not in counted and len(counted) >= MAX_SCHEDULES:
            return
        counted.add(name)
        self._missed.labels(namespace, name).inc(missed)
        self._skipped.labels(namespace, name).inc(skipped)

    def forget_schedule(self, namespace: str, name: str) -> None:
        """Drop the counts of a schedule that no longer exists."""
        self._schedules[namespace].discard(name)
        if not self._schedules[namespace]:
            del self._schedules[namespace]
        for counter in (self._missed, self._skipped):
            with contextlib.suppress(KeyError):
                counter.remove(namespace, name)

    def count_notification(self, result: NotificationResult) -> None:
        """Count a request to the webhook."""
        self._notifications.labels(result).inc()

    def set_unsent(self, count: int) -> None:
        """Record how many notifications wait."""
        self._unsent.set(count)

    def count_store_request(self, request: str, result: str) -> None:
        """Count a request to a store: check, put, get, list or delete. Thread-safe."""
        self._store.labels(request, result).inc()
