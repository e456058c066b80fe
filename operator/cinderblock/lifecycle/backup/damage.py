"""The damage that verifications have found in the backups of a volume, and what the next backup does about it.

No backup builds on a damaged one. An incremental backup on a sound parent avoids the damaged packs that are known: not
all backups that list them may be named. If too many are damaged, or not all are named, the next backup is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup

MAX_AVOIDED: Final = 64
"""Damaged packs that the task of a mover names. With more of them, a full backup costs little more."""


def damaged_packs(damaged: Iterable[VolumeBackup]) -> tuple[str, ...]:
    """Return the keys of the damaged packs that are known, in the bucket, sorted."""
    names = (key for backup in damaged for key in _objects(backup) if not key.endswith(".manifest"))
    return tuple(sorted(set(names)))


def avoided_packs(damaged: Iterable[VolumeBackup], prefix: str) -> list[str]:
    """Return the keys of the damaged packs without the prefix of the store, at most MAX_AVOIDED."""
    root, skipped = layout.pack_root(prefix), len(prefix) + 1 if prefix else 0
    return [key[skipped:] for key in damaged_packs(damaged) if key.startswith(root)][:MAX_AVOIDED]


def is_usable(parent: VolumeBackup, damaged: Sequence[VolumeBackup]) -> bool:
    """Return whether an incremental backup can build on a sound parent and avoid all damaged packs.

    A parent that was made after the damage was found lists none of them.
    """
    since = parent.status.completed_at or parent.metadata.creation_timestamp
    relevant = [backup for backup in damaged if since is None or not _was_found_before(backup, since)]
    return len(damaged_packs(relevant)) <= MAX_AVOIDED and all(map(names_all, relevant))


def _objects(backup: VolumeBackup) -> list[str]:
    found = backup.own_verification
    return found.objects if found is not None else []


def names_all(backup: VolumeBackup) -> bool:
    """Return whether the summary of a damaged backup names all damaged objects."""
    found = backup.own_verification
    return found is None or (found.damaged_objects or 0) <= len(found.objects)


def _was_found_before(backup: VolumeBackup, since: datetime) -> bool:
    found = backup.own_verification
    return found is not None and found.damaged_at is not None and found.damaged_at < since
