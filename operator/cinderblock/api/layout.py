"""Keys of the manifest and the packs of a backup in a container."""

from __future__ import annotations

import re
from typing import Final

from cinderblock.errors import InvalidInput

_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""An id of a volume or backup: a UID, or a text that a user gave on the command line."""


def is_id(text: str) -> bool:
    """Return whether a text is a valid id of a volume or backup, which is part of keys in a store."""
    return _ID.fullmatch(text) is not None


def backup_prefix(prefix: str) -> str:
    """Return the prefix of all manifests of a store. Listing it finds every backup."""
    return f"{prefix}/backups/" if prefix else "backups/"


def manifest_key(prefix: str, volume_uid: str, backup_uid: str) -> str:
    """Return the key of a backup's manifest."""
    return f"{backup_prefix(prefix)}{volume_uid}/{backup_uid}.manifest"


def stored_ids(key: str, prefix: str) -> tuple[str, str] | None:
    """Return the ids of volume and backup in the key of a manifest, or None if ``key`` is not one.

    ``prefix`` is the prefix of the store, which the key must have.
    """
    volume_uid, _, name = key.removeprefix(backup_prefix(prefix)).partition("/")
    backup_uid = name.removesuffix(".manifest")
    is_manifest = is_id(volume_uid) and is_id(backup_uid) and key == manifest_key(prefix, volume_uid, backup_uid)
    return (volume_uid, backup_uid) if is_manifest else None


def recorded_ids(key: str) -> tuple[str, str]:
    """Return the ids of volume and backup in the key of a manifest, whatever its prefix.

    Raises InvalidInput if ``key`` is not the key of a manifest.
    """
    parent, _, name = key.rpartition("/")
    directory, _, volume_uid = parent.rpartition("/")
    if directory.rpartition("/")[2] != "backups" or not volume_uid or not name.endswith(".manifest"):
        raise InvalidInput(f"{key!r} is not the key of a manifest: it should end with backups/VOLUME/BACKUP.manifest")
    return volume_uid, name.removesuffix(".manifest")


def owner_key(prefix: str) -> str:
    """Return the key of the owner marker of a store."""
    return f"{prefix}/meta/owner.json" if prefix else "meta/owner.json"


def pack_root(prefix: str) -> str:
    """Return the prefix of all packs of a store."""
    return f"{prefix}/packs/" if prefix else "packs/"


def pack_prefix(prefix: str, volume_uid: str, backup_uid: str) -> str:
    """Return the prefix of all packs of a backup, with a slash at its end."""
    return f"{pack_root(prefix)}{volume_uid}/{backup_uid}/"
