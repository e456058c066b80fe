"""Delete a backup from a store, but never what another manifest lists, or may list.

The manifest goes first, so that no manifest ever points to packs that are gone. If the process is killed in between,
the next attempt repeats the whole deletion, and checks again which backups need the packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import (
    BackupNeeded,
    Conflict,
    ForeignManifest,
    IntegrityError,
    ObjectNotFound,
    ReferencesUnknown,
)
from cinderblock.format.manifest.reader import read_header
from cinderblock.repository.objects import list_pack_objects
from cinderblock.repository.references import References
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectStore

_NAMED_DEPENDENTS: Final = 10
"""Backups that the message of BackupNeeded names at most."""


def delete_backup(store: ObjectStore, prefix: str, volume_id: str, backup_id: str, references: References) -> int:
    """Delete the manifest of a backup and its packs. Other programs' objects stay where they are.

    Args:
        store, prefix: where the backup is.
        volume_id, backup_id: which backup it is.
        references: a new look-up of the manifests of the volume.

    Returns:
        How many objects were deleted.

    Raises:
        BackupNeeded: other backups need its packs; nothing was deleted.
        ReferencesUnknown: nothing shows whether others need its packs; nothing was deleted.
        Conflict: the manifest under its key belongs to another backup (ForeignManifest); nothing was deleted.
    """
    references.read_all()
    dependents = references.needs(backup_id)
    if dependents.by:
        raise BackupNeeded(
            f"Cannot delete backup {backup_id}: backups {_format_ids(dependents.by)} need its data. Delete them first.",
            dependents.by,
        )
    if dependents.unknown:
        raise ReferencesUnknown(dependents.unknown[0].message, dependents.unknown[0])
    key = manifest_key(prefix, volume_id, backup_id)
    has_manifest = _has_own_manifest(store, key, ExpectedBackup(volume_id=volume_id, backup_id=backup_id))
    if has_manifest:
        store.delete([key])
    # A volume of 64 TiB has 2.8 million packs, so their keys are never held together.
    packs = list_pack_objects(store, prefix, volume_id, backup_id)
    count = 0
    while batch := [found.key for found in islice(packs, DELETE_BATCH_KEYS)]:
        store.delete(batch)
        count += len(batch)
    return has_manifest + count


def _has_own_manifest(store: ObjectStore, key: str, expected: ExpectedBackup) -> bool:
    """Return whether the backup has a manifest. One that is too damaged to name its backup belongs to its key."""
    try:
        read_header(partial(store.get, key), expected, key)
    except ObjectNotFound:
        return False
    except ForeignManifest as error:
        raise Conflict(
            f"{error.message} Nothing was deleted. An S3 client can remove that one object.", reason=error.reason
        ) from error
    except IntegrityError:
        return True
    return True


def _format_ids(backup_ids: Sequence[str]) -> str:
    more = len(backup_ids) - _NAMED_DEPENDENTS
    listed = ", ".join(backup_ids[:_NAMED_DEPENDENTS])
    return f"{listed} and {more} more" if more > 0 else listed
