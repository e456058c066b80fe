"""Removing a backup from a store. It never removes what another manifest lists, or may list.

It removes the manifest first, so that no manifest ever points to packs that are gone. A process that was killed in
between repeats the whole removal, and finds out again which backups need the packs.
"""

from __future__ import annotations

from functools import partial

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import Conflict, ForeignManifest, IntegrityError, NotFound
from cinderblock.format.manifest.reader import read_header
from cinderblock.reasons import Reason
from cinderblock.repository.objects import list_pack_objects
from cinderblock.repository.references import References
from cinderblock.store.base import ObjectStore


def delete_backup(store: ObjectStore, prefix: str, volume_id: str, backup_id: str, references: References) -> int:
    """Remove the manifest of a backup and its packs. Objects that are not ours stay where they are.

    Args:
        store, prefix: where the backup is.
        volume_id, backup_id: which backup it is.
        references: a new look at the manifests of the volume.

    Returns:
        How many objects were removed.

    Raises:
        Conflict: other backups need its packs (HasDependentBackups), or the manifest under its key belongs to another
            backup (ForeignManifest); nothing was removed.
        PermanentError: it is unknown whether others need its packs; the message says why, and nothing was removed.
    """
    key = manifest_key(prefix, volume_id, backup_id)
    stands = _is_there(store, key, ExpectedBackup(volume_id=volume_id, backup_id=backup_id))
    references.read_all()
    needs = references.needs(backup_id)
    if needs.by:
        raise Conflict(
            f"Backup {backup_id} is needed by {', '.join(needs.by)}: delete those first",
            reason=Reason.HAS_DEPENDENT_BACKUPS,
        )
    if needs.unknown:
        raise needs.unknown[0]
    if stands:
        store.delete([key])
    packs = [found.key for found in list_pack_objects(store, prefix, volume_id, backup_id)]
    store.delete(packs)
    return stands + len(packs)


def _is_there(store: ObjectStore, key: str, expected: ExpectedBackup) -> bool:
    """Return whether the backup has a manifest. One that is too damaged to name its backup belongs to its key."""
    try:
        read_header(partial(store.get, key), expected, key)
    except NotFound as error:
        if error.reason != NotFound.__name__:
            raise
        return False
    except ForeignManifest as error:
        raise Conflict(
            f"{error.message} Nothing was removed; an S3 client can remove that one object", reason=error.reason
        ) from error
    except IntegrityError:
        return True
    return True
