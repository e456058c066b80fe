"""Which object is to be reconciled."""

from __future__ import annotations

from typing import Any, NamedTuple

from cinderblock.kube.kinds import BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE, Kind

RECONCILED: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)}
"""Our kinds, by name."""


class Key(NamedTuple):
    """One object of ours: kind, namespace and name."""

    kind: str
    namespace: str
    name: str


_ENDED = frozenset({"available", "error", "error_restoring"})
"""Phases in which nothing is under way; a phase that is not known is looked at first rather than last."""


def is_under_way(body: dict[str, Any]) -> bool:
    """Whether something is being done with an object: created, restored, deleted. A store is never under way."""
    ended = body.get("status", {}).get("phase") in _ENDED
    return body["kind"] != BACKUP_STORE.kind and (not ended or "deletionTimestamp" in body["metadata"])
