"""Commit a backup: check its packs, write its manifest, and read the manifest back."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from cinderblock import __version__
from cinderblock.api.layout import pack_prefix
from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata, MoverTask, VolumeMode
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import Conflict, ForeignManifest, IntegrityError, ObjectLocked, ObjectNotFound, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.header import ManifestHeader
from cinderblock.format.manifest.reader import ManifestReader, ManifestSummary, read_header, read_summary
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import PackTable
from cinderblock.reasons import Reason
from cinderblock.repository.objects import list_pack_objects
from cinderblock.store.base import ObjectStore

log = logging.getLogger(__name__)

_CONCURRENT_LISTS: Final = 8
"""Ancestors whose packs are listed at once: after a year of daily incremental backups there may be 365 of them."""


def commit_manifest(
    task: MoverTask,
    store: ObjectStore,
    writer: ManifestWriter,
    parent: ManifestReader | None,
    packs: PackTable,
    *,
    chunk_bytes: int,
    comparison: Comparison | None,
    unreadable: UnreadableRecord | None,
    losses: list[Loss],
) -> Pins:
    """Write the manifest, after checking that every pack in use exists and deleting all other packs of the backup.

    Args:
        task: the backup.
        store: holds the packs, and gets the manifest.
        writer: has all entries.
        parent: the manifest of the parent, if any.
        packs: the packs in use.
        chunk_bytes: largest chunk.
        comparison: what the next incremental backup must know.
        unreadable: files that could not be read.
        losses: metadata that is not kept.

    Returns:
        What identifies the manifest.

    Raises:
        IntegrityError: a pack of an ancestor is missing.
        TransientError: a pack of this backup is missing: another mover works, or has worked, for the same backup.
    """
    own_id = task.backup.backup_id
    _check_ancestors(task, store, packs)
    needed, existing = _needed_packs(task, packs, own_id), _existing_packs(task, store, own_id)
    if needed.items() - existing.items() or read_finished_header(task, store):
        raise TransientError(
            f"Cannot commit backup {own_id}: another mover worked on it at the same time. Try again.",
            reason=Reason.OVERTAKEN,
        )
    surplus = sorted(existing.keys() - needed.keys())
    if surplus:
        _delete_surplus(store, surplus)
    ancestors = {} if parent is None else parent.data_keys()
    manifest = writer.finish(
        _description(task, parent),
        chunk_bytes,
        ancestors,
        comparison=comparison,
        unreadable=unreadable,
        losses=losses,
    )
    store.put(task.manifest, manifest)
    return writer.pins


def _delete_surplus(store: ObjectStore, keys: list[str]) -> None:
    """Delete objects that no reader needs. Locked ones stay with the backup, and are deleted with it."""
    try:
        store.delete(keys)
    except ObjectLocked as error:
        log.warning("Objects that the backup does not need stay until it is deleted: %s", error.message)


def read_back(task: MoverTask, store: ObjectStore, keys: KeyRing | None, pins: Pins | None = None) -> ManifestSummary:
    """Read the committed manifest. ``pins`` identifies the manifest that this run has written."""
    return read_summary(partial(store.get, task.manifest), keys, _expected(task, pins), task.manifest)


def read_finished_header(task: MoverTask, store: ObjectStore) -> ManifestHeader | None:
    """Return the header of the manifest that an earlier run for the same backup has committed, if any.

    Raises Conflict if the manifest belongs to another backup, SealBroken if it must be encrypted and is not.
    """
    try:
        return read_header(partial(store.get, task.manifest), _expected(task), task.manifest)
    except ObjectNotFound:
        return None
    except ForeignManifest as error:
        raise Conflict(f"Cannot write {task.manifest}: it already exists. {error.message}") from error


def _description(task: MoverTask, parent: ManifestReader | None) -> BackupMetadata:
    """Return the metadata of the task, with the change detection and the version that writes the manifest."""
    compares_files = parent is not None and task.volume_mode is VolumeMode.FILESYSTEM
    detection = task.change_detection if compares_files else None
    return task.backup.model_copy(update={"change_detection": detection, "written_by": __version__})


def _check_ancestors(task: MoverTask, store: ObjectStore, packs: PackTable) -> None:
    """Check that the packs of all ancestors exist. Raises IntegrityError naming one that does not."""
    ancestors = sorted({origin.backup_id for origin in packs.origins} - {task.backup.backup_id})
    with ThreadPoolExecutor(_CONCURRENT_LISTS, "list") as pool:
        existing_packs = pool.map(partial(_existing_packs, task, store), ancestors)
        for backup_id, existing in zip(ancestors, existing_packs, strict=True):
            missing = _needed_packs(task, packs, backup_id).items() - existing.items()
            if missing:
                raise IntegrityError(
                    f"Cannot build on the parent: {min(missing)[0]} is missing or has another size. Make a full backup."
                )


def _needed_packs(task: MoverTask, packs: PackTable, backup_id: str) -> dict[str, int]:
    """Return the sizes, by key, of the packs of one backup that the manifest points into."""
    prefix = pack_prefix(task.store.prefix, task.backup.volume_id, backup_id)
    return {
        prefix + packs.name(pack): packs.size(pack)
        for pack in range(len(packs))
        if packs.origin(pack).backup_id == backup_id
    }


def _existing_packs(task: MoverTask, store: ObjectStore, backup_id: str) -> dict[str, int]:
    """Return the sizes, by key, of the packs of a backup and of its wrapped data key; of no other objects."""
    found = list_pack_objects(store, task.store.prefix, task.backup.volume_id, backup_id)
    return {info.key: info.size for info in found}


def _expected(task: MoverTask, pins: Pins | None = None) -> ExpectedBackup:
    """Return which backup the manifest must be that this task commits."""
    ids = task.backup
    return ExpectedBackup(volume_id=ids.volume_id, backup_id=ids.backup_id, sealed=task.sealed, pins=pins)
