"""The backups that a store holds, read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import (
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    NotFound,
    ObjectNotFound,
    PermanentError,
    UnsupportedFormat,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import ManifestHeader
from cinderblock.format.manifest.reader import ManifestSummary, read_header, read_summary
from cinderblock.repository.objects import list_manifests
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.references import References
from cinderblock.store.base import ObjectStore

_READERS: Final = 16
"""Manifests that are read at once. Each takes two or three small requests, so it is latency that counts."""


@dataclass(frozen=True, slots=True)
class BackupRef:
    """A backup as its place in the store tells.

    Attributes:
        key: of the manifest.
        volume_id, backup_id: taken from the key.
    """

    key: str
    volume_id: str
    backup_id: str

    def expected(
        self, *, sealed: bool = False, content_digest: str | None = None, pins: Pins | None = None
    ) -> ExpectedBackup:
        """Return which backup its manifest must be: the one that the key names, with whatever else is known of it.

        Args:
            sealed: whether it must be encrypted.
            content_digest: the digest that a person has noted.
            pins: the pins that this command has read before.
        """
        return ExpectedBackup(
            volume_id=self.volume_id, backup_id=self.backup_id, sealed=sealed, content_digest=content_digest, pins=pins
        )


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A backup as its manifest tells.

    Attributes:
        stored: its place.
        header: the plain header; None if it is damaged.
        summary: the rest; None if it is damaged, or sealed with a key that is not given.
        damage: why the manifest cannot be believed; None if it can.
    """

    stored: BackupRef
    header: ManifestHeader | None
    summary: ManifestSummary | None = None
    damage: PermanentError | None = None


class Catalog:
    """The backups of one store."""

    def __init__(self, store: ObjectStore, prefix: str, keys: KeyRing | None) -> None:
        self._store = store
        self._prefix = prefix
        self._keys = keys

    def stored(self, volume_id: str | None = None) -> Iterator[BackupRef]:
        """Every backup, or those of one volume, in order of key; nothing but the listing is read."""
        for found in list_manifests(self._store, self._prefix, volume_id):
            yield BackupRef(found.key, found.volume_id, found.backup_id)

    def find(self, text: str) -> BackupRef:
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

    def read(self, backups: Iterable[BackupRef], *, need_keys: bool = False) -> list[CatalogEntry]:
        """What the manifests say; one that is damaged does not hide the others, and one that has just gone is left out.

        Args:
            backups: which.
            need_keys: raise KeyUnavailable for one whose key is not given.
        """
        with ThreadPoolExecutor(_READERS, "manifest") as pool:
            return [listed for listed in pool.map(partial(self._read, need_keys=need_keys), backups) if listed]

    def look(self, backup: BackupRef) -> CatalogEntry:
        """What one manifest says. Raises NotFound if it has just gone."""
        listed = self._read(backup, need_keys=False)
        if listed is None:
            raise NotFound(f"{backup.key} is not there any more")
        return listed

    def summary(self, backup: BackupRef, expected: ExpectedBackup | None = None) -> ManifestSummary:
        """What one manifest says. Raises KeyUnavailable, IntegrityError, UnsupportedFormat, NotFound.

        Args:
            backup: which.
            expected: which backup it must be; None: the one that its key names.
        """
        wanted = expected or backup.expected()
        return read_summary(partial(self._store.get, backup.key), self._keys, wanted, backup.key)

    def newest(self, volume_id: str) -> tuple[CatalogEntry | None, list[PermanentError]]:
        """The backup of a volume with the newest data, and why others were passed over: they are damaged.

        Raises KeyUnavailable if the key of one of them is not given: it might be the newest.
        """
        found = self.read(self.stored(volume_id), need_keys=True)
        sound = [(listed.summary.description.data_timestamp, listed) for listed in found if listed.summary]
        newest = max(sound, key=lambda pair: pair[0])[1] if sound else None
        return newest, [listed.damage for listed in found if listed.damage]

    def references(self, volume_id: str) -> References:
        """Begin a look at which backups of a volume need packs of which others."""
        return References(self._store, self._prefix, volume_id, self._keys, VolumeReferences())

    def dependents(self, backup: BackupRef) -> list[str]:
        """Ids of the backups that need packs of this one.

        Raises if it cannot be told of one: IntegrityError, UnsupportedFormat if it cannot be read; KeyUnavailable if
        it is sealed and a backup that it builds on is missing. See `References`.
        """
        references = self.references(backup.volume_id)
        references.read_all()
        needs = references.needs(backup.backup_id)
        if needs.unknown:
            raise needs.unknown[0]
        return list(needs.by)

    def manifest_key(self, volume_id: str, backup_id: str) -> str:
        """Key of a manifest."""
        return manifest_key(self._prefix, volume_id, backup_id)

    def _read(self, backup: BackupRef, *, need_keys: bool) -> CatalogEntry | None:
        read = partial(self._store.get, backup.key)
        try:
            try:
                summary = self.summary(backup)
            except KeyUnavailable:
                if need_keys:
                    raise
                return CatalogEntry(backup, read_header(read, backup.expected(), backup.key))
        except (IntegrityError, UnsupportedFormat) as error:
            return CatalogEntry(backup, None, damage=error)
        except ObjectNotFound:
            return None
        return CatalogEntry(backup, summary.header, summary)
