"""The backups that a store holds, as the store itself shows them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import (
    AccessDenied,
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    NotFound,
    ObjectArchived,
    ObjectNotFound,
    PermanentError,
    TooLarge,
    UnsupportedFormat,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.footer import MAX_SUMMARY_BYTES
from cinderblock.format.manifest.header import ManifestHeader
from cinderblock.format.manifest.reader import ManifestSummary, read_header, read_summary
from cinderblock.format.range_reader import RangeReader
from cinderblock.repository.objects import LISTING_SECONDS, BackupRef, list_manifests, list_pack_objects
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.references import References
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.store.base import ObjectStore, slice_body
from cinderblock.store.deadline import check_current, limit_seconds, with_current

_CONCURRENT_READS: Final = 16
"""Manifests that are read at once. Each takes two or three small requests, so latency is what counts."""

_SMALL_BYTES: Final = 64 << 10
"""Bytes from which a manifest is read in ranges. Most are smaller, and latency costs more than so few bytes."""

MAX_ENTRIES: Final = 1_000_000
"""Most manifests that are read together: hundred backups of ten thousand volumes. The summary of one
with 30 ancestors takes 6 kB."""
MAX_NAMESAKES: Final = 100
"""Most backups of one id. An id is a UID, so a second one is a copy that somebody has made."""
MAX_REFERENCE_BYTES: Final = 1 << 30
"""Most bytes of a look-up for a command, which has its process for itself: a chain of 100,000 backups."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A backup as its manifest describes it.

    Attributes:
        stored: the backup that the key names.
        header: the plain header; None if it is damaged.
        summary: the rest; None if it is damaged, or sealed with a key that is missing.
        damage: why the manifest cannot be trusted; None if it can.
    """

    stored: BackupRef
    header: ManifestHeader | None
    summary: ManifestSummary | None = None
    damage: PermanentError | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """The objects of one backup in a store. Objects of other programs do not count.

    Attributes:
        has_manifest: whether its manifest exists.
        has_packs: whether any of its packs exists.
    """

    has_manifest: bool
    has_packs: bool

    @property
    def has_data(self) -> bool:
        """Whether the store holds any object of the backup."""
        return self.has_manifest or self.has_packs


class Catalog:
    """The backups of one store."""

    def __init__(self, store: ObjectStore, prefix: str, keys: KeyRing | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._keys = keys

    def list_backups(self, volume_id: str | None = None) -> Iterator[BackupRef]:
        """List all backups, or those of one volume, in order of key. This reads no manifest."""
        return list_manifests(self._store, self._prefix, volume_id)

    def namesakes(self, backup_id: str) -> list[BackupRef]:
        """Return the backups of all volumes that have exactly this id, in order of key. Raises TooLarge."""
        found = list(islice((b for b in self.list_backups() if b.backup_id == backup_id), MAX_NAMESAKES + 1))
        if len(found) > MAX_NAMESAKES:
            raise TooLarge(
                f"Cannot find backup {backup_id}: the store lists it for more than {MAX_NAMESAKES} volumes. Find out"
                " who writes to the container."
            )
        return found

    def find(self, text: str) -> BackupRef:
        """Return the backup whose id is ``text``, or the only one whose id begins with it.

        Raises NotFound if there is none, InvalidInput if there are several.
        """
        count, first, exact = 0, None, list[BackupRef]()
        with limit_seconds(LISTING_SECONDS):
            for backup in self.list_backups():
                if backup.backup_id.startswith(text):
                    count, first = count + 1, first or backup
                if backup.backup_id == text and len(exact) < 2:
                    exact.append(backup)
        if len(exact) > 1 or (count > 1 and not exact):
            raise InvalidInput(f"Cannot choose a backup: {count} ids begin with {text}. Give more of the id.")
        if first is None:
            raise NotFound(
                f"Cannot find backup {text}: the store does not hold it. List the backups with cinderblock list."
            )
        return exact[0] if exact else first

    def presence(self, volume_id: str, backup_id: str) -> Presence:
        """Return which objects of a backup exist, in two LIST requests."""
        key = self.manifest_key(volume_id, backup_id)
        has_manifest = any(found.key == key for found in self._store.list(key))
        packs = list_pack_objects(self._store, self._prefix, volume_id, backup_id)
        return Presence(has_manifest, has_packs=next(packs, None) is not None)

    def read_entries(self, backups: Iterable[BackupRef], *, need_keys: bool = False) -> list[CatalogEntry]:
        """Read manifests. A damaged one does not hide the others; one that has just vanished is left out.

        Args:
            backups: which; at most MAX_ENTRIES. They are listed within LISTING_SECONDS.
            need_keys: raise KeyUnavailable if the key of a manifest is missing.

        Raises TooLarge if there are more.
        """
        with limit_seconds(LISTING_SECONDS):
            listed = list(islice(backups, MAX_ENTRIES + 1))
        if len(listed) > MAX_ENTRIES:
            raise TooLarge(
                f"Cannot read the manifests: the store lists more than {MAX_ENTRIES}. Choose a volume, or find out who"
                " writes to the container."
            )
        read = partial(self._read_entry, need_keys=need_keys)
        with ThreadPoolExecutor(_CONCURRENT_READS, "manifest") as pool:
            return [entry for entry in pool.map(with_current(read), listed) if entry]

    def stream_entries(self, backups: Iterable[BackupRef]) -> Generator[CatalogEntry]:
        """Read manifests in the given order, a few ahead of the caller, so that memory does not grow with their number.

        One that is damaged, archived or denied does not hide the others; one that has just vanished is left out. A
        caller that stops early closes the generator.
        """
        with closing(map_bounded(self._read_any, backups, _CONCURRENT_READS)) as read_ahead:
            for _, entry in read_ahead:
                if entry is not None:
                    yield entry

    def read_entry(self, backup: BackupRef) -> CatalogEntry:
        """Read one manifest. Raises NotFound if it has just vanished."""
        entry = self._read_entry(backup, need_keys=False)
        if entry is None:
            raise NotFound(f"Cannot read {backup.key}: it no longer exists.")
        return entry

    def read_summary(
        self, backup: BackupRef, expected: ExpectedBackup | None = None, *, max_summary_bytes: int = MAX_SUMMARY_BYTES
    ) -> ManifestSummary:
        """Read one manifest. Raises KeyUnavailable, IntegrityError, UnsupportedFormat, NotFound, TooLarge.

        Args:
            backup: which.
            expected: which backup it must be; None: the one that its key names.
            max_summary_bytes: most bytes of the JSON document in its footer.
        """
        read = _reader(self._store, backup)
        return read_summary(
            read,
            self._keys,
            expected or backup.expected(),
            backup.key,
            max_summary_bytes=max_summary_bytes,
            check_time=check_current,
        )

    def find_newest(self, volume_id: str) -> tuple[CatalogEntry | None, list[PermanentError]]:
        """Return the backup of a volume with the newest data, and the errors of the damaged ones.

        Raises KeyUnavailable if the key of one of them is missing: it might be the newest.
        """
        entries = self.read_entries(self.list_backups(volume_id), need_keys=True)
        sound = [(entry.summary.description.data_timestamp, entry) for entry in entries if entry.summary]
        newest = max(sound, key=lambda pair: pair[0])[1] if sound else None
        return newest, [entry.damage for entry in entries if entry.damage]

    def references(self, volume_id: str) -> References:
        """Begin a look-up of which backups of a volume need packs of which others."""
        return References(self._store, self._prefix, volume_id, self._keys, VolumeReferences(MAX_REFERENCE_BYTES))

    def find_dependents(self, backup: BackupRef) -> list[str]:
        """Return the ids of the backups that need packs of this one.

        Raises IntegrityError or UnsupportedFormat for a backup that cannot be read. Raises KeyUnavailable for a sealed
        backup if one that it builds on is missing. See `References`.
        """
        references = self.references(backup.volume_id)
        references.read_all()
        dependents = references.needs(backup.backup_id)
        if dependents.unknown:
            raise dependents.unknown[0]
        return list(dependents.by)

    def manifest_key(self, volume_id: str, backup_id: str) -> str:
        """Return the key of a manifest."""
        return manifest_key(self._prefix, volume_id, backup_id)

    def _read_any(self, backup: BackupRef) -> CatalogEntry | None:
        """Read one manifest. One object may be archived, or have a key or rules of its own."""
        try:
            return self._read_entry(backup, need_keys=False)
        except (AccessDenied, ObjectArchived) as error:
            if isinstance(error, AccessDenied) and type(error) is not AccessDenied:
                raise  # The credentials are wrong, for all of them.
            return CatalogEntry(backup, None, damage=type(error)(error.message, reason=error.reason))

    def _read_entry(self, backup: BackupRef, *, need_keys: bool) -> CatalogEntry | None:
        read = partial(self._store.get, backup.key)
        try:
            try:
                summary = self.read_summary(backup)
            except KeyUnavailable:
                if need_keys:
                    raise
                return CatalogEntry(backup, read_header(read, backup.expected(), backup.key))
        except (IntegrityError, UnsupportedFormat) as error:
            # The error itself has a traceback, which keeps the footer, of up to 16 MiB.
            return CatalogEntry(backup, None, damage=type(error)(error.message, reason=error.reason))
        except ObjectNotFound:
            return None
        return CatalogEntry(backup, summary.header, summary)


def _reader(store: ObjectStore, backup: BackupRef) -> RangeReader:
    """Return what reads a manifest: one request for a small one, whose size a listing has told."""
    read = partial(store.get, backup.key)
    if not 0 < backup.size <= _SMALL_BYTES:
        return read
    whole = read(0, _SMALL_BYTES)
    return partial(slice_body, whole) if len(whole) < _SMALL_BYTES else read
