"""Which backup needs packs of which other one, read from the manifests of a volume.

A manifest lists every pack that its backup needs. So references decide what may be removed, not parents: if B is gone
from the line A, B, C, no manifest names A as a parent, and C still needs packs of A.

A look lists the manifests of a volume once and reads those that it does not know, in batches. A manifest that vanishes
between the listing and the reading is absent. One that cannot be read may need anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.errors import (
    ForeignManifest,
    IntegrityError,
    KeyUnavailable,
    NotFound,
    PermanentError,
    UnsupportedFormat,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.reader import read_summary
from cinderblock.format.range_reader import RangeReader
from cinderblock.repository.objects import StoredManifest, list_manifests, list_pack_objects
from cinderblock.repository.reference_cache import PackReferences, VolumeReferences
from cinderblock.store.base import ObjectStore

READERS: Final = 8
"""Manifests that are read at once. Each takes two or three small requests, so latency is what counts."""
BATCH_MANIFESTS: Final = 64
"""Manifests in one batch: with 10 ms for each request, a batch takes about 200 ms."""
LARGE_MANIFEST_BYTES: Final = 64 << 20
"""Bytes above which a manifest is read alone: the footer of a volume of many TiB has several MiB."""


@dataclass(frozen=True, slots=True)
class Dependents:
    """Which backups need packs of a backup.

    Attributes:
        by: ids of the backups that need them, in order.
        unknown: errors of backups that may need them; each says what to do.
    """

    by: tuple[str, ...]
    unknown: tuple[PermanentError, ...]


class References:
    """One look at the manifests of a volume. For one thread at a time.

    Args:
        store, prefix: where the manifests are.
        volume_id: the volume that they belong to.
        keys: the key ring of the store; None without one. A sealed manifest without its key shows only its parent.
        known: what earlier looks have read; this look adds to it.

    Raises, from every method, what the store raises.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, volume_id: str, keys: KeyRing | None, known: VolumeReferences
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._volume_id = volume_id
        self._keys = keys
        self._known = known
        self._found = {found.backup_id: found for found in list_manifests(store, prefix, volume_id)}
        self._troubles: dict[str, PermanentError] = {}
        self.recall()

    def recall(self) -> None:
        """Use what is known by now, also from other looks."""
        key_ids = frozenset(self._keys.key_ids if self._keys else ())
        self._lists = self._known.of(self._found.values(), key_ids)
        self._unread = [found for found in self._found.values() if found.backup_id not in self._lists]

    @property
    def is_complete(self) -> bool:
        """Whether every manifest of the listing has been read."""
        return not self._unread

    def read_some(self) -> None:
        """Read the next batch of manifests."""
        batch = self._unread[:BATCH_MANIFESTS]
        large = [found for found in batch if found.size > LARGE_MANIFEST_BYTES]
        small = [found for found in batch if found.size <= LARGE_MANIFEST_BYTES]
        with ThreadPoolExecutor(READERS, "references") as pool:
            for found, answer in zip(small, pool.map(self._read, small), strict=True):
                self._learn(found, answer)
        for found in large:
            self._learn(found, self._read(found))
        del self._unread[: len(batch)]

    def read_all(self) -> None:
        """Read every manifest that is not known yet."""
        while not self.is_complete:
            self.read_some()

    def needs(self, backup_id: str) -> Dependents:
        """Return which backups need packs of a backup. All manifests must have been read.

        If the manifest of this backup is damaged itself, other damaged ones need nothing: otherwise two damaged backups
        could never be deleted. A manifest under the key of another backup needs nothing, unless that backup has packs.
        Then it has replaced a manifest that may need anything.
        """
        lists, troubles = dict(self._lists), dict(self._troubles)
        itself = troubles.pop(backup_id, None)
        lists.pop(backup_id, None)
        if isinstance(itself, IntegrityError):
            troubles = {other: error for other, error in troubles.items() if not isinstance(error, IntegrityError)}
        answers = _ParentChains(backup_id, lists, troubles, self._key).answers()
        unknown = {other: answer for other, answer in answers.items() if isinstance(answer, PermanentError)}
        # At the next look the key may be there, or another key may wrap the manifest.
        self._known.forget(other for other, error in unknown.items() if isinstance(error, KeyUnavailable))
        by = tuple(sorted(other for other, answer in answers.items() if answer is True))
        return Dependents(by, tuple(unknown[other] for other in sorted(unknown)))

    def _learn(self, found: StoredManifest, answer: _Read | PermanentError | None) -> None:
        if isinstance(answer, PermanentError):
            self._troubles[found.backup_id] = answer
        elif answer is not None:
            lists = self._known.learn(found, answer.header.parent_id, answer.packs_of, answer.missing_key)
            self._lists[found.backup_id] = lists

    def _read(self, found: StoredManifest) -> _Read | PermanentError | None:
        """Read header and footer. Return None if the manifest has just vanished or is a mere copy of another one."""
        try:
            start = self._store.get(found.key, 0, HEADER_BYTES)
            header = parse_header(start, found.key)
            if header.owner != found.owner and not self._has_packs(found):
                return None
            return self._read_lists(found, header, _beginning_with(start, partial(self._store.get, found.key)))
        except NotFound as error:
            if error.reason != NotFound.__name__:
                raise
            return None
        except (IntegrityError, UnsupportedFormat) as error:
            return error

    def _has_packs(self, found: StoredManifest) -> bool:
        packs = list_pack_objects(self._store, self._prefix, found.volume_id, found.backup_id)
        return next(packs, None) is not None

    def _read_lists(self, found: StoredManifest, header: ManifestHeader, read: RangeReader) -> _Read:
        try:
            return _Read(header, frozenset(read_summary(read, self._keys, found.expected, found.key).references))
        except KeyUnavailable:
            return _Read(header, None, header.key_id)

    def _key(self, backup_id: str) -> str:
        return manifest_key(self._prefix, self._volume_id, backup_id)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a manifest.

    Attributes:
        header: the plain part.
        packs_of: ids of the other backups whose packs it lists; None: its key is missing.
        missing_key: the id of that key.
    """

    header: ManifestHeader
    packs_of: frozenset[str] | None
    missing_key: str | None = None


def _beginning_with(start: bytes, read: RangeReader) -> RangeReader:
    """Return a reader that does not ask again for the header, whose bytes are ``start``."""

    def read_rest(position: int, length: int | None) -> bytes:
        return start if (position, length) == (0, HEADER_BYTES) else read(position, length)

    return read_rest


_Answer = bool | PermanentError


class _ParentChains:
    """Finds out of each backup whether it needs packs of ``wanted``.

    A sealed manifest without its key shows only its parent. That is enough while the line of parents is complete: a
    backup takes packs of an ancestor only from its parent's manifest, so it needs none that its parent does not need.
    """

    def __init__(
        self,
        wanted: str,
        lists: Mapping[str, PackReferences],
        troubles: Mapping[str, PermanentError],
        key_of: Callable[[str], str],
    ) -> None:
        self._wanted = wanted
        self._lists = lists
        self._troubles = troubles
        self._key_of = key_of
        self._known: dict[str, _Answer] = {}

    def answers(self) -> dict[str, _Answer]:
        """Return, by id of every other backup, whether it needs packs of the wanted one, or why that is unknown."""
        return {other: self._answer(other) for other in (*self._lists, *self._troubles)}

    def _answer(self, backup_id: str) -> _Answer:
        """Follow the line of parents up to the first one with an answer, and note the answer for all on the way."""
        way: dict[str, None] = {}
        current = backup_id
        while (answer := self._of_one(current, way)) is None:
            way[current] = None
            current = self._lists[current].parent_id or ""
        self._known |= dict.fromkeys((*way, current), answer)
        return answer

    def _of_one(self, backup_id: str, way: Mapping[str, None]) -> _Answer | None:
        """Return the answer if this backup alone has it; None: its parent has the answer."""
        if backup_id in self._known:
            return self._known[backup_id]
        if backup_id in way:
            return IntegrityError(f"{self._key_of(backup_id)} is damaged: it is an ancestor of itself")
        if backup_id in self._troubles:
            return self._unreadable(backup_id)
        listed = self._lists[backup_id].lists(self._wanted)
        if listed is not None:
            return listed
        parent = self._lists[backup_id].parent_id
        if parent is None or parent == self._wanted:
            return parent is not None
        if parent in self._lists or parent in self._troubles:
            return None
        return KeyUnavailable(
            f"Backup {backup_id} is sealed and its parent is missing. Only its key"
            f" {self._lists[backup_id].missing_key} can show whether it needs {self._wanted}. Put that key into the"
            f" encryption Secret, or delete {backup_id} first"
        )

    def _unreadable(self, backup_id: str) -> PermanentError:
        error = self._troubles[backup_id]
        first = f"delete {backup_id} first"
        if isinstance(error, UnsupportedFormat):
            first = f"use the version of Cinderblock that made it, or {first}"
        if isinstance(error, ForeignManifest):
            first = f"put the manifest of {backup_id} back, or remove what is in its place with an S3 client"
        return type(error)(f"{error.message}. Whether it needs {self._wanted} cannot be told: {first}")
