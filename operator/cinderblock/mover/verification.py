"""Run the operation ``verify`` of a mover: verify backups in the store, without a volume."""

from __future__ import annotations

from cinderblock.api.mover import MoverReport, MoverTask, VerifyReport, VerifyTask
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.errors import InvalidInput
from cinderblock.format.crypto.keys import Keys
from cinderblock.repository.progress import ProgressCallback, ignore_progress
from cinderblock.repository.verify.data import Share, verify_data
from cinderblock.repository.verify.findings import Findings
from cinderblock.repository.verify.structure import verify_structure
from cinderblock.store.base import ObjectStore
from cinderblock.volume.kernel.allocator import relaxed_gc, use_single_arena


def run_verification(
    task: MoverTask,
    store: ObjectStore,
    keys: Keys | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> MoverReport:
    """Verify the backup ``task.manifest``, or all backups of its volume.

    Args:
        task: a task with operation ``verify``.
        store: holds the backups.
        keys: the key ring of the store; None if it has no encryption Secret.
        on_progress: called often, from this thread.

    Returns:
        The report of a success, whether or not something is damaged.

    Raises:
        InvalidInput: the task cannot be run.
        NotFound: the store has no manifest of the backup.
        KeyUnavailable, UnsupportedFormat, TooLarge: the manifest cannot be read, and nothing is known about it.
        CinderblockError: the store failed.
    """
    wanted = task.verify
    if wanted is None or wanted.level is VerificationLevel.RESTORE:
        raise InvalidInput("Cannot verify: the task names neither level Structure nor level Data.")
    use_single_arena()
    with relaxed_gc():
        found = _verify(task, wanted, store, keys, on_progress)
    return MoverReport(
        succeeded=True,
        manifest=task.manifest,
        message=damage_sentence(found),
        verification=VerifyReport(
            complete=found.complete,
            packs=found.packs,
            packs_verified=found.packs_verified,
            bytes_read=found.bytes_read,
            damaged_count=found.damaged_count,
            damaged=list(found.damaged),
            affected_count=found.affected_count,
            affected=list(found.affected),
            unreadable_count=found.unreadable_count,
        ),
    )


def _verify(
    task: MoverTask, wanted: VerifyTask, store: ObjectStore, keys: Keys | None, on_progress: ProgressCallback
) -> Findings:
    prefix, expected = task.store.prefix, _expected(task)
    if wanted.level is VerificationLevel.STRUCTURE:
        return verify_structure(store, prefix, task.manifest, expected, keys, on_progress=on_progress)
    share = Share(wanted.part, wanted.parts, wanted.max_bytes, wanted.max_seconds)
    return verify_data(store, prefix, expected, keys, share, on_progress=on_progress)


def _expected(task: MoverTask) -> ExpectedBackup:
    """Return which backup the manifest must be."""
    known = ExpectedBackup(volume_id=task.backup.volume_id, backup_id=task.backup.backup_id, sealed=task.sealed)
    return task.expected or known


def damage_sentence(found: Findings) -> str:
    """Return a sentence about the damage; empty if there is none."""
    if not found.damaged_count:
        return ""
    objects = "1 object is" if found.damaged_count == 1 else f"{found.damaged_count} objects are"
    backups = "1 backup needs" if found.affected_count == 1 else f"{found.affected_count} backups need"
    they = "it" if found.damaged_count == 1 else "them"
    return f"{objects} damaged or missing, and {backups} {they}. {found.causes[0]}"
