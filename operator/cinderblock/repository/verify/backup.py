"""Verify one backup: read the chunks that its manifest lists, as a restore does, and end at the first damage."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from zlib import crc32

from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, InvalidInput, ObjectNotFound
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import Sealer, Suite
from cinderblock.format.entries import Chunk, Entry, Extent
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import PackTable, read_pack
from cinderblock.repository.chunk_reader import RANGE_BYTES, ChunkReader, missing
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.store.base import ObjectStore

WORKER_THREADS = 4
"""Threads that fetch and verify."""
_WAITING_BATCHES = 2
"""Batches that wait for a thread."""
_BATCH_EXTENTS = 4096
"""Extents in a batch."""

_Batch = dict[Chunk, list[Extent]]


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a successful verification.

    Attributes:
        packs: packs whose index was read.
        chunks: chunks that were read, each counted as often as it was read.
        bytes_fetched: bytes that were read from the store, without indexes and the manifest.
        entries: names in the manifest.
        content_digest: of the manifest, in hexadecimal.
    """

    packs: int
    chunks: int
    bytes_fetched: int
    entries: int
    content_digest: str


def run_verify(
    store: ObjectStore,
    prefix: str,
    manifest: str,
    expected: ExpectedBackup,
    keys: Keys | None = None,
    *,
    sample_percent: float = 100.0,
    on_progress: ProgressCallback = ignore_progress,
) -> Verification:
    """Read a backup back and check every tag and every hash.

    Args:
        store, prefix: where the backup is.
        manifest: key of its manifest.
        expected: which backup it must be.
        keys: the key ring of the store; None if it has no encryption Secret.
        sample_percent: share of the chunks and packs that are read, chosen at random; more than 0, at most 100. The
            manifest is always read completely.
        on_progress: called often, from this thread.

    Raises:
        IntegrityError: an object is damaged, missing, or not the expected manifest; the message names it.
        NotFound: there is no such manifest.
        InvalidInput: the sample is impossible.
        KeyUnavailable, UnsupportedFormat: the manifest cannot be read.
        CinderblockError: the store failed.
    """
    if not 0 < sample_percent <= 100:
        raise InvalidInput(
            f"Cannot verify a sample of {sample_percent} %: the share is impossible. Give more than 0 and at most 100."
        )
    reader = ManifestReader(partial(store.get, manifest), keys, expected, manifest)
    sample = _Sample(sample_percent)
    run = _VerificationRun(ChunkReader(store, prefix, reader), reader, on_progress)
    with ThreadPoolExecutor(WORKER_THREADS, "verify") as pool:
        packs = list(
            pool.map(partial(_check_pack, store, run.chunk_reader, reader.packs), sample.packs(len(reader.packs)))
        )
        chunks = run.check_chunks(pool, _batches(reader.entries(), sample))
    summary = reader.summary
    return Verification(
        len(packs), chunks, run.chunk_reader.bytes_fetched, summary.entries, summary.pins.content_digest
    )


class _VerificationRun:
    """Batches that the worker threads check."""

    def __init__(self, chunk_reader: ChunkReader, reader: ManifestReader, on_progress: ProgressCallback) -> None:
        self.chunk_reader = chunk_reader
        self._total = reader.summary.logical_bytes
        self._on_progress = on_progress
        self._running: deque[tuple[Future[int], int]] = deque()
        self._done = 0

    def check_chunks(self, pool: ThreadPoolExecutor, batches: Iterator[_Batch]) -> int:
        """Check batches. Return how many chunks were read."""
        chunks = 0
        try:
            for batch in batches:
                size = sum(extent.length for extents in batch.values() for extent in extents)
                self._running.append((pool.submit(_check_batch, self.chunk_reader, batch), size))
                if len(self._running) >= WORKER_THREADS + _WAITING_BATCHES:
                    chunks += self._wait_for_oldest()
            while self._running:
                chunks += self._wait_for_oldest()
        finally:
            for future, _ in self._running:
                future.cancel()
        return chunks

    def _wait_for_oldest(self) -> int:
        future, size = self._running.popleft()
        chunks = future.result()
        self._done += size
        self._on_progress(Progress(self._done, self._total, self.chunk_reader.bytes_fetched))
        return chunks


class _Sample:
    """Choose a share of chunks and packs, another one in each run."""

    def __init__(self, percent: float) -> None:
        self._limit = int(percent / 100 * (1 << 32))
        self._seed = int.from_bytes(os.urandom(4), "little")

    def holds(self, name: bytes) -> bool:
        """Return whether the chunk or pack of this name is chosen."""
        return crc32(name, self._seed) < self._limit

    def packs(self, count: int) -> list[int]:
        """Return the numbers of the chosen packs."""
        return [pack for pack in range(count) if self.holds(pack.to_bytes(4, "little"))]


def _batches(entries: Iterator[Entry], sample: _Sample) -> Iterator[_Batch]:
    """Return batches of chunks for about one ranged read, with the extents that point into them.

    A chunk is read once, unless files that share it are so far apart that they are in several batches.
    """
    checked: defaultdict[int, int] = defaultdict(int)
    batch: _Batch = {}
    size = count = 0
    for entry in entries:
        for extent in entry.extents:
            chunk = extent.chunk
            if not sample.holds(chunk.digest) or _is_checked(extent, checked):
                continue
            if chunk not in batch and (size >= RANGE_BYTES or count >= _BATCH_EXTENTS):
                yield batch
                batch, size, count = {}, 0, 0
            if chunk not in batch:
                batch[chunk] = []
                size += chunk.stored
                checked[chunk.pack] |= 1 << chunk.number
            batch[chunk].append(extent)
            count += 1
    if batch:
        yield batch


def _is_checked(extent: Extent, checked: dict[int, int]) -> bool:
    """Return whether an extent is a whole chunk that is already in a batch, so nothing remains to check."""
    chunk = extent.chunk
    return extent.length == chunk.size and bool(checked[chunk.pack] >> chunk.number & 1)


def _check_batch(chunk_reader: ChunkReader, batch: _Batch) -> int:
    for chunk, plaintext in chunk_reader.fetch(batch):
        view = memoryview(plaintext)
        for extent in batch[chunk]:
            run = view[extent.chunk_offset : extent.chunk_offset + extent.length]
            if extent.length != chunk.size and digest_of(run) != extent.digest:
                raise IntegrityError(
                    f"{chunk_reader.pack_key(chunk.pack)}: a run of chunk {chunk.number} is not as recorded"
                )
    return len(batch)


def _check_pack(store: ObjectStore, chunk_reader: ChunkReader, packs: PackTable, pack: int) -> None:
    """Check the index at the end of a pack, and the size of the pack, with two requests."""
    sealer = chunk_reader.sealer(pack)

    def sealer_for(suite: Suite) -> Sealer:
        if suite is not sealer.suite:
            raise IntegrityError(f"Cannot verify {sealer.label}: it is not sealed as the manifest says.")
        return sealer

    try:
        read_pack(partial(store.get, sealer.label), pack, sealer_for, sealer.label)
        end = store.get(sealer.label, packs.size(pack) - 1, 2)
    except ObjectNotFound as error:
        raise missing(sealer.label) from error
    if len(end) != 1:
        raise IntegrityError(
            f"Cannot verify {sealer.label}: it does not have the {packs.size(pack)} bytes that were written."
        )
