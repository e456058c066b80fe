"""Object keys: where the manifest and the packs of a backup lie in a container."""

from __future__ import annotations

import re
from typing import Final

from cinderblock.errors import InvalidInput

_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""An id of a volume or a backup: a UID, or what somebody has given at the command line."""


def is_id(text: str) -> bool:
    """Return whether a text can be the id of a volume or a backup, which becomes a part of keys in a store."""
    return _ID.fullmatch(text) is not None


def backup_prefix(prefix: str) -> str:
    """Prefix of every manifest of a store: one LIST of it finds every backup."""
    return f"{prefix}/backups/" if prefix else "backups/"


def manifest_key(prefix: str, volume_uid: str, backup_uid: str) -> str:
    """Key of a backup's manifest."""
    return f"{backup_prefix(prefix)}{volume_uid}/{backup_uid}.manifest"


def stored_ids(key: str, prefix: str) -> tuple[str, str] | None:
    """Return the ids of volume and backup whose manifest a store with this prefix keeps at ``key``.

    Return None if the store keeps no manifest there.
    """
    volume_uid, _, name = key.removeprefix(backup_prefix(prefix)).partition("/")
    backup_uid = name.removesuffix(".manifest")
    is_there = is_id(volume_uid) and is_id(backup_uid) and key == manifest_key(prefix, volume_uid, backup_uid)
    return (volume_uid, backup_uid) if is_there else None


def recorded_ids(key: str) -> tuple[str, str]:
    """Return the ids of the volume and the backup that a key of our own names, whatever its prefix.

    Raises InvalidInput for a key that is not that of a manifest.
    """
    place, _, name = key.rpartition("/")
    directory, _, volume_uid = place.rpartition("/")
    if directory.rpartition("/")[2] != "backups" or not volume_uid or not name.endswith(".manifest"):
        raise InvalidInput(f"{key!r} is not the key of a manifest: it should end with backups/VOLUME/BACKUP.manifest")
    return volume_uid, name.removesuffix(".manifest")


def pack_prefix(prefix: str, volume_uid: str, backup_uid: str) -> str:
    """Prefix of every pack that belongs to a backup; ends with a slash."""
    root = f"{prefix}/packs/" if prefix else "packs/"
    return f"{root}{volume_uid}/{backup_uid}/"
