"""Which backups are in use or verified, so that retention leaves some of them alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle.backup_record import BackupRecord

BackupName = tuple[str, str]
"""A namespace, and the name, UID or id of a VolumeBackup in it."""


def names_used_by(restore: Mapping[str, Any]) -> set[BackupName]:
    """Return the names of the backup that a VolumeRestore reads; none if it has ended.

    Without a status, it names the backup in its spec only. An object that does not parse has not ended. The backup of
    another namespace records its restores itself, so that nobody holds up the retention of others without a grant.
    """
    try:
        parsed = VolumeRestore.model_validate(restore)
        has_ended = parsed.has_ended or parsed.granted_from is not None
    except ValidationError:
        has_ended = False
    parts = [restore.get(part) for part in ("spec", "status")]
    names = [part.get("backupId") for part in parts if isinstance(part, Mapping)]
    namespace = restore["metadata"].get("namespace", "")
    return set() if has_ended else {(namespace, name) for name in names if isinstance(name, str) and name}


def used_ids(backups: Iterable[BackupRecord], names: Collection[BackupName]) -> frozenset[str]:
    """Return the ids of the backups that a restore reads, or that an unfinished backup has as its parent.

    Args:
        backups: the backups to find by name, and all unfinished ones.
        names: the names of backups that restores read.
    """
    used: set[str] = set()
    for record in backups:
        if not record.has_ended and not record.is_being_deleted and record.parent_id:
            used.add(record.parent_id)
        is_named = any((record.namespace, name) in names for name in (record.name, record.uid, record.backup_id))
        if is_named or record.is_read_elsewhere:
            used.add(record.backup_id)
    return frozenset(used)


def verified_at(backups: Iterable[BackupRecord]) -> Mapping[str, datetime]:
    """Return when each verified backup was verified, by id. Backups that were never verified are left out."""
    return MappingProxyType({b.backup_id: b.verified_at for b in backups if b.verified_at is not None})
