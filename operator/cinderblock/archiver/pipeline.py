"""Distribute units to worker threads, and turn their results into extents, packs and sections, in order.

The workers read, hash and encode blocks of large files. Small files are read here, and hashed and encoded by the
workers.

The order keeps together in packs what is together in the volume. Two runs over the same volume split and store it in
the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from cinderblock.archiver.chunk_worker import READ_ATTEMPTS, BlockResult, ChunkWorker, PlacedExtent, UnitResult
from cinderblock.archiver.hidden_changes import has_same_timestamps
from cinderblock.archiver.parent import ParentEntry
from cinderblock.archiver.planner import LargeFile, RenewedFile, SmallFiles, Unit
from cinderblock.archiver.source import Source
from cinderblock.errors import SourceChanging, SourceError
from cinderblock.format.chunk_index import ChunkIndex
from cinderblock.format.chunker import split_on_grid
from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.format.manifest.reader import SectionRun
from cinderblock.format.manifest.writer import EXTENTS_PER_PART, ManifestWriter, Savepoint
from cinderblock.repository.pack_uploader import EncodedChunk, PackUploader
from cinderblock.volume.content import SourceContent
from cinderblock.volume.errors import VANISHED, format_path

WORKER_THREADS = 4
"""Threads that read, hash and compress. They run in C most of the time; more did not help on 4 cores."""
LOOKAHEAD_BYTES = 16 << 20
"""Plaintext that is read or waits for its turn."""


def lookahead(chunk_bytes: int) -> int:
    """Return how many units are read or wait for their turn at once. Each has a buffer of one chunk."""
    return max(WORKER_THREADS + 2, LOOKAHEAD_BYTES // chunk_bytes)


@dataclass(slots=True)
class _OpenFile:
    """A large file between its first and its last block.

    Attributes:
        parts: how many parts are in the manifest. Once there is one, the file cannot be read again.
        is_torn: whether it became shorter while it was read.
        hides_changes: whether content that differs from the parent's is a change that timestamps hide.
        is_different: whether the content differs from the parent's; only known if ``hides_changes``.
        is_unreadable: whether it is left out; it is already counted.
        renewed_bytes: bytes that equal the parent's and were stored again.
        mark: the state of the manifest before the first part of the file.
    """

    entry: Entry
    content: SourceContent
    extents: list[Extent] = field(default_factory=list)
    parts: int = 0
    is_torn: bool = False
    hides_changes: bool = False
    is_different: bool = False
    is_unreadable: bool = False
    renewed_bytes: int = 0
    mark: Savepoint | None = None


@dataclass(slots=True)
class _Renewal:
    """An unchanged large file, or a part of one, some of whose chunks are stored again.

    Attributes:
        entry: with the extents of the parent.
        content: the open file.
        fresh: new extents, by the offset of those that they replace.
        is_different: whether any content differs from the parent's.
    """

    entry: Entry
    content: SourceContent
    fresh: dict[int, Extent] = field(default_factory=dict)
    is_different: bool = False


class _Pending(NamedTuple):
    """A unit whose turn has not come."""

    future: Future[Any] | None
    on_done: Callable[[Any], None]
    buffer: bytearray | None

    @property
    def is_ready(self) -> bool:
        """Whether its result is there."""
        return self.future is None or self.future.done()


class BackupPipeline:
    """One pass over a volume. The thread that calls `run` does everything except the work of the workers.

    Args:
        source: the volume.
        worker: does the work of the worker threads.
        uploader: stores new chunks.
        known: the stored chunks, to which new ones are added.
        writer: adds entries to the manifest.
        chunk_bytes: largest chunk.
        on_bytes: called with the number of bytes of the volume that are done.
        avoid: numbers of packs of the parent whose chunks are not reused.

    Attributes:
        vanished: paths of files that were gone when they should be read.
        rereads: how many files changed while they were read and were read again.
        missed_changes: how many files had changed although their timestamps had not.
        renewed_bytes: unchanged bytes that were stored again, because their packs are avoided.
        doubtful: how many large files seem to hide changes, and were kept as they were in the parent.
    """

    def __init__(
        self,
        source: Source,
        *,
        worker: ChunkWorker,
        uploader: PackUploader,
        known: ChunkIndex,
        writer: ManifestWriter,
        chunk_bytes: int,
        on_bytes: Callable[[int], None],
        avoid: frozenset[int] = frozenset(),
    ) -> None:
        self.vanished: set[bytes] = set()
        self.rereads = 0
        self.missed_changes = 0
        self.renewed_bytes = 0
        self.doubtful = 0
        self._avoid = avoid
        self._source = source
        self._worker = worker
        self._uploader = uploader
        self._known = known
        self._writer = writer
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self._done = 0
        self._pending: deque[_Pending] = deque()
        self._open: list[SourceContent] = []
        self._free = [bytearray(chunk_bytes) for _ in range(lookahead(chunk_bytes))]
        self._pool = ThreadPoolExecutor(WORKER_THREADS, "read")

    @property
    def bytes_done(self) -> int:
        """Bytes of the volume that are done."""
        return self._done

    def run(self, units: Iterable[Unit]) -> None:
        """Read and store everything. Raises SourceError, SourceChanging, and what the store raises."""
        for unit in units:
            if isinstance(unit, SectionRun):
                self._enqueue(_Pending(None, partial(self._on_unread_done, [unit]), None))
            elif isinstance(unit, LargeFile):
                self._start_large(unit)
            elif isinstance(unit, RenewedFile):
                self._start_renewal(unit.entry)
            else:
                self._start_small(unit)
        while self._pending:
            self._finish_oldest()
        self._source.finish()

    def close(self) -> None:
        """Wait for running workers, start no more, and close files that a failure left open."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for content in self._open:
            content.close()

    def _start_small(self, unit: SmallFiles) -> None:
        if not unit.files:
            items = [request if isinstance(request, SectionRun) else request.entry for request in unit.requests]
            self._enqueue(_Pending(None, partial(self._on_unread_done, items), None))
            return
        buffer = self._buffer()
        gathered = self._worker.gather(self._source, unit.requests, buffer)
        future = self._pool.submit(self._worker.complete, gathered)
        self._enqueue(_Pending(future, self._on_small_done, buffer))

    def _start_large(self, unit: LargeFile) -> None:
        try:
            entry, content = self._source.open(unit.entry)
        except SourceChanging as error:
            if error.reason != VANISHED:
                raise
            self.vanished.add(unit.entry.path)
            return
        except SourceError as error:
            self._source.omissions.omit(error, unit.entry.path)
            return
        self._open.append(content)
        hides_changes = unit.hides_changes and has_same_timestamps(entry, unit.entry)
        file = _OpenFile(entry, content, hides_changes=hides_changes)
        read = partial(self._worker.read_block, content, entry.path, compares=hides_changes)
        try:
            for runs in split_on_grid(content.data_ranges(), self._chunk_bytes):
                buffer = self._buffer()
                hints = self._hints_for(unit.before, runs[0].offset)
                future = self._pool.submit(read, runs, buffer, hints)
                end = runs[-1].offset + runs[-1].length
                self._enqueue(_Pending(future, partial(self._on_block_done, file, end), buffer))
                if file.is_unreadable:
                    break
        except SourceError as error:
            self._leave_out(file, error)
        if hides_changes and unit.before is not None:
            # No block was read where the parent has data and the file now has a hole.
            file.is_different |= unit.before.has_more()
        self._enqueue(_Pending(None, lambda _: self._on_large_done(file), None))

    def _start_renewal(self, entry: Entry) -> None:
        """Read the chunks of an unchanged file that lie in packs to avoid. It keeps its chunks if it cannot be read."""
        try:
            content = self._source.open(entry._replace(extents=())).content
        except (SourceChanging, SourceError):
            self._enqueue(_Pending(None, partial(self._on_unread_done, [entry]), None))
            return
        self._open.append(content)
        renewal = _Renewal(entry, content)
        old = [extent for extent in entry.extents if extent.chunk.pack in self._avoid]
        for _, block in groupby(old, lambda extent: extent.offset // self._chunk_bytes):
            extents, buffer = list(block), self._buffer()
            future = self._pool.submit(self._worker.read_again, content, extents, buffer)
            self._enqueue(_Pending(future, partial(self._on_block_renewed, renewal), buffer))
        self._enqueue(_Pending(None, lambda _: self._on_renewed(renewal), None))

    def _enqueue(self, pending: _Pending) -> None:
        """Queue a unit, and finish those whose turn has come. Only units that must be read are limited by buffers."""
        self._pending.append(pending)
        while self._pending and (self._pending[0].is_ready or len(self._pending) > 2 * lookahead(self._chunk_bytes)):
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        pending = self._pending.popleft()
        pending.on_done(pending.future)
        if pending.buffer is not None:
            self._free.append(pending.buffer)

    def _buffer(self) -> bytearray:
        """Return a free buffer. Finish units until there is one."""
        while not self._free:
            self._finish_oldest()
        return self._free.pop()

    def _hints_for(self, before: ParentEntry | None, offset: int) -> tuple[Extent, ...]:
        """Return the extents of the parent in the block that holds ``offset``."""
        if before is None:
            return ()
        start = offset - offset % self._chunk_bytes
        return before.extents_from(start, start + self._chunk_bytes)

    def _on_unread_done(self, items: Iterable[Entry | SectionRun], _: None) -> None:
        """Add what needed no reading."""
        for item in items:
            if isinstance(item, SectionRun):
                self._on_reused(item)
            else:
                self._emit(item)
                self._done += item.size
        self._on_bytes(self._done)

    def _on_reused(self, run: SectionRun) -> None:
        """Add entries that are unchanged since the parent."""
        if self.vanished or self._source.omissions.links_to(run.link_targets()):
            # A link may lead to a file that could not be read, so check each entry.
            for entry in run.entries():
                self._emit(entry)
        else:
            self._writer.reuse(run)
        self._done += run.size

    def _on_small_done(self, future: Future[UnitResult]) -> None:
        """Add a unit of small files."""
        result = future.result()
        chunks = [self._store(chunk) for chunk in result.chunks]
        for file in result.files:
            if isinstance(file, SectionRun):
                self._on_reused(file)
                continue
            self.rereads += file.rereads
            self.missed_changes += file.hid_change
            if file.has_vanished:
                self.vanished.add(file.entry.path)
                continue
            if file.is_unreadable:
                continue
            entry = file.entry
            if file.extents:
                chunk = chunks[file.chunk]
                entry = entry._replace(extents=_extents(file.extents, chunk))
                if file.is_renewed:
                    self.renewed_bytes += self._own_bytes(file.extents, chunk)
            self._emit(entry)
            self._done += entry.size
        self._on_bytes(self._done)

    def _on_block_done(self, file: _OpenFile, end: int, future: Future[BlockResult]) -> None:
        """Add one block of a large file."""
        try:
            result = future.result()
        except SourceChanging:
            file.is_torn = True
        except SourceError as error:
            self._leave_out(file, error)
        if not file.is_torn and not file.is_unreadable:
            file.is_different |= result.is_different
            self._add_block(file, result)
        self._on_bytes(self._done + end)

    def _add_block(self, file: _OpenFile, result: BlockResult) -> None:
        if result.chunk is None:
            return
        chunk = self._store(result.chunk)
        file.extents += _extents(result.extents, chunk)
        if result.is_renewed:
            file.renewed_bytes += self._own_bytes(result.extents, chunk)
        if len(file.extents) >= EXTENTS_PER_PART:
            file.mark = file.mark or self._writer.savepoint()
            self._writer.add(file.entry._replace(extents=tuple(file.extents)))
            file.extents = []
            file.parts += 1

    def _on_large_done(self, file: _OpenFile) -> None:
        """End a large file: add it to the manifest if it has not changed while it was read."""
        try:
            is_unchanged = not file.is_torn and file.content.is_settled and not file.content.has_changed()
        except SourceError as error:
            self._leave_out(file, error)
            is_unchanged = False
        finally:
            file.content.close()
            self._open.remove(file.content)
        self.missed_changes += file.is_different and is_unchanged and not file.is_unreadable
        self.renewed_bytes += file.renewed_bytes if is_unchanged and not file.is_unreadable else 0
        if not is_unchanged and not file.is_unreadable:
            self._reread(file)
        elif not file.is_unreadable and (file.extents or not file.parts):
            self._writer.add(file.entry._replace(extents=tuple(file.extents)))
        self._done += file.entry.size
        self._on_bytes(self._done)

    def _on_block_renewed(self, renewal: _Renewal, future: Future[BlockResult]) -> None:
        """Keep the new place of one block. Equal digests prove that the content is the parent's."""
        try:
            result = future.result()
        except (SourceChanging, SourceError):
            return
        if result.chunk is None:
            renewal.is_different = True
            return
        chunk = self._store(result.chunk)
        renewal.fresh.update({extent.offset: extent for extent in _extents(result.extents, chunk)})
        self.renewed_bytes += self._own_bytes(result.extents, chunk)

    def _on_renewed(self, renewal: _Renewal) -> None:
        """Add the file with its new extents. Blocks that could not be renewed stay where they are."""
        entry, content = renewal.entry, renewal.content
        try:
            self.doubtful += renewal.is_different and content.is_settled and not content.has_changed()
        except SourceError:
            self.doubtful += 1
        finally:
            content.close()
            self._open.remove(content)
        self._on_unread_done(
            [entry._replace(extents=tuple([renewal.fresh.get(extent.offset, extent) for extent in entry.extents]))],
            None,
        )

    def _own_bytes(self, runs: Iterable[PlacedExtent], chunk: Chunk) -> int:
        """Return the bytes of some ranges if their chunk lies in a pack of this backup itself."""
        return sum([run.length for run in runs]) if self._writer.is_own(chunk.pack) else 0

    def _leave_out(self, file: _OpenFile, error: SourceError) -> None:
        """Leave out a large file that cannot be read to its end, and remove its parts from the manifest.

        Raises ``error`` if it may not be left out. Its chunks that are already stored stay in their packs.
        """
        if file.is_unreadable:
            return
        self._source.omissions.omit(error, file.entry.path)
        file.is_unreadable = True
        if file.mark is not None:
            self._writer.roll_back(file.mark)

    def _reread(self, file: _OpenFile) -> None:
        """Read a changed large file again, in this thread. Chunks that are no longer needed stay in their packs."""
        buffer = bytearray(self._chunk_bytes)
        for _ in range(READ_ATTEMPTS - 1 if not file.parts else 0):
            try:
                entry, content = self._source.open(file.entry)
            except SourceChanging as error:
                if error.reason != VANISHED:
                    raise
                self.vanished.add(file.entry.path)
                return
            except SourceError as error:
                self._leave_out(file, error)
                return
            self.rereads += 1
            new_file = _OpenFile(entry, content)
            try:
                for runs in split_on_grid(content.data_ranges(), self._chunk_bytes):
                    self._add_block(new_file, self._worker.read_block(content, entry.path, runs, buffer, ()))
                if content.is_settled and not content.has_changed():
                    self._writer.add(entry._replace(extents=tuple(new_file.extents)))
                    return
            except SourceChanging:
                continue
            except SourceError as error:
                self._leave_out(new_file, error)
                return
            finally:
                content.close()
            if new_file.parts:
                break
        raise SourceChanging(
            f"Cannot read {format_path(file.entry.path)}: it changes faster than it can be read. Back up a snapshot."
        )

    def _store(self, encoded: EncodedChunk) -> Chunk:
        """Return the place of a chunk in the store. Store it if it is new."""
        chunk = encoded.known or self._known.find(encoded.digest)
        if chunk is None:
            chunk = self._uploader.add(encoded)
            self._known.add(chunk)
        return chunk

    def _emit(self, entry: Entry) -> None:
        if entry.kind is EntryKind.HARDLINK and entry.target in self.vanished:
            raise SourceChanging(
                f"Cannot read {format_path(entry.target)}: it vanished while it was read. Back up a snapshot."
            )
        if entry.kind is EntryKind.HARDLINK and entry.target in self._source.omissions:
            self._source.omissions.omit_link(entry.path)
            return
        self._writer.add(entry)


def _extents(runs: Iterable[PlacedExtent], chunk: Chunk) -> tuple[Extent, ...]:
    return tuple([Extent(run.offset, run.length, chunk, run.chunk_offset, run.digest) for run in runs])
