"""Keys of the objects that the operator reconciles."""

from __future__ import annotations

from typing import Any, NamedTuple

from cinderblock.kube.kinds import BACKUP_STORE, PV, VOLUME_BACKUP, VOLUME_RESTORE, Kind

OWN_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)}
"""The operator's own kinds, by name."""


class ObjectKey(NamedTuple):
    """Kind, namespace and name of an object to reconcile."""

    kind: str
    namespace: str
    name: str


def key_of(body: dict[str, Any]) -> ObjectKey:
    """Return the key of a namespaced object."""
    return ObjectKey(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def volume_key(name: str) -> ObjectKey:
    """Return the key of a PersistentVolume."""
    return ObjectKey(PV.kind, "", name)


_FINAL_PHASES = frozenset({"available", "error", "error_restoring"})
"""Phases in which no operation runs. An unknown phase counts as in progress, so that it is reconciled early."""


def is_in_progress(body: dict[str, Any]) -> bool:
    """Return whether an object is new, changed or being deleted, or an operation on it runs."""
    metadata, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in metadata or status.get("observedGeneration") != metadata.get("generation"):
        return True
    return body["kind"] != BACKUP_STORE.kind and status.get("phase") not in _FINAL_PHASES
