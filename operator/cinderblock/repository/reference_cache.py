"""What the manifests of volumes list, kept between looks, so that not every look reads each manifest.

This memory can never lead to the removal of a pack that is needed. A manifest never changes what it lists: wrapping its
key again only replaces its header. A new manifest is in every listing, and is unknown until it is read. A manifest that
is damaged or under a foreign key is not kept, and is read again each time.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Final

from cinderblock.repository.objects import StoredManifest

CACHE_BYTES: Final = 16 << 20
"""Most bytes that `KnownVolumes` keeps: some 25,000 backups, or one volume with 8,760 incremental ones."""
_MANIFEST_BYTES: Final = 500
"""Bytes that one manifest takes without its set of bits: objects, texts and places in dictionaries."""
_VOLUME_BYTES: Final = 1500
"""Bytes that a volume takes without manifests."""


class BackupNumbers:
    """Numbers for the ids of backups, so that a set of ids is one integer with a bit for each.

    In a line of n incremental backups the last one may list packs of all n: as bits these are n / 8 bytes.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def bits(self, ids: Iterable[str]) -> int:
        """Return a set of ids as bits. New ids get numbers."""
        found = 0
        for backup_id in ids:
            found |= 1 << self._numbers.setdefault(backup_id, len(self._numbers))
        return found

    def has(self, bits: int, backup_id: str) -> bool:
        """Return whether a set holds an id."""
        number = self._numbers.get(backup_id)
        return number is not None and bool(bits >> number & 1)


@dataclass(frozen=True, slots=True)
class PackReferences:
    """The backups whose packs a manifest lists.

    Attributes:
        parent_id: the backup that it was made against.
        packs_of: the other backups whose packs it lists, as bits; None: it is sealed, and its key is missing.
        missing_key: the id of that key.
    """

    numbers: BackupNumbers
    size: int
    parent_id: str | None
    packs_of: int | None
    missing_key: str | None = None

    def lists(self, backup_id: str) -> bool | None:
        """Return whether it lists packs of another backup; None if that is unknown."""
        return None if self.packs_of is None else self.numbers.has(self.packs_of, backup_id)


class VolumeReferences:
    """What was read of the manifests of one volume. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = BackupNumbers()
        self._lists: dict[str, PackReferences] = {}
        self._bits = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not self._lists

    @property
    def bytes(self) -> int:
        """About how many bytes of memory this takes."""
        return _VOLUME_BYTES + self._bits + (len(self._lists) + len(self._numbers)) * _MANIFEST_BYTES // 2

    def of(self, found: Collection[StoredManifest], key_ids: Collection[str]) -> dict[str, PackReferences]:
        """Return what is known of the manifests of a listing, by backup id, and forget those that are gone.

        A manifest whose key was missing counts as unknown if the key is now among ``key_ids``.
        """
        sizes = {item.backup_id: item.size for item in found}
        with self._lock:
            self._drop(set(self._lists) - set(sizes))
            self._drop({name for name, lists in self._lists.items() if lists.missing_key in key_ids})
            if not self._lists:
                self._numbers = BackupNumbers()
            return {name: lists for name, lists in self._lists.items() if lists.size == sizes[name]}

    def learn(
        self, found: StoredManifest, parent_id: str | None, packs_of: Collection[str] | None, missing_key: str | None
    ) -> PackReferences:
        """Keep what was read of a manifest."""
        with self._lock:
            self._drop({found.backup_id} & self._lists.keys())
            bits = None if packs_of is None else self._numbers.bits(sorted(packs_of))
            lists = PackReferences(self._numbers, found.size, parent_id, bits, missing_key)
            self._lists[found.backup_id] = lists
            self._bits += sys.getsizeof(lists.packs_of)
            return lists

    def forget(self, backup_ids: Iterable[str]) -> None:
        """Make the next look read these manifests again."""
        with self._lock:
            self._drop(set(backup_ids) & self._lists.keys())

    def _drop(self, backup_ids: Iterable[str]) -> None:
        for backup_id in backup_ids:
            self._bits -= sys.getsizeof(self._lists.pop(backup_id).packs_of)


class ReferenceCache:
    """What was read of the manifests of many volumes. It forgets those that nobody has asked about for longest.

    Only one thread may use it. Several threads may use what it returns.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._volumes: OrderedDict[Hashable, tuple[VolumeReferences, int]] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of memory that were counted by the last `settle` of each volume."""
        return self._bytes

    def of(self, place: Hashable) -> VolumeReferences:
        """Return what is known of the volume at a place, which names store and volume."""
        known, size = self._volumes.get(place) or (VolumeReferences(), 0)
        self._volumes[place] = known, size
        self._volumes.move_to_end(place)
        return known

    def settle(self, place: Hashable) -> None:
        """Count the bytes of a volume after a look, and forget what exceeds the limit."""
        if place not in self._volumes:
            return
        known, before = self._volumes[place]
        size = known.bytes
        self._volumes[place] = known, size
        self._bytes += size - before
        if known.is_empty:
            del self._volumes[place]
            self._bytes -= size
        while self._bytes > self._limit:
            _, (_, size) = self._volumes.popitem(last=False)
            self._bytes -= size
