"""The restore engine: reads one manifest, fetches chunks, verifies each, and makes a volume equal to the backup.

    entries of the manifest in order -> names are made in order (`targets`) -> windows of files (`windows`)
    -> compare with the target, fetch, verify, write -> finish (`finishing`)

Windows of large files are, from beginning to end, the work of WORKERS threads. Of small files these only fetch and
verify, and the thread that makes the names compares and writes too, or has other processes do it where the files are
new: threads that make short system calls side by side wait for the interpreter's lock more than for anything else
(100,000 files in place: 8.0 s with four, 2.4 s with one).

Nothing is written before the first chunk has been fetched and verified. In place, only what differs is fetched and
written: each run of data is compared by its BLAKE3 with what the target holds. A run that ends without an error has
verified every byte of the result; one that ends with an error leaves a target that is not to be used, and a later run
completes it.

Memory. In flight are at most WORKERS ranged reads with some chunks each, and the plaintexts of SLOTS windows of small
files in shared memory: `bytes_in_flight`, 126 MiB with chunks of 1 MiB. Open at once are at most `file_limit` files for
each of the windows in flight.
"""

from __future__ import annotations

import resource
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial

from cinderblock.api.losses import count_files
from cinderblock.api.mover import MoverReport, MoverTask
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import InvalidInput
from cinderblock.format.chunker import SOLID_FILES
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.entries import Entry, Extent
from cinderblock.format.manifest.reader import ManifestReader, ManifestSummary
from cinderblock.repository.chunk_reader import RANGE_BYTES, ChunkReader
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.restorer.batch import FileBatch, RestoringFile
from cinderblock.restorer.batch_writer import BatchWriter
from cinderblock.restorer.target import Target, open_target
from cinderblock.store.base import ObjectStore
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena
from cinderblock.volume.kernel.direct_io import PARALLEL_WRITES, PIECE_BYTES
from cinderblock.volume.workers.create_pool import SharedMemory

WORKERS = 4
"""Threads that fetch, verify and write."""
WAITING = 2
"""Windows that wait for a worker."""
SLOTS = WORKERS + WAITING + 1
"""Windows of small files whose plaintext is in memory, those among them that other processes are making."""
SLOT_BYTES = 10 << 20
"""Plaintext that a window of small files may hold; one that wants more, since it has files of many backups, is written
by its worker piece by piece."""
_WARNINGS = 8


def bytes_in_flight(chunk_bytes: int) -> int:
    """Bytes of ranged reads, plaintexts and buffers that a restore holds at once at most."""
    return WORKERS * (RANGE_BYTES + 4 * chunk_bytes) + SLOTS * SLOT_BYTES + PARALLEL_WRITES * PIECE_BYTES


def file_limit() -> int:
    """Files of a window: what is in flight may take half of the descriptors that the process may have.

    The soft limit is raised to the hard one first: 1024 is the usual soft limit, for the sake of ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return max(1, min(SOLID_FILES, descriptors // (4 * (WORKERS + WAITING + 1))))


def run_restore(
    task: MoverTask,
    store: ObjectStore,
    keys: KeyRing | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> MoverReport:
    """Restore the backup ``task.manifest`` to the volume at ``task.path``.

    Args:
        task: an operation ``restore``.
        store: where from.
        keys: the store's key ring; None if it has no encryption Secret.
        on_progress: called often, from this thread.

    Returns the report of a success. Raises NotFound if there is no such backup; IntegrityError,
    UnsupportedFormat, KeyUnavailable; InvalidInput for a backup of the other volume mode; TargetError;
    and what the store raises.
    """
    manifest = open_manifest(task, store, keys)
    fetcher = ChunkReader(store, task.store.prefix, manifest)
    verify_first_chunk(manifest, fetcher)
    with open_target(task.volume_mode, task.path, task.fidelity) as target:
        return write_target(target, task, manifest, fetcher, on_progress)


def open_manifest(task: MoverTask, store: ObjectStore, keys: KeyRing | None) -> ManifestReader:
    """Return the manifest of the task, which must belong to the backup that the task expects."""
    manifest = ManifestReader(partial(store.get, task.manifest), keys, _expected(task), task.manifest)
    mode = manifest.summary.description.volume_mode
    if mode is not task.volume_mode:
        raise InvalidInput(f"{task.manifest} is a backup of a volume of mode {mode}: restore to such a volume")
    return manifest


def _expected(task: MoverTask) -> ExpectedBackup:
    """Return which backup the manifest must be. An operator of release 0.1.0 only knows ids and the seal."""
    known = ExpectedBackup(volume_id=task.backup.volume_id, backup_id=task.backup.backup_id, sealed=task.sealed)
    return task.expected or known


def verify_first_chunk(manifest: ManifestReader, fetcher: ChunkReader) -> None:
    """Make sure that the store gives data, the key opens it and it is whole, before anything is overwritten."""
    first = next(manifest.chunks(), None)
    if first is not None:
        for _ in fetcher.fetch([first]):
            pass


def write_target(
    target: Target, task: MoverTask, manifest: ManifestReader, fetcher: ChunkReader, on_progress: ProgressCallback
) -> MoverReport:
    """Make the target equal to the backup; see `run_restore`."""
    summary = manifest.summary

    def report_bytes(done: int) -> None:
        on_progress(Progress(done, summary.logical_bytes, fetcher.bytes_fetched))

    use_single_arena()
    with closing(RestorePipeline(target, fetcher, summary.chunk_bytes, report_bytes)) as filling, relaxed_gc():
        for entry in manifest.entries():
            filling.put(entry)
        filling.finish()
    target.finish()
    return MoverReport(
        succeeded=True,
        manifest=task.manifest,
        object_count=summary.object_count,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=fetcher.bytes_fetched,
        stored_bytes=summary.stored_bytes,
        restored_bytes=summary.logical_bytes,
        losses=target.losses(),
        warnings=[*_missing(summary), *target.warnings()][:_WARNINGS],
    )


def _missing(summary: ManifestSummary) -> list[str]:
    """Return what a person should know about a backup that lacks files that could not be read."""
    if not summary.unreadable_files:
        return []
    named = ", ".join(summary.unreadable_examples)
    return [
        f"the backup lacks {count_files(summary.unreadable_files)} that could not be read when it was made ({named})"
    ]


class RestorePipeline:
    """The stream of entries on its way into the target."""

    def __init__(self, target: Target, fetcher: ChunkReader, chunk_bytes: int, on_bytes: Callable[[int], None]) -> None:
        self._target = target
        self._fetcher = fetcher
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self._file_limit = file_limit()
        self._local = threading.local()
        self._memory = SharedMemory(SLOTS, SLOT_BYTES)
        self._finishing = BatchWriter(target, self._memory)
        self._pool = ThreadPoolExecutor(WORKERS, "restore")
        self._running: deque[tuple[Future[None], FileBatch]] = deque()
        self._window = FileBatch()
        self._current: RestoringFile | None = None
        self._open: set[RestoringFile] = set()
        self._done = 0

    def put(self, entry: Entry) -> None:
        """Take the next entry, or the next part of the last one. Raises what a worker raised before."""
        if self._current is None or self._current.entry.path != entry.path:
            self._end_file()
            content = self._target.put(entry)
            self._run_deferred()
            if content is None:
                return
            self._current = RestoringFile(entry, content)
            self._open.add(self._current)
        for extent in entry.extents:
            self._close_batch_before(extent)
            self._window.add_extent(self._current, extent)

    def finish(self) -> None:
        """The stream has ended: wait until all is written. Raises what a worker raised."""
        self._end_file()
        self._start_batch()
        while self._running:
            self._wait_for_oldest()
        while self._finishing.waiting:
            self._count(self._finishing.finish_oldest())

    def close(self) -> None:
        """Start nothing more, wait for what runs, and close files that a failure left open."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._finishing.close()
        for file in self._open:
            file.content.close()
        self._memory.close()

    def _run_deferred(self) -> None:
        """What waits for the files that were put so far, waits for the window that holds the last of them."""
        late = self._target.deferred
        if late:
            self._window.late += late
            late.clear()
            self._close_batch_before(None)

    def _end_file(self) -> None:
        if self._current is None:
            return
        self._window.add_end(self._current)
        self._current.release()
        if self._current.is_finished:
            self._open.discard(self._current)
        self._current = None
        self._close_batch_before(None)

    def _close_batch_before(self, extent: Extent | None) -> None:
        if self._window.is_complete(extent, self._file_limit):
            self._start_batch()

    def _start_batch(self) -> None:
        while len(self._running) >= WORKERS + WAITING:
            self._wait_for_oldest()
        window, self._window = self._window, FileBatch()
        self._running.append((self._begin(window), window))

    def _begin(self, window: FileBatch) -> Future[None]:
        if not window.is_fine_grained:
            window.open_files()
            return self._pool.submit(self._compare_and_store, window)
        window.compare(self._buffer())
        if window.wanted_bytes > SLOT_BYTES:
            window.open_files()
            return self._pool.submit(self._store, window)
        window.slot = self._free_slot()
        return self._pool.submit(self._fetch, window)

    def _free_slot(self) -> int:
        """A slot of the shared memory; windows are finished until there is one."""
        while not self._memory.free:
            if self._finishing.waiting:
                self._count(self._finishing.finish_oldest())
            else:
                self._wait_for_oldest()
        return self._memory.free.pop()

    def _fetch(self, window: FileBatch) -> None:
        """Fetch what a window wants into its slot."""
        assert window.slot is not None
        start = self._memory.start_of(window.slot)
        for chunk, plaintext in self._fetcher.fetch(window.wanted):
            self._memory.view(start, chunk.size)[:] = plaintext
            window.starts[chunk] = start
            start += chunk.size

    def _store(self, window: FileBatch) -> None:
        window.store(self._fetcher.fetch(window.wanted))

    def _compare_and_store(self, window: FileBatch) -> None:
        window.compare(self._buffer())
        self._store(window)

    def _buffer(self) -> bytearray:
        """This thread's buffer for comparing."""
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = bytearray(self._chunk_bytes)
        return buffer

    def _wait_for_oldest(self) -> None:
        future, window = self._running.popleft()
        try:
            future.result()
        finally:
            # Its error knows this frame: together they would keep all memory until the next look for cycles.
            del future
        for finished in self._finishing.take(window):
            self._count(finished)

    def _count(self, window: FileBatch) -> None:
        """A window is finished."""
        self._open.difference_update(window.finished())
        self._target.add_written(window.size)
        self._done += window.size
        self._on_bytes(self._done)
