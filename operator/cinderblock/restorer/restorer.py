"""Run a restore: read one manifest, fetch chunks, verify each, and make a volume equal to the backup.

    entries of the manifest in order -> create names in order (`target`) -> batches of files (`batch`)
    -> compare with the target, fetch, verify, write (`pipeline`) -> finish (`batch_writer`)

Nothing is written before the first chunk has been fetched and verified. In place, only what differs is fetched and
written: the BLAKE3 of each extent is compared with the target. A run that succeeds has verified every byte of the
result. A run that fails leaves a target that must not be used; a later run completes it.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Final

from cinderblock.api.losses import count_files
from cinderblock.api.mover import MoverReport, MoverTask
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import InvalidInput
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.manifest.reader import ManifestReader, ManifestSummary
from cinderblock.repository.chunk_reader import ChunkReader
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.restorer.pipeline import RestorePipeline
from cinderblock.restorer.target import Target, open_target
from cinderblock.store.base import ObjectStore
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena

_WARNINGS_LIMIT: Final = 8
"""Most warnings in a report."""


def run_restore(
    task: MoverTask,
    store: ObjectStore,
    keys: Keys | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> MoverReport:
    """Restore the backup ``task.manifest`` to the volume at ``task.path``.

    Args:
        task: a task with operation ``restore``.
        store: holds the backup.
        keys: the key ring of the store; None if it has no encryption Secret.
        on_progress: called often, from this thread.

    Returns:
        The report of a success.

    Raises:
        NotFound: the backup does not exist.
        IntegrityError, UnsupportedFormat, KeyUnavailable: the backup cannot be read.
        InvalidInput: it is a backup of the other volume mode.
        TargetError: the target cannot be written.
        CinderblockError: the store failed.
    """
    manifest = open_manifest(task, store, keys)
    reader = ChunkReader(store, task.store.prefix, manifest)
    verify_first_chunk(manifest, reader)
    with open_target(task.volume_mode, task.path, task.fidelity) as target:
        return write_target(target, task, manifest, reader, on_progress)


def open_manifest(task: MoverTask, store: ObjectStore, keys: Keys | None) -> ManifestReader:
    """Return the manifest of the task, which must belong to the backup that the task expects."""
    manifest = ManifestReader(partial(store.get, task.manifest), keys, _expected(task), task.manifest)
    mode = manifest.summary.description.volume_mode
    if mode is not task.volume_mode:
        raise InvalidInput(
            f"Cannot restore {task.manifest}: it is a backup of a volume of mode {mode}. Restore to such a volume."
        )
    return manifest


def _expected(task: MoverTask) -> ExpectedBackup:
    """Return which backup the manifest must be. An operator of release 0.1.0 knows only ids and the seal."""
    known = ExpectedBackup(volume_id=task.backup.volume_id, backup_id=task.backup.backup_id, sealed=task.sealed)
    return task.expected or known


def verify_first_chunk(manifest: ManifestReader, reader: ChunkReader) -> None:
    """Check that the first chunk can be read, decrypted and verified, before anything is overwritten."""
    first = next(manifest.chunks(), None)
    if first is not None:
        for _ in reader.fetch([first]):
            pass


def write_target(
    target: Target, task: MoverTask, manifest: ManifestReader, reader: ChunkReader, on_progress: ProgressCallback
) -> MoverReport:
    """Make the target equal to the backup; see `run_restore`."""
    summary = manifest.summary

    def report_bytes(done: int) -> None:
        on_progress(Progress(done, summary.logical_bytes, reader.bytes_fetched))

    use_single_arena()
    with closing(RestorePipeline(target, reader, summary.chunk_bytes, report_bytes)) as pipeline, relaxed_gc():
        for entry in manifest.entries():
            pipeline.put(entry)
        pipeline.finish()
    target.finish()
    return MoverReport(
        succeeded=True,
        manifest=task.manifest,
        object_count=summary.object_count,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=reader.bytes_fetched,
        stored_bytes=summary.stored_bytes,
        restored_bytes=summary.logical_bytes,
        losses=target.losses(),
        warnings=[*_missing(summary), *target.warnings()][:_WARNINGS_LIMIT],
    )


def _missing(summary: ManifestSummary) -> list[str]:
    """Return a warning about a backup that lacks unreadable files."""
    if not summary.unreadable_files:
        return []
    named = ", ".join(summary.unreadable_examples)
    return [
        f"the backup lacks {count_files(summary.unreadable_files)} that could not be read when it was made ({named})"
    ]
