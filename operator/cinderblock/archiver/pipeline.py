"""Units of work go to several threads, results come back in order and become extents, packs and sections.

Cells of large files are read by the workers; small files are read here, and hashed and encoded by the workers.

Order is kept so that packs hold what lies together in the volume, and so that two runs over the same volume cut and
store it in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from cinderblock.archiver.chunk_worker import READ_ATTEMPTS, BlockResult, ChunkWorker, PlacedExtent, UnitResult
from cinderblock.archiver.hidden_changes import has_same_stamps
from cinderblock.archiver.parent import ParentEntry
from cinderblock.archiver.planner import LargeFile, SmallFiles, Unit
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

WORKERS = 4
"""Threads that read, hash and compress. They run in C most of the time; more did not help on 4 cores."""
LOOKAHEAD_BYTES = 16 << 20
"""Plaintext that is being read or waits for its turn."""


def lookahead(chunk_bytes: int) -> int:
    """Units that are being read or wait for their turn at once; each has a buffer of one chunk."""
    return max(WORKERS + 2, LOOKAHEAD_BYTES // chunk_bytes)


@dataclass(slots=True)
class _OpenFile:
    """A large file between its first and its last cell.

    Attributes:
        parts: how many parts are in the manifest already: from then on it cannot be begun anew.
        is_torn: it became shorter while it was read.
        hides_changes: whether content that differs from the parent's is a change that stamps hide.
        is_other: whether the content differs from the parent's; only known if ``hides_changes``.
        is_unreadable: it is left out and already counted.
        mark: the state of the manifest before the first part of the file.
    """

    entry: Entry
    content: SourceContent
    extents: list[Extent] = field(default_factory=list)
    parts: int = 0
    is_torn: bool = False
    hides_changes: bool = False
    is_other: bool = False
    is_unreadable: bool = False
    mark: Savepoint | None = None


class _Pending(NamedTuple):
    """A unit whose turn has not come."""

    future: Future[Any] | None
    take: Callable[[Any], None]
    buffer: bytearray | None

    @property
    def is_ready(self) -> bool:
        """Whether taking it would not wait."""
        return self.future is None or self.future.done()


class BackupPipeline:
    """One pass over a volume. What workers do not do happens in the thread that calls `run`.

    Args:
        source: the volume.
        reader: what workers do.
        uploader: where new chunks go.
        known: what is stored already; new chunks are added.
        writer: where entries go.
        chunk_bytes: largest chunk.
        on_bytes: told how many bytes of the volume are dealt with.

    Attributes:
        vanished: paths of files that were gone when they were to be read.
        read_again: how many files changed while they were read and were read once more.
        missed_changes: how many files had changed although their stamps had not.
    """

    def __init__(
        self,
        source: Source,
        *,
        reader: ChunkWorker,
        uploader: PackUploader,
        known: ChunkIndex,
        writer: ManifestWriter,
        chunk_bytes: int,
        on_bytes: Callable[[int], None],
    ) -> None:
        self.vanished: set[bytes] = set()
        self.read_again = 0
        self.missed_changes = 0
        self._source = source
        self._reader = reader
        self._uploader = uploader
        self._known = known
        self._writer = writer
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self._done = 0
        self._pending: deque[_Pending] = deque()
        self._open: list[SourceContent] = []
        self._free = [bytearray(chunk_bytes) for _ in range(lookahead(chunk_bytes))]
        self._pool = ThreadPoolExecutor(WORKERS, "read")

    @property
    def bytes_done(self) -> int:
        """Bytes of the volume that are dealt with."""
        return self._done

    def run(self, units: Iterable[Unit]) -> None:
        """Read and store everything. Raises SourceError, SourceChanging, and what the store raises."""
        for unit in units:
            if isinstance(unit, SectionRun):
                self._enqueue(_Pending(None, partial(self._on_unread_done, [unit]), None))
            elif isinstance(unit, LargeFile):
                self._start_large(unit)
            else:
                self._start_small(unit)
        while self._pending:
            self._finish_oldest()
        self._source.finish()

    def close(self) -> None:
        """Start nothing more, wait for what runs, and close files that a failure left open."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for content in self._open:
            content.close()

    def _start_small(self, unit: SmallFiles) -> None:
        if not unit.files:
            items = [request if isinstance(request, SectionRun) else request.entry for request in unit.requests]
            self._enqueue(_Pending(None, partial(self._on_unread_done, items), None))
            return
        buffer = self._buffer()
        gathered = self._reader.gather(self._source, unit.requests, buffer)
        future = self._pool.submit(self._reader.complete, gathered)
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
            self._source.gaps.omit(error, unit.entry.path)
            return
        self._open.append(content)
        hides_changes = unit.hides_changes and has_same_stamps(entry, unit.entry)
        file = _OpenFile(entry, content, hides_changes=hides_changes)
        read = partial(self._reader.read_block, content, entry.path, compares=hides_changes)
        try:
            for runs in split_on_grid(content.data_ranges(), self._chunk_bytes):
                buffer = self._buffer()
                hints = self._hints(unit.before, runs[0].offset)
                future = self._pool.submit(read, runs, buffer, hints)
                end = runs[-1].offset + runs[-1].length
                self._enqueue(_Pending(future, partial(self._on_block_done, file, end), buffer))
                if file.is_unreadable:
                    break
        except SourceError as error:
            self._leave_out(file, error)
        if hides_changes and unit.before is not None:
            # No cell was read where the parent has data and the file now has a hole.
            file.is_other |= unit.before.has_more()
        self._enqueue(_Pending(None, lambda _: self._on_large_done(file), None))

    def _enqueue(self, pending: _Pending) -> None:
        """Let a unit wait for its turn, which may be now. Units that need no reading have no buffer to limit them."""
        self._pending.append(pending)
        while self._pending and (self._pending[0].is_ready or len(self._pending) > 2 * lookahead(self._chunk_bytes)):
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        pending = self._pending.popleft()
        pending.take(pending.future)
        if pending.buffer is not None:
            self._free.append(pending.buffer)

    def _buffer(self) -> bytearray:
        """A free buffer; results are taken until there is one."""
        while not self._free:
            self._finish_oldest()
        return self._free.pop()

    def _hints(self, before: ParentEntry | None, offset: int) -> tuple[Extent, ...]:
        """What the parent has in the cell of the grid that holds ``offset``."""
        if before is None:
            return ()
        start = offset - offset % self._chunk_bytes
        return before.extents_from(start, start + self._chunk_bytes)

    def _on_unread_done(self, items: Iterable[Entry | SectionRun], _: None) -> None:
        """What needed no reading."""
        for item in items:
            if isinstance(item, SectionRun):
                self._on_reused(item)
            else:
                self._emit(item)
                self._done += item.size
        self._on_bytes(self._done)

    def _on_reused(self, run: SectionRun) -> None:
        """What the parent has as it is."""
        if self.vanished or self._source.gaps.links_to(run.link_targets()):
            # One of its links may be to a file that could not be read: each has to be looked at.
            for entry in run.entries():
                self._emit(entry)
        else:
            self._writer.reuse(run)
        self._done += run.size

    def _on_small_done(self, future: Future[UnitResult]) -> None:
        """A unit of small files."""
        result = future.result()
        chunks = [self._store(piece) for piece in result.pieces]
        for file in result.files:
            if isinstance(file, SectionRun):
                self._on_reused(file)
                continue
            self.read_again += file.read_again
            self.missed_changes += file.was_hidden
            if file.has_vanished:
                self.vanished.add(file.entry.path)
                continue
            if file.is_unreadable:
                continue
            entry = file.entry
            if file.runs:
                entry = entry._replace(extents=_extents(file.runs, chunks[file.piece]))
            self._emit(entry)
            self._done += entry.size
        self._on_bytes(self._done)

    def _on_block_done(self, file: _OpenFile, end: int, future: Future[BlockResult]) -> None:
        """One cell of a large file."""
        try:
            result = future.result()
        except SourceChanging:
            file.is_torn = True
        except SourceError as error:
            self._leave_out(file, error)
        if not file.is_torn and not file.is_unreadable:
            file.is_other |= result.is_other
            self._add_cell(file, result)
        self._on_bytes(self._done + end)

    def _add_cell(self, file: _OpenFile, result: BlockResult) -> None:
        if result.piece is None:
            return
        file.extents += _extents(result.runs, self._store(result.piece))
        if len(file.extents) >= EXTENTS_PER_PART:
            file.mark = file.mark or self._writer.savepoint()
            self._writer.add(file.entry._replace(extents=tuple(file.extents)))
            file.extents = []
            file.parts += 1

    def _on_large_done(self, file: _OpenFile) -> None:
        """The end of a large file: it goes into the manifest if it has not changed while it was read."""
        try:
            is_as_it_was = not file.is_torn and file.content.is_settled and not file.content.has_changed()
        except SourceError as error:
            self._leave_out(file, error)
            is_as_it_was = False
        finally:
            file.content.close()
            self._open.remove(file.content)
        self.missed_changes += file.is_other and is_as_it_was and not file.is_unreadable
        if not is_as_it_was and not file.is_unreadable:
            self._read_again(file)
        elif not file.is_unreadable and (file.extents or not file.parts):
            self._writer.add(file.entry._replace(extents=tuple(file.extents)))
        self._done += file.entry.size
        self._on_bytes(self._done)

    def _leave_out(self, file: _OpenFile, error: SourceError) -> None:
        """Leave out a large file that cannot be read to its end, and remove its parts from the manifest.

        Raises ``error`` if it may not be left out. Its chunks that are already stored stay in their packs.
        """
        if file.is_unreadable:
            return
        self._source.gaps.omit(error, file.entry.path)
        file.is_unreadable = True
        if file.mark is not None:
            self._writer.roll_back(file.mark)

    def _read_again(self, file: _OpenFile) -> None:
        """Read a large file that changed once more, here and now. What was stored of it in vain stays in its packs."""
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
            self.read_again += 1
            again = _OpenFile(entry, content)
            try:
                for runs in split_on_grid(content.data_ranges(), self._chunk_bytes):
                    self._add_cell(again, self._reader.read_block(content, entry.path, runs, buffer, ()))
                if content.is_settled and not content.has_changed():
                    self._writer.add(entry._replace(extents=tuple(again.extents)))
                    return
            except SourceChanging:
                continue
            except SourceError as error:
                self._leave_out(again, error)
                return
            finally:
                content.close()
            if again.parts:
                break
        raise SourceChanging(f"{format_path(file.entry.path)} changes faster than it can be read: back up a snapshot")

    def _store(self, piece: EncodedChunk) -> Chunk:
        """Where a chunk is, after storing it if it is not stored yet."""
        chunk = piece.known or self._known.find(piece.digest)
        if chunk is None:
            chunk = self._uploader.add(piece)
            self._known.add(chunk)
        return chunk

    def _emit(self, entry: Entry) -> None:
        if entry.kind is EntryKind.HARDLINK and entry.target in self.vanished:
            raise SourceChanging(f"{format_path(entry.target)} vanished while it was read: back up a snapshot")
        if entry.kind is EntryKind.HARDLINK and entry.target in self._source.gaps:
            self._source.gaps.omit_link(entry.path)
            return
        self._writer.add(entry)


def _extents(runs: Iterable[PlacedExtent], chunk: Chunk) -> tuple[Extent, ...]:
    return tuple([Extent(run.offset, run.length, chunk, run.chunk_offset, run.digest) for run in runs])
