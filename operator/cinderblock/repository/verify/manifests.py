"""Read the lists of packs of all manifests of a volume, and find out which manifests are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import (
    ForeignManifest,
    IntegrityError,
    KeyUnavailable,
    NotFound,
    ObjectNotFound,
    PermanentError,
    TooLarge,
    UnsupportedFormat,
    WrongKey,
)
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.footer import MAX_FOOTER_BYTES, MAX_SUMMARY_BYTES, PACK_ROW_BYTES
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.format.manifest.reader import ManifestReader, PackList, read_pack_list
from cinderblock.format.manifest.summary_reader import SMALL_SUMMARY_BYTES
from cinderblock.format.pack import PackTable
from cinderblock.reasons import Reason
from cinderblock.repository.objects import LISTING_SECONDS, BackupRef, list_manifests, list_pack_objects
from cinderblock.repository.references import CONCURRENT_READS, MAX_MANIFESTS
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.store.base import BODY_LIMIT, ObjectStore
from cinderblock.store.deadline import limit_seconds

SMALL_PACKS: Final = 1 << 18
"""Packs of a list that several threads may hold at once: six TiB of data in 7 MB."""
_MOST_PACKS: Final = MAX_FOOTER_BYTES // PACK_ROW_BYTES


@dataclass(slots=True)
class ManifestStates:
    """Knowledge about the manifests of a volume, by backup id.

    Attributes:
        timestamps: times of the data of the backups whose manifest can be read.
        damaged: errors of damaged manifests.
        unreadable: errors of manifests that say nothing, for example because their key is missing.
        doubtful: manifests that a key of the ring does not open. Either the key is wrong, or the manifest is damaged.
        proven_keys: ids of keys that have opened a manifest.
    """

    timestamps: dict[str, datetime] = field(default_factory=dict)
    damaged: dict[str, IntegrityError] = field(default_factory=dict)
    unreadable: dict[str, PermanentError] = field(default_factory=dict)
    doubtful: dict[str, WrongKey] = field(default_factory=dict)
    proven_keys: set[str] = field(default_factory=set)

    def settle_doubts(self) -> None:
        """Decide about doubtful manifests: they are damaged if their key has opened another manifest."""
        for backup_id, error in self.doubtful.items():
            if error.key_id in self.proven_keys:
                self.damaged[backup_id] = error
            else:
                self.unreadable[backup_id] = key_is_wrong(error)
        self.doubtful.clear()


class VolumeManifests:
    """The manifests of a volume, read as often as needed.

    Args:
        store, prefix: where they are.
        keys: the key ring of the store, if any.
        chosen: the backup that is verified; its manifest must be the expected one.
        on_read: called after each manifest, from the thread that reads.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        keys: Keys | None,
        chosen: ExpectedBackup,
        on_read: Callable[[], None],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._keys = keys
        self._chosen = chosen
        self._on_read = on_read

    def read(self, states: ManifestStates) -> Iterator[tuple[BackupRef, PackList]]:
        """Yield the readable manifests of the volume with what they list, and fill ``states``.

        Raises what the store raises.
        """
        listed = self._list()
        read = partial(self._read, max_packs=SMALL_PACKS, max_summary_bytes=SMALL_SUMMARY_BYTES)
        for found, first in map_bounded(read, listed, CONCURRENT_READS):
            self._on_read()
            # A long list takes much memory, so it is read alone.
            answer = self._read(found) if isinstance(first, TooLarge) else first
            if isinstance(answer, PackList):
                states.timestamps[found.backup_id] = answer.data_timestamp
                states.proven_keys.update(filter(None, [answer.header.key_id]))
                yield found, answer
            elif answer is not None:
                self._note(found, answer, states)
        states.settle_doubts()

    def check_chosen(self, states: ManifestStates) -> None:
        """Check that the manifest of the chosen backup was read, or is damaged.

        Raises NotFound if there is none, and KeyUnavailable, TooLarge or UnsupportedFormat if it cannot be read.
        """
        chosen = self._chosen.backup_id
        if error := states.unreadable.get(chosen):
            raise error
        if chosen not in states.timestamps and chosen not in states.damaged:
            raise manifest_is_gone(self._chosen)

    def opens_with(self, key_id: str) -> bool:
        """Return whether a key of the ring opens any manifest of the volume. This reads headers until one opens."""
        for found in self._list():
            try:
                header = parse_header(self._store.get(found.key, 0, HEADER_BYTES), found.key)
                if header.key_id == key_id and header.owner == found.owner and header.data_key(self._keys):
                    return True
            except (IntegrityError, KeyUnavailable, ObjectNotFound, UnsupportedFormat):
                continue
        return False

    def _list(self) -> list[BackupRef]:
        with limit_seconds(LISTING_SECONDS):
            listed = [*islice(list_manifests(self._store, self._prefix, self._chosen.volume_id), MAX_MANIFESTS + 1)]
        if len(listed) > MAX_MANIFESTS:
            raise TooLarge(
                f"Cannot verify volume {self._chosen.volume_id}: the store lists more than {MAX_MANIFESTS} manifests."
                " Find out who writes to the container."
            )
        return listed

    def _note(self, found: BackupRef, error: PermanentError, states: ManifestStates) -> None:
        if isinstance(error, WrongKey):
            states.doubtful[found.backup_id] = error
        elif isinstance(error, IntegrityError):
            states.damaged[found.backup_id] = error
        else:
            states.unreadable[found.backup_id] = error

    def _read(
        self, found: BackupRef, max_packs: int = _MOST_PACKS, max_summary_bytes: int = MAX_SUMMARY_BYTES
    ) -> PackList | PermanentError | None:
        """Read one manifest. Return None if it has just vanished, or is only a copy of another one.

        A damaged one is read twice: its object may have been replaced between two requests for parts of it.
        """
        is_chosen = found.backup_id == self._chosen.backup_id
        expected = self._chosen if is_chosen else found.expected()
        answer = self._read_once(found, expected, max_packs, max_summary_bytes)
        if isinstance(answer, IntegrityError):
            answer = self._read_once(found, expected, max_packs, max_summary_bytes)
        is_copy = isinstance(answer, ForeignManifest) and not is_chosen and not self._has_packs(found)
        return None if is_copy else answer

    def _read_once(
        self, found: BackupRef, expected: ExpectedBackup, max_packs: int, max_summary_bytes: int
    ) -> PackList | PermanentError | None:
        read = partial(self._store.get, found.key)
        try:
            packs = read_pack_list(
                read, self._keys, expected, found.key, max_packs=max_packs, max_summary_bytes=max_summary_bytes
            )
            check_sizes(packs.packs, found.key)
        except ObjectNotFound:
            return None
        except (IntegrityError, KeyUnavailable, TooLarge, UnsupportedFormat) as error:
            return without_traceback(error)
        return packs

    def _has_packs(self, found: BackupRef) -> bool:
        packs = list_pack_objects(self._store, self._prefix, found.volume_id, found.backup_id)
        return next(packs, None) is not None


E = TypeVar("E", bound=PermanentError)


def without_traceback(error: E) -> E:
    """Return the same error without its traceback, which keeps what was read, of up to 128 MiB."""
    copy = type(error)(error.message, reason=error.reason)
    if isinstance(error, WrongKey) and isinstance(copy, WrongKey):
        copy.key_id = error.key_id
    return copy


def check_sizes(packs: PackTable, label: str) -> None:
    """Check that the sizes of packs are possible. Raises IntegrityError naming ``label``, the manifest."""
    smallest, largest = packs.extreme_sizes()
    if len(packs) and not 0 < smallest <= largest <= BODY_LIMIT:
        raise IntegrityError(f"{label}: it lists a pack with an impossible size")


def check_sections(manifest: ManifestReader, on_read: Callable[[Sequence[Chunk]], None]) -> None:
    """Read and check all sections of a manifest. Raises what the manifest raises.

    Args:
        manifest: the manifest.
        on_read: called after each section, with its chunks.
    """
    for content in manifest.contents():
        # Decoding finds rows that do not belong together, which a defect of a writer could have sealed.
        on_read(content.table.chunks)


def manifest_is_gone(expected: ExpectedBackup) -> NotFound:
    """Return the error of a verification whose chosen backup has no manifest.

    A deletion or an expiry may have removed it: only the owner of the backup knows whether it is lost.
    """
    return NotFound(
        f"Cannot verify backup {expected.backup_id} of volume {expected.volume_id}: the store has no manifest of it. If"
        " it was not removed on purpose, it is lost.",
        reason=Reason.MANIFEST_MISSING,
    )


def key_is_wrong(error: WrongKey) -> KeyUnavailable:
    """Return the error for a manifest that cannot be opened although no other one shows that the key is right."""
    return KeyUnavailable(
        f"Cannot verify the backup: {error.message}. Put the right key into the encryption Secret. With the right key,"
        " this means that the manifest is damaged."
    )
