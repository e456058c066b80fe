"""Record Events, which ``kubectl describe`` shows. A repeated Event is counted, not stored again.

The name of an Event is derived from its object and its text. The second creation therefore fails with 409, and then
``series.count`` is raised (events.k8s.io/v1). Nothing is kept in memory, so a restart changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cinderblock.errors import AlreadyExists, Conflict, NotFound, PermanentError
from cinderblock.kube.client import FIELD_MANAGER, KubeClient
from cinderblock.kube.kinds import EVENT

NOTE_LIMIT: Final = 1024
"""Bytes of a note (kubernetes/pkg/apis/core/validation/events.go)."""
_NAME_LIMIT: Final = 253
_REPORTER: Final = "cinderblock.io/operator"

_log = logging.getLogger(__name__)


async def record_event(
    client: KubeClient,
    regarding: dict[str, Any],
    severity: Literal["Normal", "Warning"],
    reason: str,
    note: str,
    *,
    action: str,
) -> None:
    """Record an Event, or count it if the same one was recorded before (within the hour that the server keeps it).

    Events are best effort: a permanent error, such as a missing permission, is only logged.

    Args:
        client: the API server.
        regarding: the object that the Event is about, as read from the API.
        severity: the Event's type: Normal or Warning.
        reason: stable CamelCase word, at most 128 bytes.
        note: sentence for a person, free of secrets; cut at 1024 bytes.
        action: the operation under way, a CamelCase word of at most 128 bytes.

    Raises:
        KubeUnavailable: the API server does not answer.
    """
    event = _event(regarding, severity, reason, _truncate(note), action=action, now=datetime.now(UTC))
    try:
        await _create_or_count(client, event)
    except PermanentError as error:
        name = f"{regarding.get('kind')} {event['metadata']['namespace']}/{regarding['metadata']['name']}"
        _log.warning("Event was not recorded", extra={"event": reason, "about": name, "error": error.message})


async def _create_or_count(client: KubeClient, event: dict[str, Any]) -> None:
    try:
        await client.create(EVENT, event)
    except AlreadyExists:
        await _count(client, event)


async def _count(client: KubeClient, event: dict[str, Any]) -> None:
    """Add one to the series of an existing Event, unless another process counts it at the same moment."""
    name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
    current = await client.get(EVENT, name, namespace)
    if current is None:
        return
    # A series starts with the second Event, so its count is never below two.
    count = int((current.get("series") or {}).get("count", 1)) + 1
    patch = {
        "metadata": {"resourceVersion": current["metadata"]["resourceVersion"]},
        "series": {"count": count, "lastObservedTime": event["eventTime"]},
    }
    try:
        await client.merge_patch(EVENT, name, namespace, patch)
    except (Conflict, NotFound):
        _log.debug("Event was counted or removed by another process", extra={"event": f"{namespace}/{name}"})


def _event(
    regarding: dict[str, Any], severity: str, reason: str, note: str, *, action: str, now: datetime
) -> dict[str, Any]:
    metadata = regarding["metadata"]
    return {
        "metadata": {
            "name": _name(metadata, severity, reason, note),
            "namespace": metadata.get("namespace") or "default",
        },
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": _REPORTER,
        "reportingInstance": f"{FIELD_MANAGER}-{os.uname().nodename}"[:128],
        "type": severity,
        "reason": reason,
        "action": action,
        "note": note,
        "regarding": {
            "apiVersion": regarding.get("apiVersion"),
            "kind": regarding.get("kind"),
            "namespace": metadata.get("namespace"),
            "name": metadata["name"],
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        },
    }


def _name(metadata: dict[str, Any], *text: str) -> str:
    """Return ``<object>.<16 hex digits of its UID and the text>``, the form of the server's own Events."""
    digest = hashlib.sha256("\0".join([str(metadata.get("uid", "")), *text]).encode()).hexdigest()[:16]
    return f"{metadata['name'][: _NAME_LIMIT - len(digest) - 1].rstrip('-.')}.{digest}"


def _truncate(note: str) -> str:
    """Return ``note`` in at most NOTE_LIMIT bytes, cut between characters."""
    encoded = note.encode()
    if len(encoded) <= NOTE_LIMIT:
        return note
    return encoded[: NOTE_LIMIT - len("…".encode())].decode(errors="ignore") + "…"
