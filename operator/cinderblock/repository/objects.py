"""List the objects of a store that belong to Cinderblock. All other objects are ignored, and block nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cinderblock.api.layout import backup_prefix, is_id, pack_prefix, pack_root, stored_ids
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import TooLarge
from cinderblock.format.pack import parse_pack_name
from cinderblock.store.base import ObjectInfo, ObjectStore

KEY_NAME: Final = "data-key"
"""Last part of the key of the object with the wrapped data key of an unfinished backup."""
MARK_NAME: Final = "0-inherited"
"""Last part of the key of the mark of a removed backup: its packs have no manifest, because the manifest was deleted
on purpose. A listing shows the mark before the packs, whose names begin with 32 hexadecimal digits."""
MAX_LISTED: Final = 10_000_000
"""Most objects of one listing, foreign ones included. A backup of 64 TiB has 2.8 million packs."""
LISTING_SECONDS: Final = 3600.0
"""Seconds of one listing in a mover or a command: ten million objects at 0.36 s for each page of 1000."""


@dataclass(frozen=True, slots=True)
class BackupRef:
    """A backup as the key of its manifest names it.

    Attributes:
        key: of the manifest.
        volume_id, backup_id: taken from the key.
        size: bytes of the manifest, if it comes from a listing.
        modified: when the manifest was last written, if a listing tells.
    """

    key: str
    volume_id: str
    backup_id: str
    size: int = 0
    modified: datetime | None = field(default=None, compare=False)

    @property
    def owner(self) -> tuple[str, str]:
        """Volume id and backup id, as the header of the manifest must name them."""
        return self.volume_id, self.backup_id

    def expected(
        self, *, sealed: bool = False, content_digest: str | None = None, pins: Pins | None = None
    ) -> ExpectedBackup:
        """Return which backup the manifest must be: the one that the key names, with everything else that is known.

        Args:
            sealed: whether it must be encrypted.
            content_digest: the digest that the user has noted.
            pins: the pins that were read before.
        """
        return ExpectedBackup(
            volume_id=self.volume_id, backup_id=self.backup_id, sealed=sealed, content_digest=content_digest, pins=pins
        )


def list_manifests(store: ObjectStore, prefix: str, volume_id: str | None = None) -> Iterator[BackupRef]:
    """List the manifests of a store, or of one volume, in order of key. One LIST request returns a thousand of them.

    This skips "folders", other names, and names that no backup of Cinderblock has: see `is_id`.
    """
    root = backup_prefix(prefix)
    for item in _at_most(store.list(root if volume_id is None else f"{root}{volume_id}/"), root):
        ids = stored_ids(item.key, prefix)
        if ids is not None:
            yield BackupRef(item.key, *ids, item.size, item.modified)


def list_pack_objects(store: ObjectStore, prefix: str, volume_id: str, backup_id: str) -> Iterator[ObjectInfo]:
    """List the packs of a backup, its mark, and its wrapped data key while it is unfinished; no other objects."""
    root = pack_prefix(prefix, volume_id, backup_id)
    for item in _at_most(store.list(root), root):
        if is_pack_object(item.key, root):
            yield item


@dataclass(frozen=True, slots=True)
class PackObject:
    """An object below the packs of a volume.

    Attributes:
        key: of the object.
        backup_id: the backup that it belongs to.
        name: last part of the key.
        size: bytes of the object, if it comes from a listing.
    """

    key: str
    backup_id: str
    name: str
    size: int = 0


def list_packs_of_volume(store: ObjectStore, prefix: str, volume_id: str) -> Iterator[PackObject]:
    """List what `list_pack_objects` lists, for all backups of a volume, with or without a manifest."""
    root = f"{pack_root(prefix)}{volume_id}/"
    for item in _at_most(store.list(root), root):
        backup_id, _, name = item.key.removeprefix(root).partition("/")
        if is_id(backup_id) and is_pack_object(item.key, pack_prefix(prefix, volume_id, backup_id)):
            yield PackObject(item.key, backup_id, name, item.size)


def mark_key(prefix: str, volume_id: str, backup_id: str) -> str:
    """Return the key of the mark of a removed backup."""
    return pack_prefix(prefix, volume_id, backup_id) + MARK_NAME


def _at_most(items: Iterator[ObjectInfo], prefix: str) -> Iterator[ObjectInfo]:
    """Yield the objects of a listing. Raises TooLarge after MAX_LISTED of them."""
    for number, item in enumerate(items):
        if number >= MAX_LISTED:
            raise TooLarge(
                f"Cannot list {prefix}: the store lists more than {MAX_LISTED} objects. Find out who writes to the"
                " container."
            )
        yield item


def is_pack_object(key: str, root: str) -> bool:
    """Return whether a key below ``root``, the prefix of a backup's packs, is a pack, the mark or the wrapped key."""
    name = key.removeprefix(root)
    return name in (KEY_NAME, MARK_NAME) or parse_pack_name(name) is not None
