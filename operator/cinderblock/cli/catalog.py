"""The backups that a store holds, read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from cinderblock.datapath.header import ManifestHeader
from cinderblock.datapath.keys import KeyRing
from cinderblock.datapath.manifest import ManifestSummary, read_header, read_summary
from cinderblock.errors import (
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    NotFound,
    PermanentError,
    UnsupportedFormat,
)
from cinderblock.model.names import backup_prefix, manifest_key
from cinderblock.store.base import ObjectStore

_READERS: Final = 16
"""Manifests that are read at once. Each takes two or three small requests, so it is latency that counts."""
_SUFFIX: Final = ".manifest"


@dataclass(frozen=True, slots=True)
class Stored:
    """A backup as its place in the store tells.

    Attributes:
        key: of the manifest.
        volume_id, backup_id: taken from the key.
    """

    key: str
    volume_id: str
    backup_id: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A backup as its manifest tells.

    Attributes:
        stored: its place.
        header: the plain header; None if it is damaged.
        summary: the rest; None if it is damaged, or sealed with a key that is not given.
        damage: why the manifest cannot be believed; None if it can.
    """

    stored: Stored
    header: ManifestHeader | None
    summary: ManifestSummary | None = None
    damage: PermanentError | None = None


class Catalog:
    """The backups of one store."""

    def __init__(self, store: ObjectStore, prefix: str, keys: KeyRing | None) -> None:
        self._store = store
        self._prefix = prefix
        self._keys = keys

    def stored(self, volume_id: str | None = None) -> Iterator[Stored]:
        """Every backup, or those of one volume, in order of key; nothing but the listing is read."""
        root = backup_prefix(self._prefix)
        for item in self._store.list(root if volume_id is None else f"{root}{volume_id}/"):
            volume, _, rest = item.key.removeprefix(root).partition("/")
            if rest.endswith(_SUFFIX) and "/" not in rest:
                yield Stored(item.key, volume, rest.removesuffix(_SUFFIX))

    def find(self, text: str) -> Stored:
        """The backup whose id is this text, or alone begins with it.

        Raises NotFound if there is none, InvalidInput if there are several.
        """
        found = [backup for backup in self.stored() if backup.backup_id.startswith(text)]
        exact = [backup for backup in found if backup.backup_id == text]
        if len(exact or found) > 1:
            raise InvalidInput(f"{len(found)} backups have an id that begins with {text}: give more of it")
        if not found:
            raise NotFound(f"There is no backup {text} in this store: cinderblock list shows those that there are")
        return (exact or found)[0]

    def read(self, backups: Iterable[Stored]) -> list[Listed]:
        """What the manifests say; one that is damaged does not hide the others."""
        with ThreadPoolExecutor(_READERS, "manifest") as pool:
            return list(pool.map(self._read, backups))

    def summary(self, backup: Stored) -> ManifestSummary:
        """What one manifest says. Raises KeyUnavailable, IntegrityError, UnsupportedFormat, NotFound."""
        return read_summary(partial(self._store.get, backup.key), self._keys, backup.key)

    def newest(self, volume_id: str) -> ManifestSummary | None:
        """The backup of a volume with the newest data. Raises KeyUnavailable if one of them cannot be read."""
        summaries = [self.summary(backup) for backup in self.stored(volume_id)]
        return max(summaries, key=lambda summary: summary.description.data_timestamp, default=None)

    def dependents(self, backup: Stored) -> list[str]:
        """Ids of the backups that need packs of this one.

        Raises if that cannot be told of one: IntegrityError if it is damaged; KeyUnavailable if it is sealed and a
        backup that it builds on is missing.
        """
        listed = {other.stored.backup_id: other for other in self.read(self.stored(backup.volume_id))}
        del listed[backup.backup_id]
        return sorted(backup_id for backup_id in listed if _needs(listed[backup_id], backup.backup_id, listed))

    def manifest_key(self, volume_id: str, backup_id: str) -> str:
        """Key of a manifest."""
        return manifest_key(self._prefix, volume_id, backup_id)

    def _read(self, backup: Stored) -> Listed:
        read = partial(self._store.get, backup.key)
        try:
            summary = read_summary(read, self._keys, backup.key)
        except KeyUnavailable:
            return Listed(backup, read_header(read, backup.key))
        except (IntegrityError, UnsupportedFormat) as error:
            return Listed(backup, None, damage=error)
        return Listed(backup, summary.header, summary)


def _needs(listed: Listed, backup_id: str, others: Mapping[str, Listed]) -> bool:
    """Whether a backup needs packs of the one with this id.

    One that is sealed tells only its parent. That is enough while the line of parents is whole: packs of an ancestor
    are known to a backup only from its parent's manifest, so if the parent does not need them, neither does it.
    """
    if listed.header is None:
        raise listed.damage or IntegrityError(f"{listed.stored.key} is damaged")
    parent_id = listed.header.parent_id
    if listed.summary is not None:
        return parent_id == backup_id or backup_id in listed.summary.references
    if parent_id is None or parent_id == backup_id:
        return parent_id == backup_id
    if parent_id not in others:
        raise KeyUnavailable(
            f"Backup {listed.stored.backup_id} is sealed and its parent is missing: whether it needs {backup_id} only "
            f"its key {listed.header.key_id} can tell; give it with --encryption-key-file"
        )
    return _needs(others[parent_id], backup_id, others)
