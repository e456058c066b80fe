"""Verify the data of a volume: the packs that its manifests list, each pack once, all of them or one part.

Requests: two or three for each manifest, those for the whole manifest of the chosen backup, one LIST for each 1000
packs, and one for each pack that is read. Memory: four packs, 10 bytes for each pack of the volume, eight lists of
packs, and 8 bytes for each unencrypted chunk of the chosen backup.

A run with a limit begins at a random pack of its part, and reads from there on. So each pack has the same chance in
each run, whatever ended earlier runs, and nothing has to be remembered.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, InvalidInput, NotFound, ObjectNotFound, PermanentError, UnsupportedFormat
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import Sealer
from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import pack_sealer
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.repository.verify.findings import (
    Damage,
    Findings,
    SecondLook,
    Suspects,
    add_manifest,
    find_present,
    sort_affected,
)
from cinderblock.repository.verify.manifests import (
    ManifestStates,
    VolumeManifests,
    check_sections,
    manifest_is_gone,
    without_traceback,
)
from cinderblock.repository.verify.pack_check import PackChecker
from cinderblock.repository.verify.recorded_chunks import RecordedChunks
from cinderblock.repository.verify.volume_packs import PackId, PackMarks, VolumePacks
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore

log = logging.getLogger(__name__)

READER_THREADS: Final = 4
"""Threads that read and check packs. Each holds one pack of 24 MiB."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the packs that a verification reads.

    Attributes:
        part, parts: the part, from 1 to ``parts``, into which packs are divided by their keys.
        max_bytes: bytes after which no further pack is read, manifests included; None: no limit.
        max_seconds: seconds after which no further pack is read; None: no limit.
    """

    part: int = 1
    parts: int = 1
    max_bytes: int | None = None
    max_seconds: float | None = None


def verify_data(
    store: ObjectStore,
    prefix: str,
    expected: ExpectedBackup,
    keys: Keys | None = None,
    share: Share = Share(),
    *,
    on_progress: ProgressCallback = ignore_progress,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    choose: Callable[[int], int] = random.randrange,
) -> Findings:
    """Verify the data of all backups of a volume. At least one pack is read, whatever the limits.

    Args:
        store, prefix: where the backups are.
        expected: one of them, the chosen one, with everything that is known about it.
        keys: the key ring of the store; None if it has no encryption Secret.
        share: what to read.
        on_progress: called often, from this thread.
        clock, sleep: measure and wait, in seconds.
        choose: returns a number below the given one: where to begin.

    Raises:
        InvalidInput: the share is impossible.
        NotFound: there is no manifest of the chosen backup.
        KeyUnavailable, UnsupportedFormat, TooLarge: its manifest cannot be read, and nothing is known about it.
        CinderblockError: the store failed.
    """
    if not 1 <= share.part <= share.parts:
        raise InvalidInput(f"Cannot verify part {share.part} of {share.parts}: give a part from 1 to {share.parts}.")
    run = _DataRun(
        store,
        prefix,
        expected,
        keys,
        share=share,
        on_progress=on_progress,
        clock=clock,
        sleep=sleep,
        choose=choose,
    )
    return run.run()


class _DataRun:
    """The verification of the data of one volume."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        expected: ExpectedBackup,
        keys: Keys | None,
        *,
        share: Share,
        on_progress: ProgressCallback,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        choose: Callable[[int], int],
    ) -> None:
        self._store = CountedStore(store)
        self._prefix = prefix
        self._expected = expected
        self._keys = keys
        self._recorded: RecordedChunks | None = None
        self._share = share
        self._on_progress = on_progress
        self._clock = clock
        self._began = clock()
        self._sleep = sleep
        self._choose = choose
        self._manifests = VolumeManifests(self._store, prefix, keys, expected, self._report)
        self._packs = VolumePacks(prefix, expected.volume_id)
        self._checker = PackChecker(self._store)
        self._suspects = Suspects()
        self._complete = True
        self._verified = 0
        self._done = self._total = 0

    def run(self) -> Findings:
        """Read the manifests, list the packs, read those of the part, and confirm damage."""
        states = ManifestStates()
        for _, packs in self._manifests.read(states):
            self._packs.add(packs)
        self._manifests.check_chosen(states)
        present = find_present(self._store, self._prefix, self._expected.volume_id, self._packs)
        for pack in self._packs.packs():
            if not present.has(pack):
                self._suspects.add_missing(pack)
        broken = self._read_chosen(states)
        self._read_packs()
        damage, again = Damage(), states
        if self._suspects.marks.count or states.damaged:
            again = self._confirm(damage, states)
        if broken is not None and self._expected.backup_id not in again.damaged:
            self._add_broken(damage, broken)
        named = damage.named()
        return Findings(
            complete=self._complete,
            packs=self._packs.count,
            packs_verified=self._verified,
            bytes_read=self._store.counts.bytes_got,
            damaged_count=damage.objects,
            damaged=tuple(key for key, _ in named),
            causes=tuple(cause for _, cause in named),
            affected_count=len(damage.affected),
            affected=sort_affected(damage.affected, self._expected, again),
            unreadable_count=len(again.unreadable),
        )

    def _confirm(self, damage: Damage, states: ManifestStates) -> ManifestStates:
        again = ManifestStates()
        look = SecondLook(
            self._store,
            self._prefix,
            self._expected,
            manifests=self._manifests,
            packs=self._packs,
            sleep=self._sleep,
        )
        look.confirm(self._suspects, damage, again)
        for backup_id, error in states.damaged.items():
            # One that was removed meanwhile is not damaged, nor is one that a person has replaced.
            if backup_id in again.damaged:
                add_manifest(damage, self._expected, backup_id, error)
        return again

    def _read_chosen(self, states: ManifestStates) -> IntegrityError | None:
        """Read the whole manifest of the chosen backup, as level Structure does. Return why it is damaged.

        If its header or footer is damaged, `states` has the reason. The same pass keeps which chunks it needs of the
        unencrypted packs of this part.
        """
        if self._expected.backup_id in states.damaged:
            return None
        return self._read_sections() and self._read_sections()

    def _read_sections(self) -> IntegrityError | None:
        try:
            manifest = self._open_chosen()
            recorded = RecordedChunks(manifest.packs, self._packs, self._unsealed_packs())

            def keep(chunks: Sequence[Chunk]) -> None:
                recorded.add(chunks)
                self._report()

            check_sections(manifest, keep)
        except ObjectNotFound as error:
            raise manifest_is_gone(self._expected) from error
        except IntegrityError as error:
            return without_traceback(error)
        self._recorded = recorded
        return None

    def _open_chosen(self) -> ManifestReader:
        key = manifest_key(self._prefix, self._expected.volume_id, self._expected.backup_id)
        return ManifestReader(partial(self._store.get, key), self._keys, self._expected, key)

    def _add_broken(self, damage: Damage, error: IntegrityError) -> None:
        """Add the chosen manifest, unless it was replaced or removed while packs were read."""
        with suppress(NotFound):
            if self._read_sections() is None:
                return
            add_manifest(damage, self._expected, self._expected.backup_id, error)

    def _unsealed_packs(self) -> PackMarks:
        """Return the unencrypted packs of this part, of which only the chunks that a manifest records are certain."""
        unsealed = PackMarks()
        for pack in self._packs.packs_of_part(self._share.part, self._share.parts):
            if self._packs.data_key(pack) is None:
                unsealed.add(pack)
        return unsealed

    def _read_packs(self) -> None:
        count = 0
        for pack in self._packs.packs_of_part(self._share.part, self._share.parts):
            count += 1
            self._total += self._packs.size(pack)
        self._total = min(self._total, self._share.max_bytes or self._total)
        self._report()
        for pack, error in map_bounded(self._check, self._within_limits(count), READER_THREADS):
            if isinstance(error, ObjectNotFound):
                self._suspects.add_missing(pack)
            elif error is not None:
                self._suspects.add_damaged(pack, error)
            else:
                self._verified += 1
            self._done += self._packs.size(pack)
            self._report()

    def _within_limits(self, count: int) -> Iterator[PackId]:
        """Yield the packs of the part, from a random one on, until a limit is reached."""
        started = 0
        bytes_started = self._store.counts.bytes_got
        for pack in self._order(count):
            if self._suspects.marks.has(pack):
                continue
            if started and self._is_over(bytes_started):
                self._complete = False
                return
            started += 1
            bytes_started += self._packs.size(pack)
            yield pack

    def _order(self, count: int) -> Iterator[PackId]:
        part, parts = self._share.part, self._share.parts
        begin = self._choose(count) if count else 0
        return chain(
            islice(self._packs.packs_of_part(part, parts), begin, None),
            islice(self._packs.packs_of_part(part, parts), begin),
        )

    def _is_over(self, bytes_started: int) -> bool:
        most_bytes, most_seconds = self._share.max_bytes, self._share.max_seconds
        return (most_bytes is not None and bytes_started >= most_bytes) or (
            most_seconds is not None and self._clock() - self._began >= most_seconds
        )

    def _check(self, pack: PackId) -> PermanentError | None:
        """Check a pack. Return what is wrong; None: it is sound. A damaged one is read twice, to exclude the network.

        Raises what the store raises.
        """
        sealer, size, recorded = self._sealer(pack), self._packs.size(pack), self._recorded_of(pack)
        first: PermanentError | None = None
        for _ in range(2):
            try:
                self._checker.check(sealer, size, recorded)
            except (IntegrityError, ObjectNotFound, UnsupportedFormat) as error:
                first = first or without_traceback(error)
                if isinstance(error, ObjectNotFound):
                    return without_traceback(error)
            else:
                if first is not None:
                    log.warning("A pack was read wrongly once, and is sound: %s", first.message)
                return None
        return first

    def _recorded_of(self, pack: PackId) -> frozenset[int]:
        return self._recorded.of(pack) if self._recorded is not None else frozenset()

    def _sealer(self, pack: PackId) -> Sealer:
        backup_id = self._packs.origin(pack).backup_id
        key = self._packs.key(pack)
        return pack_sealer(self._packs.data_key(pack), self._expected.volume_id, backup_id, self._packs.name(pack), key)

    def _report(self) -> None:
        """Report progress. While manifests are read, only the bytes from the store grow."""
        self._on_progress(Progress(self._done, max(self._done, self._total), self._store.counts.bytes_got))
