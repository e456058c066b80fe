"""The damage that verifications have found in the backups of a volume, and what the next backup does about it.

No backup builds on a damaged one. An incremental backup on a sound parent avoids the damaged packs that are known: not
all backups that list them may be named. If too many are damaged, or not all are named, the next backup is full.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup

MAX_AVOIDED: Final = 64
"""Damaged packs that the task of a mover names. With more of them, a full backup costs little more."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Most by which the clock of a node may be behind those of the API server and the operator."""
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


def damaged_packs(damaged: Iterable[VolumeBackup]) -> tuple[str, ...]:
    """Return the keys of the damaged packs that are known, in the bucket, sorted."""
    names = (key for backup in damaged for key in _objects(backup) if not key.endswith(".manifest"))
    return tuple(sorted(set(names)))


def avoided_packs(damaged: Iterable[VolumeBackup], prefix: str) -> list[str]:
    """Return the keys of the damaged packs without the prefix of the store, at most MAX_AVOIDED.

    Those of the latest damage come first: older damage was known when the parent was made.
    """
    root, skipped = layout.pack_root(prefix), len(prefix) + 1 if prefix else 0
    keys = dict.fromkeys(key for backup in _newest_first(damaged) for key in damaged_packs([backup]))
    return [key[skipped:] for key in keys if key.startswith(root)][:MAX_AVOIDED]


def is_usable(parent: VolumeBackup, damaged: Iterable[VolumeBackup]) -> bool:
    """Return whether an incremental backup can build on a sound parent and avoid all damaged packs.

    A parent that was requested after the damage was found lists none of them.
    """
    since = _requested_at(parent)
    relevant = [backup for backup in damaged if since is None or not _was_found_before(backup, since)]
    return len(damaged_packs(relevant)) <= MAX_AVOIDED and all(map(names_all, relevant))


def significant(damaged: Iterable[VolumeBackup], few: int) -> list[VolumeBackup]:
    """Return those damaged backups of one place that decide what `avoided_packs` and `is_usable` return.

    Args:
        damaged: damaged backups of a volume in one place.
        few: number up to which all are returned, unless the first ones name too many packs already.
    """
    kept: list[VolumeBackup] = []
    names: set[str] = set()
    for backup in _newest_first(damaged):
        if len(names) > MAX_AVOIDED:
            break
        own = set(damaged_packs([backup]))
        is_first_unnamed = not names_all(backup) and all(map(names_all, kept))
        if own - names or is_first_unnamed or len(kept) < few:
            kept.append(backup)
            names |= own
    return kept


def _newest_first(damaged: Iterable[VolumeBackup]) -> list[VolumeBackup]:
    """Return backups in the order in which damage was found, the latest first."""
    return sorted(damaged, key=lambda backup: (_found_at(backup) or _LATEST, backup.uid), reverse=True)


def _requested_at(parent: VolumeBackup) -> datetime | None:
    """Return the time before which nothing about a parent was decided. An imported backup is as old as its data."""
    times = (parent.metadata.creation_timestamp, parent.status.data_timestamp)
    return min((time for time in times if time is not None), default=None)


def _objects(backup: VolumeBackup) -> list[str]:
    found = backup.own_verification
    return found.objects if found is not None else []


def names_all(backup: VolumeBackup) -> bool:
    """Return whether the summary of a damaged backup names all damaged objects."""
    found = backup.own_verification
    return found is None or (found.damaged_objects or 0) <= len(found.objects)


def _found_at(backup: VolumeBackup) -> datetime | None:
    found = backup.own_verification
    return found.damaged_at if found is not None else None


def _was_found_before(backup: VolumeBackup, since: datetime) -> bool:
    """Return whether damage was found before a time. The clock of a node shows when it was found."""
    found_at = _found_at(backup)
    return found_at is not None and found_at + CLOCK_SKEW < since
