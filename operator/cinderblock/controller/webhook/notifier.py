"""Compares the state of the cluster with the events that the receiver accepted, and sends the difference."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cinderblock.controller.webhook.sender import Sender, SendResult, open_sender
from cinderblock.controller.webhook.settings import WebhookSettings
from cinderblock.controller.webhook.target import read_target
from cinderblock.errors import CinderblockError
from cinderblock.observability.alerts import MAX_ALERTS, true_alerts
from cinderblock.observability.cloud_event import encode
from cinderblock.observability.cluster_state import ClusterState
from cinderblock.observability.notifications import Notification, NotificationTracker
from cinderblock.observability.operator_metrics import NotificationResult, OperatorMetrics

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 60.0
"""Time between two readings of the cluster. Prometheus evaluates its rules as often."""
FIRST_DELAY_SECONDS: Final = 5.0
"""Delay after the first failure of the receiver. It doubles with each further one."""
MAX_DELAY_SECONDS: Final = 300.0
MAX_STATE_AGE_SECONDS: Final = 300.0
"""Age from which a reading says nothing about the present."""
BATCH: Final = 100
"""Notifications between two readings. If a receiver takes 10 s for each of them, they are at most 17 minutes old."""

TRIES: Final = 3
"""Failures of one event after which others come first. A receiver may answer 403 or 500 to this event alone."""

ReadState = Callable[[], Awaitable[tuple[ClusterState | None, float]]]


class Notifier:
    """Sends notifications while this process leads. Nothing waits for it, and it keeps nothing that is not in the
    objects, so a new leader may repeat what this one has sent.

    Args:
        settings: the receiver.
        read_state: returns the state of the cluster and its age in seconds.
        read_source: returns the source of events.
        metrics: counts of requests.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        read_state: ReadState,
        read_source: Callable[[], Awaitable[str]],
        metrics: OperatorMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._read_state = read_state
        self._read_source = read_source
        self._metrics = metrics
        self._clock = clock
        self._tracker = NotificationTracker()
        self._failures = 0
        self._tries: Counter[tuple[str, ...]] = Counter()
        """Failures of each event that is due, by its identity."""

    async def run(self) -> None:
        """Send notifications, until the task is cancelled. Errors are logged: they must not end the leadership."""
        self._tracker, self._failures, self._tries = NotificationTracker(), 0, Counter()
        try:
            while True:
                delay = await self._try()
                await asyncio.sleep(delay)
        finally:
            self._metrics.set_unsent(0)

    async def _try(self) -> float:
        try:
            return await self.send_due()
        except CinderblockError as error:
            return self._after_failure(SendResult(NotificationResult.FAILED, error.message))
        except Exception:
            log.exception("Could not send notifications")
            return MAX_DELAY_SECONDS

    async def send_due(self) -> float:
        """Send what is due now, at most a batch. Return the seconds until the next try.

        Raises:
            InvalidInput: the settings or the files of the webhook are invalid.
            CinderblockError: the API server does not answer.
        """
        state, age = await self._read_state()
        if state is None:
            return FIRST_DELAY_SECONDS
        if age > MAX_STATE_AGE_SECONDS:
            return CHECK_SECONDS
        now = self._clock()
        alerts = true_alerts(state, now, self._settings.limits)
        due = self._in_order(self._tracker.update(alerts, now))
        waiting = len(due) + max(0, len(alerts) - MAX_ALERTS)
        self._metrics.set_unsent(waiting + self._tracker.rejected)
        if not due:
            return CHECK_SECONDS
        source = await self._read_source()
        async with open_sender(read_target(self._settings)) as sender:
            for number, notification in enumerate(due[:BATCH], start=1):
                failure = await self._send(sender, notification, source)
                if failure is not None:
                    self._tries[notification.identity] += 1
                    return self._after_failure(failure)
                self._metrics.set_unsent(waiting - number + self._tracker.rejected)
        return 0.0 if len(due) > BATCH else CHECK_SECONDS

    def _in_order(self, due: Sequence[Notification]) -> list[Notification]:
        """Return those that failed least often first, and forget the failures of events that are not due any more."""
        self._tries = Counter({each.identity: self._tries[each.identity] for each in due})
        return sorted(due, key=lambda notification: self._tries[notification.identity] // TRIES)

    async def _send(self, sender: Sender, notification: Notification, source: str) -> SendResult | None:
        """Send one notification. Return the result if the receiver accepts nothing now."""
        done = await sender.send(encode(notification, source))
        self._metrics.count_notification(done.result)
        if done.result is NotificationResult.FAILED:
            return done
        about = {"alert": notification.alert.name, "subject": str(notification.alert.subject)}
        if done.result is NotificationResult.REJECTED:
            log.warning("The webhook rejected an event: %s", done.cause, extra=about)
        else:
            log.info("Notification sent", extra=about | {"state": notification.state})
        if self._failures:
            log.info("The webhook accepts events again")
        self._failures = 0
        self._tracker.delivered(notification, is_rejected=done.result is NotificationResult.REJECTED)
        return None

    def _after_failure(self, failure: SendResult) -> float:
        """Log a failure once, and return the delay: it doubles, unless the receiver asks for another one."""
        if not self._failures:
            log.warning("Could not send notifications to the webhook: %s", failure.cause)
        self._failures += 1
        delay = FIRST_DELAY_SECONDS * 2.0 ** min(self._failures - 1, 10)
        return max(min(MAX_DELAY_SECONDS, delay), failure.retry_after or 0.0)
