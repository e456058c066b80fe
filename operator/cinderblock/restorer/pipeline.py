"""Fetch, verify and write the files of a restore in batches, with several threads.

A batch of large files is the work of one of WORKER_THREADS threads from beginning to end. For a batch of small files,
these threads only fetch and verify. The thread that creates names compares and writes, or other processes create new
files. Threads that make short system calls at the same time mostly wait for the interpreter's lock: 100,000 files in
place took 8.0 s with four threads, and 2.4 s with one.

Memory. At most WORKER_THREADS ranged reads with some chunks each are in flight, and the plaintexts of SLOTS batches of
small files in shared memory: `bytes_in_flight`, 126 MiB with chunks of 1 MiB. Each batch in flight has at most
`file_limit` open files.
"""

from __future__ import annotations

import resource
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from cinderblock.format.chunker import SOLID_FILES
from cinderblock.format.entries import Entry, Extent
from cinderblock.repository.chunk_reader import RANGE_BYTES, ChunkReader
from cinderblock.restorer.batch import FileBatch, RestoringFile
from cinderblock.restorer.batch_writer import BatchWriter
from cinderblock.restorer.target import Target
from cinderblock.volume.kernel.direct_io import PARALLEL_WRITES, PIECE_BYTES
from cinderblock.volume.workers.create_pool import SharedMemory

WORKER_THREADS = 4
"""Threads that fetch, verify and write."""
WAITING_BATCHES = 2
"""Batches that wait for a worker."""
SLOTS = WORKER_THREADS + WAITING_BATCHES + 1
"""Batches of small files whose plaintext is in memory, including those that other processes write."""
SLOT_BYTES = 10 << 20
"""Plaintext of a batch of small files in memory. If a batch needs more, because its files come from many backups, its
worker writes it chunk by chunk."""


def bytes_in_flight(chunk_bytes: int) -> int:
    """Return the most bytes of ranged reads, plaintexts and buffers that a restore holds at once."""
    return WORKER_THREADS * (RANGE_BYTES + 4 * chunk_bytes) + SLOTS * SLOT_BYTES + PARALLEL_WRITES * PIECE_BYTES


def file_limit() -> int:
    """Return the files of one batch, so that batches in flight use at most half of the process's descriptors.

    This raises the soft limit to the hard one: the usual soft limit is 1024, because of ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return max(1, min(SOLID_FILES, descriptors // (4 * (WORKER_THREADS + WAITING_BATCHES + 1))))


class RestorePipeline:
    """Restore a stream of entries into a target."""

    def __init__(self, target: Target, reader: ChunkReader, chunk_bytes: int, on_bytes: Callable[[int], None]) -> None:
        self._target = target
        self._reader = reader
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self._file_limit = file_limit()
        self._local = threading.local()
        self._memory = SharedMemory(SLOTS, SLOT_BYTES)
        self._batch_writer = BatchWriter(target, self._memory)
        self._pool = ThreadPoolExecutor(WORKER_THREADS, "restore")
        self._running: deque[tuple[Future[None], FileBatch]] = deque()
        self._batch = FileBatch()
        self._current: RestoringFile | None = None
        self._open: set[RestoringFile] = set()
        self._done = 0

    def put(self, entry: Entry) -> None:
        """Add the next entry, or the next part of the last one. Raises what a worker has raised."""
        if self._current is None or self._current.entry.path != entry.path:
            self._end_file()
            content = self._target.put(entry)
            self._attach_deferred()
            if content is None:
                return
            self._current = RestoringFile(entry, content)
            self._open.add(self._current)
        for extent in entry.extents:
            self._close_batch_before(extent)
            self._batch.add_extent(self._current, extent)

    def finish(self) -> None:
        """End the stream, and wait until everything is written. Raises what a worker has raised."""
        self._end_file()
        self._start_batch()
        while self._running:
            self._wait_for_oldest()
        while self._batch_writer.waiting:
            self._count(self._batch_writer.finish_oldest())

    def close(self) -> None:
        """Wait for running workers, start no more, and close files that a failure left open."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batch_writer.close()
        for file in self._open:
            file.content.close()
        self._memory.close()

    def _attach_deferred(self) -> None:
        """Attach actions that wait for earlier files to the batch that holds the last of these files."""
        deferred = self._target.deferred
        if deferred:
            self._batch.deferred += deferred
            deferred.clear()
            self._close_batch_before(None)

    def _end_file(self) -> None:
        if self._current is None:
            return
        self._batch.add_end(self._current)
        self._current.release()
        if self._current.is_finished:
            self._open.discard(self._current)
        self._current = None
        self._close_batch_before(None)

    def _close_batch_before(self, extent: Extent | None) -> None:
        if self._batch.is_complete(extent, self._file_limit):
            self._start_batch()

    def _start_batch(self) -> None:
        while len(self._running) >= WORKER_THREADS + WAITING_BATCHES:
            self._wait_for_oldest()
        batch, self._batch = self._batch, FileBatch()
        self._running.append((self._begin(batch), batch))

    def _begin(self, batch: FileBatch) -> Future[None]:
        if not batch.is_fine_grained:
            batch.open_files()
            return self._pool.submit(self._compare_and_store, batch)
        batch.compare(self._buffer())
        if batch.missing_bytes > SLOT_BYTES:
            batch.open_files()
            return self._pool.submit(self._store, batch)
        batch.slot = self._free_slot()
        return self._pool.submit(self._fetch, batch)

    def _free_slot(self) -> int:
        """Return a slot of the shared memory. Finish batches until there is one."""
        while not self._memory.free:
            if self._batch_writer.waiting:
                self._count(self._batch_writer.finish_oldest())
            else:
                self._wait_for_oldest()
        return self._memory.free.pop()

    def _fetch(self, batch: FileBatch) -> None:
        """Fetch the missing chunks of a batch into its slot."""
        assert batch.slot is not None
        start = self._memory.start_of(batch.slot)
        for chunk, plaintext in self._reader.fetch(batch.missing):
            self._memory.view(start, chunk.size)[:] = plaintext
            batch.chunk_starts[chunk] = start
            start += chunk.size

    def _store(self, batch: FileBatch) -> None:
        batch.store(self._reader.fetch(batch.missing))

    def _compare_and_store(self, batch: FileBatch) -> None:
        batch.compare(self._buffer())
        self._store(batch)

    def _buffer(self) -> bytearray:
        """Return this thread's buffer for comparisons."""
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = bytearray(self._chunk_bytes)
        return buffer

    def _wait_for_oldest(self) -> None:
        future, batch = self._running.popleft()
        try:
            future.result()
        finally:
            # The error refers to this frame. Without this, the cycle would keep the memory until the next collection.
            del future
        for finished_batch in self._batch_writer.add(batch):
            self._count(finished_batch)

    def _count(self, batch: FileBatch) -> None:
        """Count a finished batch."""
        self._open.difference_update(batch.finished_files())
        self._target.add_written(batch.size)
        self._done += batch.size
        self._on_bytes(self._done)
