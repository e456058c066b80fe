"""Cache of the packs that manifests list, so that not every look-up reads every manifest.

The cache can never cause the deletion of a pack that is needed. A manifest never changes what it lists: rewrapping its
key only replaces its header. A new manifest is in every listing, and is unknown until it is read. A manifest that is
damaged or under a foreign key is not cached, and is read each time.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Final

from cinderblock.errors import TooLarge
from cinderblock.repository.objects import BackupRef

CACHE_BYTES: Final = 16 << 20
"""Most bytes of `ReferenceCache`: some 25,000 backups, or one volume with 8,760 incremental ones."""
MAX_VOLUME_BYTES: Final = 32 << 20
"""Most bytes of one volume during a look-up: a chain of 18,000 incremental backups. Honest manifests list backups of
their volume. A forged one may list 65,536 others."""
_MANIFEST_BYTES: Final = 500
"""Bytes of one manifest without its bit set: objects, strings and dictionary entries."""
_VOLUME_BYTES: Final = 1500
"""Bytes of a volume without manifests."""


class BackupIdTable:
    """Numbers of backup ids, so that a set of ids is one integer with a bit for each id.

    In a chain of n incremental backups, the last one may list packs of all n. Its set takes n / 8 bytes.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def bits(self, ids: Iterable[str]) -> int:
        """Return a set of ids as bits. New ids get new numbers."""
        found = 0
        for backup_id in ids:
            found |= 1 << self._ids.setdefault(backup_id, len(self._ids))
        return found

    def known_bits(self, ids: Iterable[str]) -> int:
        """Return those ids of a set that have a number, as bits."""
        found = 0
        for backup_id in ids:
            number = self._ids.get(backup_id)
            found |= 0 if number is None else 1 << number
        return found

    def count(self, ids: Collection[str]) -> int:
        """Return how many of these ids have numbers."""
        return sum(backup_id in self._ids for backup_id in ids)

    def has(self, bits: int, backup_id: str) -> bool:
        """Return whether a set contains an id."""
        number = self._ids.get(backup_id)
        return number is not None and bool(bits >> number & 1)


@dataclass(frozen=True, slots=True)
class ManifestReferences:
    """The backups whose packs a manifest lists.

    Attributes:
        ids: numbers the ids of ``packs_of``.
        size: bytes of the manifest.
        parent_id: the backup that it was made against.
        packs_of: the other backups whose packs it lists, as bits; None: it is sealed, and its key is missing.
        missing_key: the id of that key.
    """

    ids: BackupIdTable
    size: int
    parent_id: str | None
    packs_of: int | None
    missing_key: str | None = None

    def lists(self, backup_id: str) -> bool | None:
        """Return whether it lists packs of another backup; None if that is unknown."""
        return None if self.packs_of is None else self.ids.has(self.packs_of, backup_id)


class VolumeReferences:
    """Cached references of the manifests of one volume. Several threads may use it.

    Args:
        limit: most bytes of memory, as `bytes` counts them.
    """

    def __init__(self, limit: int = MAX_VOLUME_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._ids = BackupIdTable()
        self._lists: dict[str, ManifestReferences] = {}
        self._bits = 0

    @property
    def is_empty(self) -> bool:
        """Whether the cache of this volume is empty."""
        return not self._lists

    @property
    def bytes(self) -> int:
        """Estimated bytes of memory."""
        return _VOLUME_BYTES + self._bits + (len(self._lists) + len(self._ids)) * _MANIFEST_BYTES // 2

    def of(self, found: Collection[BackupRef], key_ids: Collection[str]) -> dict[str, ManifestReferences]:
        """Return the cached references of listed manifests, by backup id, and drop those that are gone.

        A manifest whose key was missing counts as unknown if the key is now among ``key_ids``.
        """
        sizes = {item.backup_id: item.size for item in found}
        with self._lock:
            self._drop(set(self._lists) - set(sizes))
            self._drop({name for name, lists in self._lists.items() if lists.missing_key in key_ids})
            if not self._lists:
                self._ids = BackupIdTable()
            return {name: lists for name, lists in self._lists.items() if lists.size == sizes[name]}

    def add(
        self, found: BackupRef, parent_id: str | None, packs_of: Collection[str] | None, missing_key: str | None
    ) -> ManifestReferences:
        """Cache the references of a manifest. Raises TooLarge, and forgets all, if the memory is used up."""
        with self._lock:
            self._drop({found.backup_id} & self._lists.keys())
            new = len(packs_of or ()) - self._ids.count(packs_of or ())
            if self.bytes + new * _MANIFEST_BYTES // 2 > self._limit:
                self._drop(set(self._lists))
                self._ids = BackupIdTable()
                raise TooLarge(
                    f"Cannot read the manifests of volume {found.volume_id}: they list more backups than any volume"
                    f" has. Find out who writes to the container. The last one read is {found.key}."
                )
            bits = None if packs_of is None else self._ids.bits(sorted(packs_of))
            lists = ManifestReferences(self._ids, found.size, parent_id, bits, missing_key)
            self._lists[found.backup_id] = lists
            self._bits += sys.getsizeof(lists.packs_of)
            return lists

    def forget(self, backup_ids: Iterable[str]) -> None:
        """Drop manifests, so that the next look-up reads them again."""
        with self._lock:
            self._drop(set(backup_ids) & self._lists.keys())

    def _drop(self, backup_ids: Iterable[str]) -> None:
        for backup_id in backup_ids:
            self._bits -= sys.getsizeof(self._lists.pop(backup_id).packs_of)


class ReferenceCache:
    """Cached references of many volumes. It drops the least recently used volumes.

    Only one thread may use it. Several threads may use the values that it returns.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._volumes: OrderedDict[Hashable, tuple[VolumeReferences, int]] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of memory, as the last `account` of each volume counted them."""
        return self._bytes

    def of(self, volume: Hashable) -> VolumeReferences:
        """Return the cached references of a volume; ``volume`` names it and its store."""
        known, size = self._volumes.get(volume) or (VolumeReferences(), 0)
        self._volumes[volume] = known, size
        self._volumes.move_to_end(volume)
        return known

    def account(self, volume: Hashable) -> None:
        """Count the bytes of a volume after a look-up, and drop volumes until the limit is kept."""
        if volume not in self._volumes:
            return
        known, before = self._volumes[volume]
        size = known.bytes
        self._volumes[volume] = known, size
        self._bytes += size - before
        if known.is_empty:
            del self._volumes[volume]
            self._bytes -= size
        while self._bytes > self._limit:
            _, (_, size) = self._volumes.popitem(last=False)
            self._bytes -= size
