"""The backup engine: reads a volume, stores what is not stored yet, and commits it by writing the manifest.

    walk, compare with the parent (`planning`) -> read, hash, encode by several threads (`reading`)
    -> in order again (`assembling`): seal into packs, send (`uploads`), describe (`datapath.manifest_writer`) -> commit

Memory. In flight are at most ``(UPLOADS + 1)`` packs and ``2 * lookahead`` chunks that are being read or wait for
their turn: `bytes_in_flight`, 130 MiB with chunks of 1 MiB. To that come the index of known chunks (at most 36 MiB)
and the manifest (about 60 bytes for a small file), which is one object and therefore in memory; and what zstd needs in
each of the four workers: 1.3 MiB at level 1, 4 MiB at level 6, 19 MiB at level 19.

Requests. One PUT for each pack of 24 MiB, one for the manifest, one for the wrapped key; one LIST for each 1000 packs
of each backup whose packs are in use. To resume, one GET for each pack that is there. For an incremental, one GET for
each 4 MiB of the parent's manifest, and once more if anything was read.

Crashes. Nothing but the manifest makes a backup exist, and it is written last, when all packs are there and nothing
else is. A later run for the same backup takes over the packs that it finds (`leftovers`). If the manifest is there
already, the run reports what it says.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from cinderblock import __version__
from cinderblock.api.layout import pack_prefix, stored_ids
from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata, MoverReport, MoverTask, VolumeMode, missed_changes_sentence
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.api.v1alpha1.store import Compression, CompressionAlgorithm
from cinderblock.archiver.chunk_worker import ChunkWorker
from cinderblock.archiver.parent import ParentStream
from cinderblock.archiver.parent_policy import choose_policy
from cinderblock.archiver.pipeline import BackupPipeline, lookahead
from cinderblock.archiver.planner import plan
from cinderblock.archiver.source import Source, SourceOpener, open_source
from cinderblock.errors import (
    Conflict,
    ForeignManifest,
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    NotFound,
    TransientError,
)
from cinderblock.format.chunk_index import ChunkIndex
from cinderblock.format.chunker import chunk_bytes_for
from cinderblock.format.compression import Encoder
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.header import ManifestHeader, new_header
from cinderblock.format.manifest.reader import ManifestReader, ManifestSummary, read_header, read_summary
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import PackTable, buffer_bytes, new_attempt
from cinderblock.reasons import Reason
from cinderblock.repository.objects import list_pack_objects
from cinderblock.repository.pack_uploader import UPLOADS, PackOwner, PackUploader
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.repository.resume import UnfinishedBackup
from cinderblock.store.base import ObjectStore
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena
from cinderblock.volume.omissions import Omissions

logger = logging.getLogger(__name__)

WARNINGS = 8
"""What a report has room for."""
_LISTINGS = 8
"""Ancestors whose packs are listed at once: after a year of daily incrementals there may be 365 of them."""


def bytes_in_flight(chunk_bytes: int) -> int:
    """Bytes of plaintext, encoded chunks and packs that a backup holds at once at most."""
    return (UPLOADS + 1) * buffer_bytes(chunk_bytes) + 2 * lookahead(chunk_bytes) * chunk_bytes


def run_backup(
    task: MoverTask,
    store: ObjectStore,
    keys: KeyRing | None = None,
    on_progress: ProgressCallback = ignore_progress,
    opener: SourceOpener | None = None,
) -> MoverReport:
    """Back up the volume at ``task.path`` to ``task.manifest``.

    Args:
        task: an operation ``backup``.
        store: where to.
        keys: the store's key ring; None if it has no encryption Secret.
        on_progress: called often, from this thread.
        opener: opens the volume; None: as the task says.

    Returns the report of a success. Raises KeyUnavailable if the task says ``sealed`` and the key is not there, or that
    of the parent; InvalidInput for a parent of another volume; NotFound if the parent's manifest is gone; Conflict if
    the manifest's key is taken by another backup; IntegrityError (of the parent, or of what an earlier run should have
    committed); SourceError, SourceChanging, and what the store raises.
    """
    if _finished_header(task, store) is not None:
        return _report(task, _read_back(task, store, keys), [])
    if task.sealed and keys is None:
        raise KeyUnavailable("the store has an encryption Secret, and its keys are not mounted in the mover")
    use_single_arena()
    opener = opener or partial(open_source, unreadable=task.unreadable)
    with relaxed_gc(), opener(task.volume_mode, task.path) as source:
        if task.parent_manifest is not None:
            # A full backup reads and compresses so much that a process beside it would only take turns with it.
            source.begin()
        parent = _open_parent(task, store, keys)
        run = _BackupRun(task, store, keys if task.sealed else None, parent)
        warnings = run.store_volume(source, on_progress)
        losses, unreadable = source.losses(), _unreadable(source.gaps)
    pins = run.commit(unreadable, losses)
    return _report(task, _read_back(task, store, keys, pins), warnings)


class _BackupRun:
    """One run of a mover for one backup: what it writes, from the first pack to the manifest."""

    def __init__(
        self, task: MoverTask, store: ObjectStore, keys: KeyRing | None, parent: ManifestReader | None
    ) -> None:
        self._task = task
        self._store = store
        self._parent = parent
        volume_id, backup_id, prefix = task.backup.volume_id, task.backup.backup_id, task.store.prefix
        self._packs = PackTable() if parent is None else parent.packs.copy()
        self._known = ChunkIndex(first=None if parent is None else parent.chunks)
        leftovers = UnfinishedBackup(store, prefix, volume_id, backup_id)
        data_key = leftovers.data_key(keys) if keys is not None else None
        for chunk in leftovers.chunks(data_key, self._packs):
            self._known.add(chunk)
        self._owner = PackOwner(prefix, volume_id, backup_id, new_attempt(), data_key)
        parent_id = None if parent is None else parent.header.backup_id
        header = new_header(volume_id, backup_id, parent_id, data_key, keys)
        self._writer = ManifestWriter(header, header.sealer(data_key, task.manifest), self._packs)
        self._chunk_bytes = 0
        facts = None if parent is None else parent.summary.comparison
        compares_files = parent is not None and task.volume_mode is VolumeMode.FILESYSTEM
        self._trust = choose_policy(task, facts, is_incremental=compares_files)
        self._is_synced = True
        self._missed_changes = 0

    def store_volume(self, source: Source, on_progress: ProgressCallback) -> list[str]:
        """Read the volume and store all but the manifest. Returns warnings."""
        task, parent = self._task, self._parent
        total = source.total_bytes
        fresh = chunk_bytes_for(max(total, task.backup.volume_bytes))
        self._chunk_bytes = fresh if parent is None else parent.summary.chunk_bytes
        evidence = self._trust.detector
        stream = None if parent is None else ParentStream(parent.contents(), evidence)
        for reason in sorted(self._trust.reasons):
            logger.info("All files are read and compared with those of the parent: %s", reason)
        before = None if self._trust.reads_all else stream
        with ExitStack() as stack:
            uploader = PackUploader(self._store, self._owner, self._packs, self._chunk_bytes)
            stack.callback(uploader.close)

            def tell(done: int) -> None:
                on_progress(Progress(done, max(total, done), uploader.bytes_sent))

            assembly = BackupPipeline(
                source,
                reader=ChunkWorker(Encoder(_level(task.compression)), self._known),
                uploader=uploader,
                known=self._known,
                writer=self._writer,
                chunk_bytes=self._chunk_bytes,
                on_bytes=tell,
            )
            stack.callback(assembly.close)
            entries = source.entries(before, opens_all=self._trust.reads_all)
            assembly.run(plan(entries, stream or ParentStream(), self._chunk_bytes))
            uploader.finish()
            tell(assembly.bytes_done)
        self._is_synced, self._missed_changes = source.is_synced, assembly.missed_changes
        if evidence is not None and parent is not None and (hint := evidence.hint(parent.summary.entries)):
            logger.warning("%s", hint)
        return [*_changes(assembly), *source.warnings()]

    def commit(self, unreadable: UnreadableRecord | None, losses: list[Loss]) -> Pins:
        """Make sure that every pack in use is there and nothing else is, and write the manifest.

        Returns what identifies the manifest. Raises IntegrityError if a pack of an ancestor is missing; TransientError
        if one of this backup is: another mover works, or has worked, for the same backup.
        """
        task, packs = self._task, self._writer.finish_entries()
        self._check_ancestors(packs)
        wanted, present = self._wanted(packs, task.backup.backup_id), self._present(task.backup.backup_id)
        if wanted.items() - present.items() or _finished_header(task, self._store):
            raise TransientError(
                f"another mover has worked for backup {task.backup.backup_id} at the same time: try again",
                reason=Reason.OVERTAKEN,
            )
        surplus = sorted(present.keys() - wanted.keys())
        if surplus:
            self._store.delete(surplus)
        ancestors = {} if self._parent is None else self._parent.data_keys()
        manifest = self._writer.finish(
            self._description(),
            self._chunk_bytes,
            ancestors,
            comparison=self._comparison(),
            unreadable=unreadable,
            losses=losses,
        )
        self._store.put(task.manifest, manifest)
        return self._writer.pins

    def _description(self) -> BackupMetadata:
        """Return what the task says, with the proof that files are unchanged and the version that writes this."""
        task = self._task
        compares_files = self._parent is not None and task.volume_mode is VolumeMode.FILESYSTEM
        proof = task.change_detection if compares_files else None
        return task.backup.model_copy(update={"change_detection": proof, "written_by": __version__})

    def _comparison(self) -> Comparison | None:
        """Return what the next incremental backup must know; None for a device, which has no stamps."""
        task = self._task
        if task.volume_mode is VolumeMode.BLOCK:
            return None
        return self._trust.facts(
            instant=task.data_instant if self._is_synced else None,
            oldest_ctime_ns=self._writer.oldest_ctime_ns,
            missed_changes=self._missed_changes,
        )

    def _check_ancestors(self, packs: PackTable) -> None:
        """Make sure that the packs of ancestors are there. Raises IntegrityError naming one that is not."""
        ancestors = sorted({origin.backup_id for origin in packs.origins} - {self._task.backup.backup_id})
        with ThreadPoolExecutor(_LISTINGS, "list") as pool:
            for backup_id, present in zip(ancestors, pool.map(self._present, ancestors), strict=True):
                missing = self._wanted(packs, backup_id).items() - present.items()
                if missing:
                    raise IntegrityError(f"{min(missing)[0]} is missing or of another size: make a full backup")

    def _wanted(self, packs: PackTable, backup_id: str) -> dict[str, int]:
        """Size by key of the packs of one backup that the manifest points into."""
        prefix = pack_prefix(self._task.store.prefix, self._task.backup.volume_id, backup_id)
        return {
            prefix + packs.name(pack): packs.size(pack)
            for pack in range(len(packs))
            if packs.origin(pack).backup_id == backup_id
        }

    def _present(self, backup_id: str) -> dict[str, int]:
        """Return sizes by key of the packs of a backup and of its wrapped data key; no other objects."""
        found = list_pack_objects(self._store, self._task.store.prefix, self._task.backup.volume_id, backup_id)
        return {info.key: info.size for info in found}


def _level(compression: Compression) -> int | None:
    return compression.level if compression.algorithm is CompressionAlgorithm.ZSTD else None


def _changes(assembly: BackupPipeline) -> list[str]:
    """What a person should know about a volume that changed while it was read."""
    counted = (
        (assembly.read_again, "files changed while they were read, and were read again"),
        (len(assembly.vanished), "files vanished before they could be read, and were left out"),
    )
    return [f"{number} {what}" for number, what in counted if number]


def _unreadable(gaps: Omissions) -> UnreadableRecord | None:
    return UnreadableRecord(files=gaps.files, examples=gaps.examples) if gaps else None


def _report(task: MoverTask, summary: ManifestSummary, warnings: list[str]) -> MoverReport:
    facts = summary.comparison
    missed_changes = 0 if facts is None else facts.missed_changes
    return MoverReport(
        succeeded=True,
        message=missed_changes_sentence(missed_changes) if missed_changes else "",
        manifest=task.manifest,
        object_count=summary.object_count,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=summary.transferred_bytes,
        stored_bytes=summary.stored_bytes,
        reread_files=0 if facts is None else facts.reread_files,
        missed_changes=missed_changes,
        pins=summary.pins,
        unreadable_files=summary.unreadable_files,
        unreadable_examples=list(summary.unreadable_examples),
        losses=list(summary.losses),
        warnings=warnings[:WARNINGS],
    )


def _open_parent(task: MoverTask, store: ObjectStore, keys: KeyRing | None) -> ManifestReader | None:
    """The manifest of the parent, if the backup is incremental."""
    key = task.parent_manifest
    if key is None:
        return None
    parent = _read_parent(task, store, keys, key)
    description = parent.summary.description
    if (description.volume_id, description.volume_mode) != (task.backup.volume_id, task.volume_mode):
        raise InvalidInput(f"{key} is a backup of another volume: make a full backup")
    if not task.sealed and parent.data_keys():
        raise InvalidInput(f"{key} is sealed, and the store has no encryption Secret any more: make a full backup")
    return parent


def _read_parent(task: MoverTask, store: ObjectStore, keys: KeyRing | None, key: str) -> ManifestReader:
    try:
        return ManifestReader(partial(store.get, key), keys, _expected_parent(task, key), key)
    except NotFound as error:
        if error.reason != NotFound.__name__:
            raise
        raise NotFound(
            f"{key}, the manifest of the parent, is not in the store any more: make a full backup",
            reason=Reason.PARENT_GONE,
        ) from error


def _expected_parent(task: MoverTask, key: str) -> ExpectedBackup:
    """Return which backup the parent's manifest must be. If the task does not say so, the key alone does."""
    if task.expected_parent is not None:
        return task.expected_parent
    ids = stored_ids(key, task.store.prefix)
    if ids is None:
        raise InvalidInput(f"{key} is not the key of a manifest below the prefix of the store: make a full backup")
    return ExpectedBackup(volume_id=ids[0], backup_id=ids[1])


def _expected(task: MoverTask, pins: Pins | None = None) -> ExpectedBackup:
    """Return which backup the manifest must be that this task is to commit."""
    ids = task.backup
    return ExpectedBackup(volume_id=ids.volume_id, backup_id=ids.backup_id, sealed=task.sealed, pins=pins)


def _read_back(task: MoverTask, store: ObjectStore, keys: KeyRing | None, pins: Pins | None = None) -> ManifestSummary:
    """Return what the committed manifest says; ``pins`` identifies what this run has written."""
    return read_summary(partial(store.get, task.manifest), keys, _expected(task, pins), task.manifest)


def _finished_header(task: MoverTask, store: ObjectStore) -> ManifestHeader | None:
    """Return the header of the manifest that an earlier run for the same backup has committed, if any.

    Raises Conflict if the manifest is another backup's, SealBroken if it must be encrypted and is not.
    """
    try:
        return read_header(partial(store.get, task.manifest), _expected(task), task.manifest)
    except NotFound as error:
        if error.reason != NotFound.__name__:
            raise
        return None
    except ForeignManifest as error:
        raise Conflict(f"Cannot write {task.manifest}: it is there already. {error.message}") from error
