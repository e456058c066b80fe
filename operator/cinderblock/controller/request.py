"""Keys of the objects that the operator reconciles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cinderblock.api.labels import SCHEDULE_ANNOTATION
from cinderblock.kube.kinds import (
    BACKUP_GRANT,
    BACKUP_SCHEDULE,
    BACKUP_STORE,
    BACKUP_VERIFICATION,
    CLUSTER_BACKUP_SCHEDULE,
    CLUSTER_BACKUP_STORE,
    PV,
    RESTORE_SOURCE,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    Kind,
)

SCHEDULE_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_SCHEDULE, CLUSTER_BACKUP_SCHEDULE)}
"""The kinds of schedules, by name."""
OWN_KINDS: dict[str, Kind] = {
    **{kind.kind: kind for kind in (BACKUP_STORE, CLUSTER_BACKUP_STORE)},
    **{kind.kind: kind for kind in (VOLUME_BACKUP, VOLUME_RESTORE, BACKUP_VERIFICATION)},
    **SCHEDULE_KINDS,
    **{kind.kind: kind for kind in (BACKUP_GRANT, RESTORE_SOURCE)},
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


def schedule_key(namespace: str, annotations: Mapping[str, Any]) -> ObjectKey | None:
    """Return the key of the schedule that a VolumeBackup with these annotations names; None if it names none.

    Anybody who may create the VolumeBackup can write that annotation.
    """
    kind, _, name = str(annotations.get(SCHEDULE_ANNOTATION, "")).partition("/")
    if kind not in SCHEDULE_KINDS or _NAME.fullmatch(name) is None:
        return None
    return ObjectKey(kind, namespace if SCHEDULE_KINDS[kind].namespaced else "", name)


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A name of an object (apimachinery: IsDNS1123Subdomain)."""
_OPERATIONS = frozenset({VOLUME_BACKUP.kind, VOLUME_RESTORE.kind, BACKUP_VERIFICATION.kind})
_FINAL_PHASES = frozenset({"available", "error", "error_restoring", "verified", "damaged"})
"""Phases in which no operation runs. An unknown phase counts as in progress, so that it is reconciled early."""


def is_in_progress(body: dict[str, Any]) -> bool:
    """Return whether an object is new, changed or being deleted, or an operation on it runs.

    The run of a schedule does not count: it continues by the clock.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in metadata or status.get("observedGeneration") != metadata.get("generation"):
        return True
    return body["kind"] in _OPERATIONS and status.get("phase") not in _FINAL_PHASES
