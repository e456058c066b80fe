"""Run a backup: read a volume, store the chunks that are new, and commit by writing the manifest.

    walk, compare with the parent (`planner`) -> read, hash, encode in several threads (`chunk_worker`)
    -> in order again (`pipeline`): seal into packs, send (`repository.pack_uploader`), describe
    (`format.manifest.writer`) -> `commit`

Memory. At most ``(UPLOADS + 1)`` packs and ``2 * lookahead`` chunks are in flight: `bytes_in_flight`, 130 MiB with
chunks of 1 MiB. The index of known chunks takes at most 36 MiB. The manifest is one object, with about 60 bytes for
each small file. zstd takes memory in each of the four workers. That is 1.3 MiB at level 1, 4 MiB at level 6 and
19 MiB at level 19.

Requests. One PUT for each pack of 24 MiB, one for the manifest, one for the wrapped key. One LIST for each 1000 packs
of each backup whose packs are in use. To resume, one GET for each existing pack. For an incremental backup, one GET for
each 4 MiB of the parent's manifest, and the same again if anything was read.

Crashes. Only the manifest makes a backup exist. It is written last, when all its packs exist and no others. A later run
for the same backup reuses the packs that it finds (`repository.resume`). If the manifest exists already, the run
reports what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from cinderblock.api.losses import Loss
from cinderblock.api.mover import MoverReport, MoverTask, VolumeMode
from cinderblock.api.pins import Pins
from cinderblock.api.v1alpha1.store import Compression, CompressionAlgorithm
from cinderblock.archiver.chunk_worker import ChunkWorker
from cinderblock.archiver.commit import (
    check_parent,
    commit_manifest,
    read_back,
    read_finished_header,
)
from cinderblock.archiver.locks import lock_of
from cinderblock.archiver.parent import ParentStream
from cinderblock.archiver.parent_manifest import open_parent
from cinderblock.archiver.parent_policy import choose_policy
from cinderblock.archiver.pipeline import BackupPipeline, lookahead
from cinderblock.archiver.planner import plan
from cinderblock.archiver.renewal import NO_DAMAGE, find_damaged, little_used_packs
from cinderblock.archiver.report import change_warnings, make_report, unreadable_record
from cinderblock.archiver.source import Source, SourceOpener, open_source
from cinderblock.errors import KeyUnavailable
from cinderblock.format.chunk_index import ChunkIndex
from cinderblock.format.chunker import chunk_bytes_for
from cinderblock.format.compression import Encoder
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.header import new_header
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import PackTable, buffer_bytes, new_attempt
from cinderblock.repository.pack_uploader import UPLOADS, PackOwner, PackUploader
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.repository.resume import UnfinishedBackup
from cinderblock.store.base import ObjectStore
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena

logger = logging.getLogger(__name__)


def bytes_in_flight(chunk_bytes: int) -> int:
    """Return the most bytes of plaintext, encoded chunks and packs that a backup holds at once."""
    return (UPLOADS + 1) * buffer_bytes(chunk_bytes) + 2 * lookahead(chunk_bytes) * chunk_bytes


def run_backup(
    task: MoverTask,
    store: ObjectStore,
    keys: Keys | None = None,
    on_progress: ProgressCallback = ignore_progress,
    opener: SourceOpener | None = None,
) -> MoverReport:
    """Back up the volume at ``task.path`` to ``task.manifest``.

    Args:
        task: a task with operation ``backup``.
        store: the destination.
        keys: the key ring of the store; None if it has no encryption Secret.
        on_progress: called often, from this thread.
        opener: opens the volume; None: the function that fits the task.

    Returns:
        The report of a success.

    Raises:
        KeyUnavailable: the task says ``sealed`` and there is no key, or the parent's key is missing.
        InvalidInput: the parent is a backup of another volume.
        NotFound: the manifest of the parent is gone, before the backup or at its end.
        Conflict: the key of the manifest is taken by another backup.
        IntegrityError: the parent is damaged, or what an earlier run has committed.
        SourceError, SourceChanging: the volume cannot be read.
        CinderblockError: the store failed.
    """
    if read_finished_header(task, store) is not None:
        check_parent(task, store)
        return make_report(task, read_back(task, store, keys), [])
    if task.sealed and keys is None:
        raise KeyUnavailable(
            "Cannot seal the backup: the mover has no encryption keys. Mount the encryption Secret of the store."
        )
    use_single_arena()
    opener = opener or partial(open_source, unreadable=task.unreadable)
    with relaxed_gc(), opener(task.volume_mode, task.path) as source:
        if task.parent_manifest is not None:
            # A full backup keeps the CPU busy: a process that reads the tree ahead would only slow it down.
            source.begin()
        parent = open_parent(task, store, keys)
        run = _BackupRun(task, store, keys if task.sealed else None, parent)
        warnings = run.store_volume(source, on_progress)
        losses, unreadable = source.losses(), unreadable_record(source.omissions)
    pins = run.commit(unreadable, losses)
    return make_report(task, read_back(task, store, keys, pins), warnings)


class _BackupRun:
    """One run for one backup, from the first pack to the manifest."""

    def __init__(
        self,
        task: MoverTask,
        store: ObjectStore,
        keys: Keys | None,
        parent: ManifestReader | None,
    ) -> None:
        self._task = task
        self._store = store
        self._parent = parent
        volume_id, backup_id, prefix = task.backup.volume_id, task.backup.backup_id, task.store.prefix
        self._packs = PackTable() if parent is None else parent.packs.copy()
        self._avoid, self._damaged = frozenset[int](), NO_DAMAGE
        if parent is not None:
            self._damaged = find_damaged(parent, task.avoid_packs)
            self._avoid = self._damaged.packs | little_used_packs(parent, store, prefix, task.renew_below)
        self._known = ChunkIndex(
            load_initial=None if parent is None else partial(_reusable_chunks, parent, self._avoid)
        )
        unfinished = UnfinishedBackup(store, prefix, volume_id, backup_id)
        data_key = unfinished.data_key(keys) if keys is not None else None
        for chunk in unfinished.chunks(data_key, self._packs):
            self._known.add(chunk)
        self._owner = PackOwner(prefix, volume_id, backup_id, new_attempt(), data_key, lock_of(task))
        parent_id = None if parent is None else parent.header.backup_id
        header = new_header(volume_id, backup_id, parent_id, data_key, keys)
        self._writer = ManifestWriter(header, header.sealer(data_key, task.manifest), self._packs)
        self._chunk_bytes = 0
        comparison = None if parent is None else parent.summary.comparison
        compares_files = parent is not None and task.volume_mode is VolumeMode.FILESYSTEM
        self._policy = choose_policy(task, comparison, is_incremental=compares_files)
        self._proves_content = True
        self._missed_changes = 0
        self._renewed_bytes = 0

    def store_volume(self, source: Source, on_progress: ProgressCallback) -> list[str]:
        """Read the volume and store everything except the manifest. Returns warnings."""
        task, parent, detector = self._task, self._parent, self._policy.detector
        total = source.total_bytes
        own_chunk_bytes = chunk_bytes_for(max(total, task.backup.volume_bytes))
        self._chunk_bytes = own_chunk_bytes if parent is None else parent.summary.chunk_bytes
        stream = None if parent is None else ParentStream(parent.contents(), detector, self._avoid, self._damaged)
        for reason in sorted(self._policy.reasons):
            logger.info("Reading all files and comparing them with those of the parent: %s", reason)
        with ExitStack() as stack:
            uploader = PackUploader(self._store, self._owner, self._packs, self._chunk_bytes)
            stack.callback(uploader.close)

            def report_bytes(done: int) -> None:
                on_progress(Progress(done, max(total, done), uploader.bytes_sent))

            pipeline = BackupPipeline(
                source,
                worker=ChunkWorker(Encoder(_level(task.compression)), self._known, self._avoid),
                uploader=uploader,
                known=self._known,
                writer=self._writer,
                chunk_bytes=self._chunk_bytes,
                on_bytes=report_bytes,
                avoid=self._avoid,
            )
            stack.callback(pipeline.close)
            entries = source.entries(None if self._policy.reads_all else stream, opens_all=self._policy.reads_all)
            pipeline.run(plan(entries, stream or ParentStream(), self._chunk_bytes))
            uploader.finish()
            report_bytes(pipeline.bytes_done)
        self._proves_content = source.is_synced and not pipeline.doubtful
        self._missed_changes, self._renewed_bytes = pipeline.missed_changes, pipeline.renewed_bytes
        if detector is not None and parent is not None and (hint := detector.hint(parent.summary.entries)):
            logger.warning("%s", hint)
        return [*change_warnings(pipeline.rereads, len(pipeline.vanished), pipeline.doubtful), *source.warnings()]

    def commit(self, unreadable: UnreadableRecord | None, losses: list[Loss]) -> Pins:
        """Write the manifest; see `commit_manifest`."""
        packs = self._writer.finish_entries()
        return commit_manifest(
            self._task,
            self._store,
            self._writer,
            self._parent,
            packs,
            chunk_bytes=self._chunk_bytes,
            comparison=self._comparison(),
            unreadable=unreadable,
            losses=losses,
            renewed_bytes=self._renewed_bytes,
        )

    def _comparison(self) -> Comparison | None:
        """Return what the next incremental backup must know; None for a device, which has no timestamps.

        Call this after the last entry: only then is the oldest ctime known.
        """
        task = self._task
        if task.volume_mode is VolumeMode.BLOCK:
            return None
        return self._policy.record(
            instant=task.data_instant if self._proves_content else None,
            oldest_ctime_ns=self._writer.oldest_ctime_ns,
            missed_changes=self._missed_changes,
        )


def _reusable_chunks(parent: ManifestReader, avoid: frozenset[int]) -> Iterator[Chunk]:
    """Yield the chunks of the parent that do not lie in packs to avoid."""
    return (chunk for chunk in parent.chunks() if chunk.pack not in avoid)


def _level(compression: Compression) -> int | None:
    return compression.level if compression.algorithm is CompressionAlgorithm.ZSTD else None
