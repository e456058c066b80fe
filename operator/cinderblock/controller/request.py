"""Which object is to be reconciled."""

from __future__ import annotations

from typing import Any, NamedTuple

from cinderblock.kube.kinds import BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE, Kind

OWN_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)}
"""Our kinds, by name."""


class ObjectKey(NamedTuple):
    """One object of ours: kind, namespace and name."""

    kind: str
    namespace: str
    name: str


_FINAL_PHASES = frozenset({"available", "error", "error_restoring"})
"""Phases in which nothing is under way; a phase that is not known is looked at first rather than last."""


def is_in_progress(body: dict[str, Any]) -> bool:
    """Whether somebody waits for what becomes of an object: it is new or changed, or something is done with it."""
    metadata, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in metadata or status.get("observedGeneration") != metadata.get("generation"):
        return True
    return body["kind"] != BACKUP_STORE.kind and status.get("phase") not in _FINAL_PHASES
