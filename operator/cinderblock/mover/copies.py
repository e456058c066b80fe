"""Run the operation ``copy`` of a mover: copy stored backups to another store, one after the other."""

from __future__ import annotations

from typing import Final

from cinderblock.api.mover import CopyResult, CopyTask, MoverReport, MoverTask
from cinderblock.errors import (
    CinderblockError,
    IntegrityError,
    KeyUnavailable,
    LockNotExtended,
    NotFound,
    ObjectArchived,
    ObjectLocked,
    TooLarge,
    TransientError,
    UnsupportedFormat,
)
from cinderblock.reasons import Reason
from cinderblock.repository.copying.copy_backup import CopiedBackup, CopyPlace, copy_backup
from cinderblock.repository.copying.locks import TargetLocks
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena

_OF_ONE_BACKUP: Final = (
    IntegrityError,
    KeyUnavailable,
    LockNotExtended,
    ObjectArchived,
    ObjectLocked,
    TooLarge,
    UnsupportedFormat,
)
"""Errors that say something about one backup, so the others are copied all the same."""


def run_copies(
    task: MoverTask,
    copies: CopyTask,
    source: CopyPlace,
    target: CopyPlace,
    on_progress: ProgressCallback = ignore_progress,
) -> MoverReport:
    """Copy the backups of a task.

    Args:
        task: a task with operation ``copy``.
        copies: its scope.
        source, target: the store of the backups, and the store that gets the copies.
        on_progress: called often, from this thread.

    Returns:
        The result of each backup. If a store fails after the first one, the rest is left to another run.

    Raises CinderblockError if a store fails before any backup has a result.
    """
    use_single_arena()
    results: list[CopyResult] = []
    progress = _Offset(on_progress)
    locks = TargetLocks(target.store, copies.lock)
    with relaxed_gc():
        for expected in copies.backups:
            try:
                copied = copy_backup(source, target, expected, locks=locks, on_progress=progress)
            except CinderblockError as error:
                if _is_of_one_backup(error):
                    results.append(_failed(expected.backup_id, error))
                elif results:
                    break
                else:
                    raise
            else:
                results.append(_made(expected.backup_id, copied))
            progress.next_backup()
    return MoverReport(
        succeeded=True,
        manifest=task.manifest,
        message=_sentence(results, len(copies.backups)),
        stored_bytes=sum(result.bytes_sent for result in results),
        copies=results,
    )


class _Offset:
    """Adds the bytes of finished backups to the progress of the current one."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._done = self._stored = 0
        self._last = Progress(0, 0, 0)

    def __call__(self, progress: Progress) -> None:
        self._last = progress
        self._on_progress(
            Progress(
                self._done + progress.bytes_done,
                self._done + progress.bytes_total,
                self._stored + progress.bytes_stored,
            )
        )

    def next_backup(self) -> None:
        """Begin the next backup."""
        self._done += self._last.bytes_total
        self._stored += self._last.bytes_stored
        self._last = Progress(0, 0, 0)


def _is_of_one_backup(error: CinderblockError) -> bool:
    """Return whether an error says nothing about the stores, so that other backups can be copied."""
    is_gone = isinstance(error, NotFound) and error.reason == Reason.MANIFEST_MISSING
    is_overtaken = isinstance(error, TransientError) and error.reason == Reason.OVERTAKEN
    return is_gone or is_overtaken or isinstance(error, _OF_ONE_BACKUP)


def _made(backup_id: str, copied: CopiedBackup) -> CopyResult:
    return CopyResult(backup_id=backup_id, bytes_sent=copied.bytes_sent, locked_until=copied.locked_until)


def _failed(backup_id: str, error: CinderblockError) -> CopyResult:
    return CopyResult(backup_id=backup_id, reason=error.reason, message=error.message)


def _sentence(results: list[CopyResult], asked: int) -> str:
    copied = sum(not result.reason for result in results)
    return f"Backups copied: {copied} of {asked}"
