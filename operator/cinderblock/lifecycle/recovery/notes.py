"""Notes and problems of a planned claim, for the person who decides about the recovery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cinderblock.api.quantity import to_bytes
from cinderblock.lifecycle.recovery.candidate import MAX_BYTES, Candidate
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey, ClusterView
from cinderblock.lifecycle.recovery.survey import VolumeBackups

OTHERS: Final = 5
"""Older backups, other volumes of the same name, and keys that are named for one claim."""
_QUANTITY: Final = re.compile(r"[0-9]{1,19}(\.[0-9]{1,9})?([kMGTPE]|[KMGTPE]i)?")
"""A size as people write it. Numbers with large exponents would take long."""


def name_conflict(key: ClaimKey, candidates: Sequence[Candidate]) -> list[str]:
    """Return the problem of claims of several namespaces that would become one claim."""
    namespaces = sorted({candidate.namespace for candidate in candidates})
    if len(namespaces) < 2:
        return []
    listed = ", ".join(namespaces[:OTHERS])
    return [f"namespaces {listed} all have a claim {key[1]}; choose one with --namespace, or map them elsewhere"]


def backup_notes(chosen: Candidate, now: datetime) -> list[str]:
    """Return notes about the backup itself."""
    notes = []
    if chosen.data_timestamp > now:
        notes.append("the time of its data is in the future: a clock was wrong, or somebody forged the manifest")
    if chosen.unreadable_files:
        notes.append(f"the backup lacks {chosen.unreadable_files} files that could not be read")
    if chosen.dropped:
        keys = ", ".join(chosen.dropped[:OTHERS])
        notes.append(f"labels and annotations that are not restored: {keys}{_more(len(chosen.dropped))}")
    return notes


def _more(count: int) -> str:
    return f" and {count - OTHERS} more" if count > OTHERS else ""


def unreadable_notes(chosen: Candidate, volumes: Sequence[VolumeBackups]) -> list[str]:
    """Return a note about backups that cannot be read, and whether one of them may be newer than the chosen one."""
    count = sum(volume.unreadable_count for volume in volumes)
    if not count:
        return []
    written = [each.modified for volume in volumes for each in volume.unreadable]
    may_be_newer = any(each is None or each > chosen.data_timestamp for each in written)
    remedy = ", and may be newer than this one" if may_be_newer else ""
    return [f"{count} backups cannot be read{remedy}"]


def size_problems(chosen: Candidate) -> list[str]:
    """Return the problem of a size that no claim can have."""
    if 0 < chosen.size <= MAX_BYTES:
        return []
    return ["no claim can have the size of the volume in its manifest"]


def request_notes(chosen: Candidate) -> list[str]:
    """Return a note about a claim that a repository declares smaller than its volume. Kubernetes shrinks no claim."""
    is_size = _QUANTITY.fullmatch(chosen.requested_size) is not None
    if chosen.stateful_set or not is_size or to_bytes(chosen.requested_size) >= chosen.size:
        return []
    return [f"it requested {chosen.requested_size}, and its volume is larger: request {chosen.size} in its manifest"]


def check_class(recorded: str, wanted: str | None, cluster: ClusterView) -> tuple[list[str], list[str]]:
    """Return notes and problems about the StorageClass."""
    if cluster.classes is None:
        return ["the StorageClasses of the cluster cannot be read, so the class was not checked"], []
    if wanted is not None:
        return [], [] if wanted in cluster.classes else [f"StorageClass {wanted} does not exist in the cluster"]
    if recorded in cluster.classes:
        return [], []
    missing = f"StorageClass {recorded} does not exist in the cluster" if recorded else "the claim had no StorageClass"
    if cluster.default_class is None:
        return [], [f"{missing}, and it has no default class; give --storage-class {recorded}=NEW"]
    return [f"{missing}: the default class {cluster.default_class} is used"], []
