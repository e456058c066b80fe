"""Open the manifest of the parent of an incremental backup, and check that it can be built on."""

from __future__ import annotations

from functools import partial

from cinderblock.api.layout import stored_ids
from cinderblock.api.mover import MoverTask
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import InvalidInput, NotFound, ObjectNotFound
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore


def open_parent(task: MoverTask, store: ObjectStore, keys: Keys | None) -> ManifestReader | None:
    """Return the manifest of the parent; None for a full backup.

    Raises NotFound if it is gone, InvalidInput if nothing can be built on it, and what the manifest raises.
    """
    key = task.parent_manifest
    if key is None:
        return None
    parent = _read_parent(task, store, keys, key)
    description = parent.summary.description
    if (description.volume_id, description.volume_mode) != (task.backup.volume_id, task.volume_mode):
        raise InvalidInput(f"Cannot build on {key}: it is a backup of another volume. Make a full backup.")
    if not task.sealed and parent.data_keys():
        raise InvalidInput(
            f"Cannot build on {key}: it is sealed, and the store no longer has an encryption Secret. Make a full"
            " backup."
        )
    return parent


def _read_parent(task: MoverTask, store: ObjectStore, keys: Keys | None, key: str) -> ManifestReader:
    try:
        return ManifestReader(partial(store.get, key), keys, _expected_parent(task, key), key)
    except ObjectNotFound as error:
        raise NotFound(
            f"Cannot build on {key}: the manifest of the parent is no longer in the store. Make a full backup.",
            reason=Reason.PARENT_GONE,
        ) from error


def _expected_parent(task: MoverTask, key: str) -> ExpectedBackup:
    """Return which backup the parent's manifest must be. If the task does not say so, the key alone does."""
    if task.expected_parent is not None:
        return task.expected_parent
    ids = stored_ids(key, task.store.prefix)
    if ids is None:
        raise InvalidInput(
            f"Cannot build on {key}: it is not the key of a manifest below the prefix of the store. Make a full backup."
        )
    return ExpectedBackup(volume_id=ids[0], backup_id=ids[1])
