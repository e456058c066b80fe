"""Which alerts are to be sent: when they begin, once a day while they last, and when they end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from cinderblock.observability.alert import DAY, DELAYS, Alert, AlertName, Subject
from cinderblock.observability.alerts import MAX_ALERTS

REPEAT_SECONDS: Final = DAY
"""An alert that lasts is sent again after this time, so that a receiver may take an older one for ended."""


class AlertState(StrEnum):
    """State of an alert, in the words of Prometheus' Alertmanager."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Notification:
    """One message about an alert.

    Attributes:
        alert: the alert.
        state: whether it is true, or has ended.
        began: when it became true, in seconds since 1970.
        anchor: a time that identifies the cause; see Alert.
        number: 0 for the first message about this cause, 1 after a day, and so on.
        time: when this happened, in seconds since 1970.
    """

    alert: Alert
    state: AlertState
    began: float
    anchor: float
    number: int
    time: float

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what identifies the message. It stays the same when the operator restarts and sends it again."""
        subject = self.alert.subject
        return (
            *(self.alert.name, subject.kind, subject.namespace, subject.name),
            *(self.state, f"{self.anchor:.0f}", str(self.number)),
        )


@dataclass(slots=True)
class _Episode:
    """An alert from the time when its condition became true.

    Attributes:
        alert: the alert as it was last seen.
        seen: when this process first saw it.
        sent: the last message that was delivered or rejected; None: none yet.
        is_rejected: whether the receiver has rejected that message.
    """

    alert: Alert
    seen: float
    sent: Notification | None = None
    is_rejected: bool = False


class NotificationTracker:
    """Follows alerts from one reading of the cluster to the next.

    After a restart, it knows nothing of messages that were delivered, so it returns them again, with the same identity.
    Memory is bounded by MAX_ALERTS.
    """

    def __init__(self) -> None:
        self._episodes: dict[tuple[AlertName, Subject], _Episode] = {}
        self._ended: dict[tuple[AlertName, Subject], _Episode] = {}
        """Alerts that were delivered, and whose end is not."""
        self._ends: dict[tuple[AlertName, Subject], float] = {}
        """When alerts ended, so that the same cause gets another identity if it returns."""

    def update(self, alerts: Iterable[Alert], now: float) -> list[Notification]:
        """Return the messages to send, after another reading: ends first, then the alerts in their order.

        The first MAX_ALERTS are followed. One that gives way to another has not ended: it is sent again, with the same
        identity, when it is followed again.
        """
        found = {alert.key: alert for alert in alerts}
        true = dict(islice(found.items(), MAX_ALERTS))
        for key in self._episodes.keys() - true.keys():
            episode = self._episodes.pop(key)
            if key in found:
                continue
            self._ends[key] = now
            if episode.sent is not None and len(self._ended) < MAX_ALERTS:
                self._ended[key] = episode
        for key, alert in true.items():
            episode = self._episodes.setdefault(key, _Episode(alert, now))
            episode.alert = alert
        for key in found:
            self._ended.pop(key, None)
        self._forget_old_ends(now)
        ends = [_end(episode.sent, now) for episode in self._ended.values() if episode.sent is not None]
        return ends + [due for key in true if (due := self._due(self._episodes[key], now)) is not None]

    def delivered(self, notification: Notification, *, is_rejected: bool = False) -> None:
        """Record that a message need not be sent again.

        Args:
            notification: the message.
            is_rejected: whether the receiver does not want it. Then nobody knows of the alert.
        """
        key = notification.alert.key
        if notification.state is AlertState.RESOLVED:
            self._ended.pop(key, None)
        elif key in self._episodes:
            self._episodes[key].sent, self._episodes[key].is_rejected = notification, is_rejected

    @property
    def rejected(self) -> int:
        """Number of alerts that last, and whose last message the receiver has rejected."""
        return sum(episode.is_rejected for episode in self._episodes.values())

    def _due(self, episode: _Episode, now: float) -> Notification | None:
        alert = episode.alert
        began = alert.since if alert.since is not None else episode.seen
        if now - began < DELAYS[alert.name]:
            return None
        anchor = max(alert.anchor, self._ends.get(alert.key, 0.0))
        number = int(max(0.0, now - anchor) // REPEAT_SECONDS)
        due = Notification(alert, AlertState.FIRING, began, anchor, number, time=anchor + number * REPEAT_SECONDS)
        return None if episode.sent is not None and episode.sent.identity == due.identity else due

    def _forget_old_ends(self, now: float) -> None:
        recent = [(key, end) for key, end in self._ends.items() if now - end < REPEAT_SECONDS]
        recent.sort(key=lambda item: item[1], reverse=True)
        self._ends = dict(recent[:MAX_ALERTS])


def _end(sent: Notification, now: float) -> Notification:
    return Notification(sent.alert, AlertState.RESOLVED, sent.began, sent.anchor, sent.number, time=now)
