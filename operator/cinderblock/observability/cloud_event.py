"""Notifications as CloudEvents 1.0 in the structured JSON format (cloudevents.io)."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

from cinderblock.observability.notifications import Notification

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
TYPE_PREFIX: Final = "io.cinderblock.alert"
SUMMARY_LIMIT: Final = 1024
"""Characters of a summary. A CloudEvent of at most 64 KiB passes every intermediary (CloudEvents, section 5)."""


def encode(notification: Notification, source: str) -> bytes:
    """Return a notification as a CloudEvent. ``source`` names the cluster and the release."""
    alert = notification.alert
    data: dict[str, object] = {
        "alert": alert.name,
        "state": notification.state,
        "severity": alert.severity,
        "kind": alert.subject.kind,
        "namespace": alert.subject.namespace,
        "name": alert.subject.name,
        "since": _iso(notification.began),
        "summary": alert.summary[:SUMMARY_LIMIT],
        "action": alert.action[:SUMMARY_LIMIT],
    }
    if alert.value is not None:
        data["value"] = alert.value
    event = {
        "specversion": "1.0",
        "id": event_id(notification, source),
        "source": source,
        "type": f"{TYPE_PREFIX}.{notification.state}",
        "subject": f"{alert.subject.kind}/{alert.subject}",
        "time": _iso(notification.time),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def event_id(notification: Notification, source: str) -> str:
    """Return the id, which is the same whenever the same message is sent again."""
    return hashlib.sha256("\0".join((source, *notification.identity)).encode()).hexdigest()[:32]


def source_of(cluster: str, release: str) -> str:
    """Return the source of all events of a release: a URI reference, as CloudEvents demands."""
    return f"/clusters/{cluster or 'unknown'}/cinderblock/{release or 'operator'}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
