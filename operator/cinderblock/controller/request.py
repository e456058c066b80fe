"""Keys of the objects that the operator reconciles."""

from __future__ import annotations

from typing import Any, NamedTuple

from cinderblock.kube.kinds import (
    BACKUP_SCHEDULE,
    BACKUP_STORE,
    CLUSTER_BACKUP_SCHEDULE,
    PV,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    Kind,
)

SCHEDULE_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_SCHEDULE, CLUSTER_BACKUP_SCHEDULE)}
"""The kinds of schedules, by name."""
OWN_KINDS: dict[str, Kind] = {
    **{kind.kind: kind for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)},
    **SCHEDULE_KINDS,
}
"""The operator's own kinds, by name."""


class ObjectKey(NamedTuple):
    """Kind, namespace and name of an object to reconcile. Outside namespaces, the namespace is empty."""

    kind: str
    namespace: str
    name: str


def key_of(body: dict[str, Any]) -> ObjectKey:
    """Return the key of an object."""
    return ObjectKey(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])


def volume_key(name: str) -> ObjectKey:
    """Return the key of a PersistentVolume."""
    return ObjectKey(PV.kind, "", name)


_OPERATIONS = frozenset({VOLUME_BACKUP.kind, VOLUME_RESTORE.kind})
_FINAL_PHASES = frozenset({"available", "error", "error_restoring"})
"""Phases in which no operation runs. An unknown phase counts as in progress, so that it is reconciled early."""


def is_in_progress(body: dict[str, Any]) -> bool:
    """Return whether an object is new, changed or being deleted, or an operation on it runs.

    The run of a schedule does not count: it continues by the clock.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in metadata or status.get("observedGeneration") != metadata.get("generation"):
        return True
    return body["kind"] in _OPERATIONS and status.get("phase") not in _FINAL_PHASES
