"""Commit a backup: check its packs, write its manifest, and read the manifest back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from cinderblock import __version__
from cinderblock.api.layout import pack_prefix
from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata, MoverTask, VolumeMode
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.archiver.locks import lock_manifest
from cinderblock.errors import (
    Conflict,
    ForeignManifest,
    IntegrityError,
    NotFound,
    ObjectLocked,
    ObjectNotFound,
    TransientError,
)
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.header import ManifestHeader
from cinderblock.format.manifest.reader import ManifestReader, ManifestSummary, read_header, read_summary
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import PackTable
from cinderblock.reasons import Reason
from cinderblock.repository.objects import LISTING_SECONDS, list_pack_objects, mark_key
from cinderblock.store.base import ObjectInfo, ObjectStore
from cinderblock.store.deadline import limit_seconds, with_current

log = logging.getLogger(__name__)

_CONCURRENT_LISTS: Final = 8
"""Ancestors whose packs are listed at once: after a year of daily incremental backups there may be 365 of them."""
_COLLECTED_KEYS: Final = 1000
"""Keys of objects to delete that are collected while listing. They take 200 kB; most backups have one."""


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
    renewed_bytes: int,
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
        renewed_bytes: unchanged bytes that were stored again.

    Returns:
        What identifies the manifest.

    Raises:
        IntegrityError: a pack of an ancestor is missing.
        NotFound: the parent was removed meanwhile; the backup has no manifest.
        LockNotExtended: a pack cannot be locked for long enough; the backup has no manifest.
        TransientError: a pack of this backup is missing: another mover works, or has worked, for the same backup.
    """
    own_id = task.backup.backup_id
    _check_ancestors(task, store, packs)
    needed = _needed_packs(task, packs, own_id)
    missing, surplus = _compare(task, store, own_id, needed)
    is_removed = mark_key(task.store.prefix, task.backup.volume_id, own_id) in surplus
    if missing or is_removed or read_finished_header(task, store):
        raise TransientError(
            f"Cannot commit backup {own_id}: another mover worked on it at the same time. Try again.",
            reason=Reason.OVERTAKEN,
        )
    if surplus:
        _delete_surplus(task, store, needed, surplus)
    lock = lock_manifest(task, store, packs)
    ancestors = {} if parent is None else parent.data_keys()
    manifest = writer.finish(
        _description(task, parent),
        chunk_bytes,
        ancestors,
        comparison=comparison,
        unreadable=unreadable,
        losses=losses,
        renewed_bytes=renewed_bytes,
    )
    store.put(task.manifest, manifest, lock)
    check_parent(task, store)
    return writer.pins


def check_parent(task: MoverTask, store: ObjectStore) -> None:
    """Check that the parent still has its manifest, after this backup got one. Otherwise delete the latter.

    The removal of the parent may not have seen this manifest, and may be deleting packs that it lists. Each run of the
    mover repeats this check, because the one before may have died between its upload and its check.

    Raises NotFound if the parent is gone; and what the store raises.
    """
    if not parent_remains(task, store):
        store.delete([task.manifest])
        raise parent_is_gone(task)


def parent_remains(task: MoverTask, store: ObjectStore) -> bool:
    """Return whether the parent, if any, still has its manifest.

    A removal deletes the manifest of the parent, lists the manifests, and then deletes packs. So if the parent has its
    manifest after this backup got one, the removal sees that this backup needs the packs: see `repository.inherited`.
    """
    if task.parent_manifest is None:
        return True
    try:
        store.get(task.parent_manifest, 0, 1)
    except ObjectNotFound:
        return False
    return True


def parent_is_gone(task: MoverTask) -> NotFound:
    """Return the error of a backup whose parent was removed meanwhile."""
    return NotFound(
        f"Cannot build on {task.parent_manifest}: the parent was removed during the backup. Make another backup.",
        reason=Reason.PARENT_GONE,
    )


def _delete_surplus(task: MoverTask, store: ObjectStore, needed: Mapping[str, int], surplus: list[str]) -> None:
    """Delete the objects of the backup that no reader needs. Locked ones stay with it, and are deleted with it.

    If there are more than were collected, they are listed again, so that millions of them fill no memory.
    """
    keys: Iterator[str] = iter(surplus)
    if len(surplus) == _COLLECTED_KEYS:
        listed = _list_packs(task, store, task.backup.backup_id)
        keys = (info.key for info in listed if info.key not in needed)
    try:
        with limit_seconds(LISTING_SECONDS):
            store.delete(keys)
    except ObjectLocked as error:
        log.warning("Objects that the backup does not need stay until it is deleted: %s", error.message)


def read_back(task: MoverTask, store: ObjectStore, keys: Keys | None, pins: Pins | None = None) -> ManifestSummary:
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
        missing_packs = pool.map(with_current(partial(_missing_of_ancestor, task, store, packs)), ancestors)
        for missing in missing_packs:
            if missing:
                raise IntegrityError(
                    f"Cannot build on the parent: {min(missing)} is missing or has another size. Make a full backup."
                )


def _missing_of_ancestor(task: MoverTask, store: ObjectStore, packs: PackTable, backup_id: str) -> set[str]:
    return _compare(task, store, backup_id, _needed_packs(task, packs, backup_id))[0]


def _needed_packs(task: MoverTask, packs: PackTable, backup_id: str) -> dict[str, int]:
    """Return the sizes, by key, of the packs of one backup that the manifest points into."""
    prefix = pack_prefix(task.store.prefix, task.backup.volume_id, backup_id)
    return {
        prefix + packs.name(pack): packs.size(pack)
        for pack in range(len(packs))
        if packs.origin(pack).backup_id == backup_id
    }


def _compare(
    task: MoverTask, store: ObjectStore, backup_id: str, needed: Mapping[str, int]
) -> tuple[set[str], list[str]]:
    """Compare the packs of a backup, and its wrapped data key, with those that the manifest needs.

    This holds no other listed objects, so that a listing takes no more memory than the needed packs.

    Returns:
        The keys that are missing or have another size, and at most _COLLECTED_KEYS keys that are not needed.
    """
    missing, surplus = set(needed), list[str]()
    with limit_seconds(LISTING_SECONDS):
        for info in _list_packs(task, store, backup_id):
            if needed.get(info.key) == info.size:
                missing.discard(info.key)
            elif info.key not in needed and len(surplus) < _COLLECTED_KEYS:
                surplus.append(info.key)
    return missing, surplus


def _list_packs(task: MoverTask, store: ObjectStore, backup_id: str) -> Iterator[ObjectInfo]:
    return list_pack_objects(store, task.store.prefix, task.backup.volume_id, backup_id)


def _expected(task: MoverTask, pins: Pins | None = None) -> ExpectedBackup:
    """Return which backup the manifest must be that this task commits."""
    ids = task.backup
    return ExpectedBackup(volume_id=ids.volume_id, backup_id=ids.backup_id, sealed=task.sealed, pins=pins)
