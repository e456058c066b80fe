"""The writes of an import. Each may be repeated: the second time it changes nothing."""

from __future__ import annotations

import logging
from typing import Any

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from cinderblock.kube import kinds
from cinderblock.lifecycle.imports.presence import PresenceWrite
from cinderblock.lifecycle.imports.records import UnreadManifest, record_of
from cinderblock.lifecycle.imports.selection import Creation
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)


async def create(context: Context, store: BackupStore, creation: Creation) -> UnreadManifest | None:
    """Create a VolumeBackup. Return why this one cannot be created; None if it exists.

    An object of somebody else that has taken the name meanwhile stays unchanged. Raises refusals that concern all.
    """
    stored = creation.manifest.stored
    for name in (creation.name, *creation.further_names()):
        try:
            await context.kube.create(kinds.VOLUME_BACKUP, creation.body(store, name))
        except AlreadyExists:
            if await _is_of(context, store, creation, name):
                return None
            continue
        except InvalidInput as error:
            return UnreadManifest(stored, error.reason, error.message)
        log.info("Created VolumeBackup %s/%s for a backup in the store", store.namespace, name)
        return None
    return UnreadManifest(stored, Reason.NAME_TAKEN, f"Cannot name backup {stored.backup_id}: all its names are taken.")


async def _is_of(context: Context, store: BackupStore, creation: Creation, name: str) -> bool:
    """Return whether an existing VolumeBackup has the data of a creation. One that has just vanished has.

    One that does not parse belongs to somebody else: nobody knows which data it has.
    """
    body = await context.kube.get(kinds.VOLUME_BACKUP, name, store.namespace)
    if body is None:
        return True
    found = next(iter(parse_all(VolumeBackup, [body])), None)
    if found is None:
        return False
    record, stored = record_of(found, store), creation.manifest.stored
    return stored.key == record.manifest or (not record.manifest and record.backup_id == stored.import_id)


async def write_presence(context: Context, store: BackupStore, write: PresenceWrite) -> None:
    """Write status.manifestMissing of a VolumeBackup, and delete it if it is to be removed.

    One that has changed meanwhile is left to the next import. The status comes first: the deletion shows from
    it that no person has deleted the VolumeBackup.
    """
    backup, missing = write.backup, write.missing
    value = {**missing.to_wire()} if missing is not None else None
    metadata: dict[str, Any] = {"uid": backup.uid, "resourceVersion": backup.resource_version}
    patch = {"metadata": metadata, "status": {"manifestMissing": value}}
    try:
        written = await context.kube.merge_patch(
            kinds.VOLUME_BACKUP, backup.name, store.namespace, patch, subresource="status"
        )
        if missing is not None and missing.removing:
            version = str(written["metadata"]["resourceVersion"])
            await context.kube.delete(
                kinds.VOLUME_BACKUP, backup.name, store.namespace, uid=backup.uid, resource_version=version
            )
            log.info("Removed VolumeBackup %s/%s: the store lacks its manifest", store.namespace, backup.name)
    except (Conflict, NotFound):
        log.info("VolumeBackup %s/%s changed, and is left to the next import", store.namespace, backup.name)
