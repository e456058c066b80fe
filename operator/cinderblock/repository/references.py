"""Find out which backup needs packs of which other one, from the manifests of a volume.

A manifest lists every pack that its backup needs. So references decide what may be deleted, not parents: if B is gone
from the chain A, B, C, no manifest names A as a parent, and C still needs packs of A.

A look-up lists the manifests of a volume once and reads those that are not cached, in batches. A manifest that vanishes
between listing and reading counts as absent if a second listing lacks it. One that cannot be read may need anything.

A listing may be old, or of a bucket that is still being copied back. So a caller that knows backups of the volume names
them, and a listing without their manifests decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.errors import (
    ForeignManifest,
    IntegrityError,
    KeyUnavailable,
    ObjectNotFound,
    PermanentError,
    ReferencesUnknown,
    TooLarge,
    UnsupportedFormat,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.footer import MAX_SUMMARY_BYTES
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.format.manifest.reader import read_packs, read_summary
from cinderblock.format.manifest.summary_reader import SMALL_SUMMARY_BYTES
from cinderblock.format.range_reader import RangeReader
from cinderblock.repository.objects import BackupRef, list_manifests, list_pack_objects
from cinderblock.repository.reference_cache import BackupIdTable, ManifestReferences, VolumeReferences
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import check_current, with_current

CONCURRENT_READS: Final = 8
"""Manifests that are read at once. Each takes two or three small requests, so latency is what counts."""
BATCH_MANIFESTS: Final = 64
"""Manifests in one batch: with 10 ms for each request, a batch takes about 200 ms."""
MAX_MANIFESTS: Final = 100_000
"""Most manifests of one volume: hourly backups of eleven years. They take 60 MB while a look-up runs."""


@dataclass(frozen=True, slots=True)
class Dependents:
    """Which backups need packs of a backup.

    Attributes:
        by: ids of the backups that need them, in order.
        unknown: errors of backups that may need them; each names a remedy.
    """

    by: tuple[str, ...]
    unknown: tuple[PermanentError, ...]


class References:
    """One look-up of the manifests of a volume. Only one thread at a time may use it.

    Args:
        store, prefix: where the manifests are.
        volume_id: the volume that they belong to.
        keys: the key ring of the store, if any. A sealed manifest without its key shows only its parent.
        known: cached references of the volume; this look-up adds to them.
        expected: ids of backups that must have a manifest, because somebody knows that they are complete.

    Raises, from every method, what the store raises, and ReferencesUnknown if a listing lacks an expected manifest.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        volume_id: str,
        keys: KeyRing | None,
        known: VolumeReferences,
        *,
        expected: Collection[str] = (),
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._volume_id = volume_id
        self._keys = keys
        self._known = known
        self._expected = frozenset(expected)
        self._found: dict[str, BackupRef] = {}
        self._lists: dict[str, ManifestReferences] = {}
        self._unread: list[BackupRef] = []
        self._errors: dict[str, PermanentError] = {}
        self._vanished: set[str] = set()
        self._doubted: set[str] = set()
        self.list_again()

    def list_again(self) -> None:
        """List the manifests once more. Those that are cached need not be read again."""
        self._found = self._list()
        self._errors = {}
        self._vanished = set()
        self._doubted = set()
        self.refresh()

    def _list(self) -> dict[str, BackupRef]:
        listed = islice(list_manifests(self._store, self._prefix, self._volume_id), MAX_MANIFESTS + 1)
        found = {found.backup_id: found for found in listed}
        if len(found) > MAX_MANIFESTS:
            raise TooLarge(
                f"Cannot read the manifests of volume {self._volume_id}: the store lists more than {MAX_MANIFESTS}."
                " Find out who writes to the container."
            )
        missing = tuple(sorted(self._expected - found.keys()))
        if missing:
            raise ReferencesUnknown(
                f"The store does not list {self._key(missing[0])}, although that backup is complete. Put it back.",
                missing=missing,
            )
        return found

    def leave_out(self, backup_ids: Collection[str]) -> None:
        """Read no manifests of these backups, which are about to be removed, until they are listed again."""
        self._found = {backup_id: found for backup_id, found in self._found.items() if backup_id not in backup_ids}
        self._lists = {backup_id: lists for backup_id, lists in self._lists.items() if backup_id not in backup_ids}
        self._unread = [found for found in self._unread if found.backup_id not in backup_ids]

    @property
    def listed_ids(self) -> frozenset[str]:
        """The ids of the backups that have a manifest, readable or not."""
        return frozenset(self._found)

    def refresh(self) -> None:
        """Use the references that other look-ups have cached by now."""
        key_ids = frozenset(self._keys.key_ids if self._keys else ())
        self._lists = self._known.of(self._found.values(), key_ids)
        self._unread = [found for found in self._found.values() if found.backup_id not in self._lists]

    @property
    def is_complete(self) -> bool:
        """Whether every listed manifest has been read."""
        return not self._unread

    def read_batch(self) -> None:
        """Read the next batch of manifests."""
        batch = self._unread[:BATCH_MANIFESTS]
        read = with_current(partial(self._read, max_summary_bytes=SMALL_SUMMARY_BYTES))
        with ThreadPoolExecutor(CONCURRENT_READS, "references") as pool:
            for found, answer in zip(batch, pool.map(read, batch), strict=True):
                # A large summary takes much memory, so it is read alone.
                self._add(found, self._read(found) if isinstance(answer, TooLarge) else answer)
        del self._unread[: len(batch)]
        if not self._unread and self._vanished:
            self._list_vanished()

    def _list_vanished(self) -> None:
        """Forget manifests that a new listing lacks as well. Read the others once more."""
        listed = self._list()
        for backup_id in self._vanished - listed.keys():
            del self._found[backup_id]
        self._doubted = self._vanished & listed.keys()
        self._vanished = set()
        self._unread = [self._found[backup_id] for backup_id in sorted(self._doubted)]

    def read_all(self) -> None:
        """Read every manifest that is not cached."""
        while not self.is_complete:
            self.read_batch()

    def needs(self, backup_id: str) -> Dependents:
        """Return which backups need packs of a backup. Read all manifests before.

        If the manifest of this backup is damaged, other damaged ones need nothing; otherwise two damaged backups could
        never be deleted. A manifest under the key of another backup needs nothing, unless that backup has packs: then
        it has replaced a manifest that may need anything.
        """
        lists, errors = dict(self._lists), dict(self._errors)
        own_error = errors.pop(backup_id, None)
        lists.pop(backup_id, None)
        if isinstance(own_error, IntegrityError):
            errors = {other: error for other, error in errors.items() if not isinstance(error, IntegrityError)}
        resolve_all = _NeedResolver(backup_id, lists, errors, self._key).resolve_all()
        unknown = {other: answer for other, answer in resolve_all.items() if isinstance(answer, PermanentError)}
        # At the next look-up the key may exist, or another key may wrap the manifest.
        self._known.forget(other for other, error in unknown.items() if isinstance(error, KeyUnavailable))
        by = tuple(sorted(other for other, answer in resolve_all.items() if answer is True))
        return Dependents(by, tuple(unknown[other] for other in sorted(unknown)))

    def first_unknown(self) -> PermanentError | None:
        """Return why one of the manifests does not show all packs that it lists; None: all do. Read all before."""
        errors = dict(self._errors)
        for backup_id, lists in self._lists.items():
            if lists.packs_of is None:
                errors[backup_id] = KeyUnavailable(
                    f"Cannot read {self._key(backup_id)}: it is sealed with key {lists.missing_key}. Put that key into"
                    " the encryption Secret."
                )
        # At the next look-up the key may exist, or another key may wrap the manifest.
        self._known.forget(other for other, error in errors.items() if isinstance(error, KeyUnavailable))
        return errors[min(errors)] if errors else None

    def inherits(self, backup_id: str) -> bool:
        """Return whether a backup lists packs of backups without a manifest, or may list them. Read all before."""
        lists = self._lists.get(backup_id)
        if lists is None or lists.packs_of is None:
            return backup_id in self._errors or lists is not None
        return bool(lists.packs_of & ~lists.ids.known_bits(self._found))

    def heirs(self) -> list[BackupRef]:
        """Return manifests that together list every pack that any manifest lists of a backup without a manifest.

        A backup gets packs of others only from its parent. So a manifest shows nothing new if its parent has a manifest
        and lists packs of the same backups. Read all before; none may be unknown.
        """
        inherited = self._inherited()
        heirs, seen = list[str](), set[str]()
        for backup_id in inherited:
            path: dict[str, None] = {}
            current: str | None = backup_id
            while current is not None and current not in seen:
                path[current] = None
                parent = self._parent_with_all(current, inherited)
                if parent is None or parent in path:
                    # A chain that leads back to itself is forged.
                    heirs.append(current)
                    break
                current = parent
            seen |= path.keys()
        return [self._found[backup_id] for backup_id in heirs]

    def packs_of(self, found: BackupRef, max_summary_bytes: int = MAX_SUMMARY_BYTES) -> PackSet:
        """Read all packs that a manifest lists. Several threads may call this.

        Raises IntegrityError, TooLarge, UnsupportedFormat, KeyUnavailable, ObjectNotFound.
        """
        return read_packs(
            partial(self._store.get, found.key),
            self._keys,
            found.expected(),
            found.key,
            max_summary_bytes=max_summary_bytes,
            check_time=check_current,
        )

    def _inherited(self) -> dict[str, int]:
        """Return by manifest the backups without a manifest whose packs it lists, as bits; only if there are any."""
        live: dict[BackupIdTable, int] = {}
        found: dict[str, int] = {}
        for backup_id, lists in self._lists.items():
            if lists.ids not in live:
                live[lists.ids] = lists.ids.known_bits(self._found)
            if inherited := (lists.packs_of or 0) & ~live[lists.ids]:
                found[backup_id] = inherited
        return found

    def _parent_with_all(self, backup_id: str, inherited: Mapping[str, int]) -> str | None:
        """Return the parent of a backup if its manifest lists packs of the same backups without a manifest."""
        lists = self._lists[backup_id]
        parent = self._lists.get(lists.parent_id or "")
        if parent is None or parent.packs_of is None or parent.ids is not lists.ids:
            return None
        return None if inherited[backup_id] & ~parent.packs_of else lists.parent_id

    def _add(self, found: BackupRef, answer: _ManifestLists | PermanentError | None) -> None:
        if isinstance(answer, ObjectNotFound) and found.backup_id not in self._doubted:
            self._vanished.add(found.backup_id)
        elif isinstance(answer, PermanentError):
            self._errors[found.backup_id] = answer
        elif answer is not None:
            lists = self._known.add(found, answer.header.parent_id, answer.packs_of, answer.missing_key)
            self._lists[found.backup_id] = lists

    def _read(
        self, found: BackupRef, max_summary_bytes: int = MAX_SUMMARY_BYTES
    ) -> _ManifestLists | PermanentError | None:
        """Read header and footer. Return None if the manifest is only a copy of another one.

        Return ObjectNotFound if the store does not have it, and TooLarge if its summary has more bytes than given.
        """
        try:
            start = self._store.get(found.key, 0, HEADER_BYTES)
            header = parse_header(start, found.key)
            if header.owner != found.owner and not self._has_packs(found):
                return None
            read = _beginning_with(start, partial(self._store.get, found.key))
            return self._read_lists(found, header, read, max_summary_bytes)
        except ObjectNotFound:
            return ObjectNotFound(
                f"The store lists {found.key}, and answers that it does not exist. Repair the store, or put it back."
            )
        except (IntegrityError, TooLarge, UnsupportedFormat) as error:
            # The error itself has a traceback, which keeps the footer, of up to 16 MiB.
            return type(error)(error.message, reason=error.reason)

    def _has_packs(self, found: BackupRef) -> bool:
        packs = list_pack_objects(self._store, self._prefix, found.volume_id, found.backup_id)
        return next(packs, None) is not None

    def _read_lists(
        self, found: BackupRef, header: ManifestHeader, read: RangeReader, max_summary_bytes: int
    ) -> _ManifestLists:
        try:
            summary = read_summary(
                read,
                self._keys,
                found.expected(),
                found.key,
                max_summary_bytes=max_summary_bytes,
                check_time=check_current,
            )
            return _ManifestLists(header, frozenset(summary.references))
        except KeyUnavailable:
            return _ManifestLists(header, None, header.key_id)

    def _key(self, backup_id: str) -> str:
        return manifest_key(self._prefix, self._volume_id, backup_id)


@dataclass(frozen=True, slots=True)
class _ManifestLists:
    """The references of a manifest, as they were read.

    Attributes:
        header: the plain part.
        packs_of: ids of the other backups whose packs it lists; None: its key is missing.
        missing_key: the id of that key.
    """

    header: ManifestHeader
    packs_of: frozenset[str] | None
    missing_key: str | None = None


def _beginning_with(start: bytes, read: RangeReader) -> RangeReader:
    """Return a reader that does not request the header again, whose bytes are ``start``."""

    def read_rest(position: int, length: int) -> bytes:
        return start if (position, length) == (0, HEADER_BYTES) else read(position, length)

    return read_rest


_Need = bool | PermanentError


class _NeedResolver:
    """Find out which backups need packs of ``target``.

    A sealed manifest without its key shows only its parent. That is enough while the chain of parents is complete: a
    backup gets packs of an ancestor only from its parent's manifest, so it needs none that its parent does not need.
    """

    def __init__(
        self,
        target: str,
        lists: Mapping[str, ManifestReferences],
        errors: Mapping[str, PermanentError],
        key_of: Callable[[str], str],
    ) -> None:
        self._target = target
        self._lists = lists
        self._errors = errors
        self._key_of = key_of
        self._known: dict[str, _Need] = {}

    def resolve_all(self) -> dict[str, _Need]:
        """Return for each other backup whether it needs packs of the target, or why that is unknown."""
        return {other: self._resolve(other) for other in (*self._lists, *self._errors)}

    def _resolve(self, backup_id: str) -> _Need:
        """Follow the chain of parents up to the first one with an answer, and keep the answer for all on the path."""
        path: dict[str, None] = {}
        current = backup_id
        while (answer := self._own_need(current, path)) is None:
            path[current] = None
            current = self._lists[current].parent_id or ""
        self._known |= dict.fromkeys((*path, current), answer)
        return answer

    def _own_need(self, backup_id: str, path: Mapping[str, None]) -> _Need | None:
        """Return the answer if this backup has it; None if its parent has it."""
        if backup_id in self._known:
            return self._known[backup_id]
        if backup_id in path:
            return IntegrityError(f"{self._key_of(backup_id)} is damaged: it is an ancestor of itself.")
        if backup_id in self._errors:
            return self._unreadable(backup_id)
        listed = self._lists[backup_id].lists(self._target)
        if listed is not None:
            return listed
        parent = self._lists[backup_id].parent_id
        if parent is None or parent == self._target:
            return parent is not None
        if parent in self._lists or parent in self._errors:
            return None
        return KeyUnavailable(
            f"Cannot tell whether backup {backup_id} needs {self._target}: it is sealed with key"
            f" {self._lists[backup_id].missing_key}, and its parent is missing. Put that key into the encryption"
            " Secret,"
            f" or delete {backup_id} first."
        )

    def _unreadable(self, backup_id: str) -> PermanentError:
        error = self._errors[backup_id]
        remedy = f"Delete {backup_id} first"
        if isinstance(error, UnsupportedFormat):
            remedy = f"Use the version of Cinderblock that made it, or delete {backup_id} first"
        if isinstance(error, ObjectNotFound):
            remedy = f"Or delete {backup_id} first"
        if isinstance(error, ForeignManifest):
            remedy = f"Put the manifest of {backup_id} back, or remove the object in its place with an S3 client"
        cause = error.message.removesuffix(".")
        return type(error)(f"Cannot tell whether backup {backup_id} needs {self._target}: {cause}. {remedy}.")
