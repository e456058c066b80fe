"""Find out what a container keeps of a backup after its objects were deleted."""

from __future__ import annotations

from typing import Final

from cinderblock.api.layout import manifest_key, pack_prefix
from cinderblock.errors import CinderblockError
from cinderblock.lifecycle.backup.remains import NOTHING, Remains
from cinderblock.lifecycle.store.container_rules import Versioning
from cinderblock.repository.objects import is_pack_object
from cinderblock.store.base import ObjectStore
from cinderblock.store.retention import VERSIONS_PERMISSION, Retention, unknown_rule

COUNTED_VERSIONS: Final = 10_000
"""Versions of a backup that are counted at most, in ten requests: the packs of about 240 GiB."""


def find_remains(store: ObjectStore, prefix: str, volume_id: str, backup_id: str) -> Remains:
    """Return what remains of a backup that is no longer listed. This raises nothing, since nothing depends on it.

    Args:
        store, prefix: where the backup was.
        volume_id, backup_id: which backup it was.
    """
    retention = store.retention
    manifest, root = manifest_key(prefix, volume_id, backup_id), pack_prefix(prefix, volume_id, backup_id)
    try:
        found = (retention.versions(manifest, COUNTED_VERSIONS), retention.versions(root, COUNTED_VERSIONS))
    except CinderblockError as error:
        return _uncounted(retention, manifest, unknown_rule(error, VERSIONS_PERMISSION).message)
    ours = [key for key in found[0].keys if key == manifest]
    ours += [key for key in found[1].keys if is_pack_object(key, root)]
    more = any(listed.more for listed in found)
    return Remains(bool(ours) or more, len(ours), more) if ours or more else NOTHING


def _uncounted(retention: Retention, manifest: str, cause: str) -> Remains:
    """Return whether versions remain, without their number: the container, or the key of the manifest, may tell.

    AWS reports a delete marker, and versitygw 1.8 does not. So a key without one proves nothing.
    """
    try:
        if retention.versioning() is Versioning.OFF:
            return NOTHING
        return Remains(is_hidden=True, cause=cause)
    except CinderblockError:
        pass
    try:
        is_hidden = retention.inspect(manifest).is_hidden
    except CinderblockError:
        is_hidden = False
    return Remains(is_hidden=is_hidden or None, cause=cause)
