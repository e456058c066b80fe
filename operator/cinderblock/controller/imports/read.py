"""List the manifests of a store and read those that have no VolumeBackup, each call within the limits of the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from sys import intern
from typing import Final

from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.circuit_breaker import LONG_CALL_SECONDS
from cinderblock.errors import (
    AccessDenied,
    IntegrityError,
    KeyUnavailable,
    ObjectArchived,
    ObjectNotFound,
    PermanentError,
    TooLarge,
    UnsupportedFormat,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.footer import MAX_SUMMARY_BYTES
from cinderblock.format.manifest.summary_reader import SMALL_SUMMARY_BYTES
from cinderblock.lifecycle.imports.difference import MAX_BACKUPS, Difference
from cinderblock.lifecycle.imports.records import ReadManifest, StoredManifest, UnreadManifest
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.objects import BackupRef
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import with_current

CONCURRENT_READS: Final = 8
"""Manifests of one store that are read at once: latency is what counts, and other calls to the store run meanwhile."""
BATCH_MANIFESTS: Final = 64
"""Manifests of one call: with 10 ms for each request, it takes about 200 ms."""
TEXT_CHARACTERS: Final = 253
"""Characters of a name that are kept: as many as Kubernetes allows. A longer one is none of Kubernetes."""
MAX_KEPT: Final = 50_000
"""Manifests of all stores that are remembered: one full store, or several usual ones. They take 31 MiB (tracemalloc,
with names of 32 characters)."""
FAILURE_SECONDS: Final = 3600.0
"""For how long it counts that a manifest could not be read, while it and the keys stay the same."""

Found = ReadManifest | UnreadManifest


class ManifestMemory:
    """The results of reading manifests that have no VolumeBackup. An import that selects few reads each only once.

    Losing it costs reads. For one event loop.
    """

    def __init__(self) -> None:
        self._stores: OrderedDict[ObjectKey, dict[str, tuple[float, frozenset[str], Found]]] = OrderedDict()

    def keep(self, store: ObjectKey, found: Found, key_ids: frozenset[str], now: float) -> None:
        """Remember a manifest. The stores that were imported longest ago give way."""
        self._stores.setdefault(store, {})[found.stored.key] = now, key_ids, found
        self._stores.move_to_end(store)
        while len(self._stores) > 1 and sum(map(len, self._stores.values())) > MAX_KEPT:
            self._stores.popitem(last=False)

    def find(self, store: ObjectKey, stored: StoredManifest, key_ids: frozenset[str], now: float) -> Found | None:
        """Return what was read of a manifest; None: it must be read, because something has changed."""
        when, keys, found = self._stores.get(store, {}).get(stored.key, (0.0, frozenset[str](), None))
        if found is None or found.stored != stored or stored.modified is None:
            return None
        if isinstance(found, UnreadManifest) and (keys != key_ids or now - when > FAILURE_SECONDS):
            return None
        return found

    def trim(self, store: ObjectKey, listed: Sequence[StoredManifest]) -> None:
        """Forget manifests of a store that are gone, or that have a VolumeBackup by now."""
        kept = {stored.key for stored in listed}
        remembered = self._stores.get(store, {})
        for key in [key for key in remembered if key not in kept]:
            del remembered[key]

    def forget(self, store: ObjectKey) -> None:
        """Forget a store."""
        self._stores.pop(store, None)


class ManifestReader:
    """The manifests of one open store."""

    def __init__(self, opened: ObjectStore, store: BackupStore, keys: KeyRing | None) -> None:
        self._opened = opened
        self._store = store
        self._keys = keys
        self.key_ids = frozenset(keys.key_ids if keys else ())

    async def list_into(self, context: Context, difference: Difference) -> None:
        """Compare all manifests of the store. One LIST request returns a thousand of them."""

        def compare() -> None:
            for stored in self._listed():
                difference.add(stored)

        await context.stores.call(self._store, compare, LONG_CALL_SECONDS)

    async def list_all(self, context: Context) -> list[StoredManifest]:
        """Return all manifests of the store, at most MAX_BACKUPS + 1: one more shows that there are too many."""
        return await context.stores.call(self._store, lambda: list(self._listed()), LONG_CALL_SECONDS)

    def _listed(self) -> Iterator[StoredManifest]:
        catalog = Catalog(self._opened, self._store.spec.prefix)
        # One more shows that there are too many.
        for found in islice(catalog.list_backups(), MAX_BACKUPS + 1):
            yield StoredManifest(found.key, intern(found.volume_id), found.size, found.modified)

    async def read(self, context: Context, batch: Sequence[StoredManifest]) -> list[Found]:
        """Read manifests. One that is damaged or sealed without its key does not hide the others.

        One that has just vanished is left out. Raises what a store raises that does not answer.
        """
        return await context.stores.call(self._store, partial(self._read_batch, batch))

    def _read_batch(self, batch: Sequence[StoredManifest]) -> list[Found]:
        found: list[Found] = []
        with ThreadPoolExecutor(CONCURRENT_READS, "import") as pool:
            for stored, answer in zip(batch, pool.map(with_current(self._read_small), batch), strict=True):
                # A large summary takes much memory, so it is read alone.
                read = self._read_one(stored, MAX_SUMMARY_BYTES) if isinstance(answer, TooLarge) else answer
                if isinstance(read, TooLarge):
                    read = UnreadManifest(stored, read.reason, read.message)
                if read is not None:
                    found.append(read)
        return found

    def _read_small(self, stored: StoredManifest) -> Found | TooLarge | None:
        return self._read_one(stored, SMALL_SUMMARY_BYTES)

    def _read_one(self, stored: StoredManifest, max_summary_bytes: int) -> Found | TooLarge | None:
        reference = BackupRef(stored.key, stored.volume_id, stored.backup_id, stored.size)
        catalog = Catalog(self._opened, self._store.spec.prefix, self._keys)
        try:
            summary = catalog.read_summary(reference, self._expected(reference), max_summary_bytes=max_summary_bytes)
        except ObjectNotFound:
            return None
        except TooLarge as error:
            return TooLarge(error.message, reason=error.reason)
        except PermanentError as error:
            if not _is_about_the_manifest(error):
                raise
            return UnreadManifest(stored, error.reason, error.message)
        description = summary.description
        return ReadManifest(
            stored,
            description.data_timestamp,
            # A longer text is not a name, and must not look like one after it was cut.
            name=description.backup_name[: TEXT_CHARACTERS + 1],
            namespace=intern(description.namespace[:TEXT_CHARACTERS]),
            volume_name=intern(description.volume_name[:TEXT_CHARACTERS]),
            stored_bytes=summary.stored_bytes,
        )

    def _expected(self, reference: BackupRef) -> ExpectedBackup:
        """Return which backup a manifest must be. A store with keys imports only encrypted ones.

        Anybody who can write to the bucket can put an unencrypted one there. Only a person may accept that.
        """
        spec = self._store.spec
        return reference.expected(sealed=spec.encryption_secret_ref is not None and not spec.allow_unsealed)


def _is_about_the_manifest(error: PermanentError) -> bool:
    """Return whether an error concerns one manifest, and not the whole store or its credentials.

    The listing has just succeeded, so a denied read may be that of one object, which has a key or rules of its own.
    """
    is_denied = type(error) is AccessDenied
    return is_denied or isinstance(error, IntegrityError | KeyUnavailable | ObjectArchived | UnsupportedFormat)
