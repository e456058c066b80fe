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


def find_remains(store: ObjectStore, prefix: str, volume_id: str, backup_id: str, *, had_manifest: bool) -> Remains:
    """Return what remains of a backup that is no longer listed. This raises nothing, since nothing depends on it.

    Args:
        store, prefix: where the backup was.
        volume_id, backup_id: which backup it was.
        had_manifest: whether the backup is known to have had a manifest, so that a missing delete marker is evidence.
    """
    retention = store.retention
    manifest, root = manifest_key(prefix, volume_id, backup_id), pack_prefix(prefix, volume_id, backup_id)
    try:
        found = (retention.versions(manifest, COUNTED_VERSIONS), retention.versions(root, COUNTED_VERSIONS))
    except CinderblockError as error:
        return _uncounted(retention, manifest, unknown_rule(error, VERSIONS_PERMISSION).message, had_manifest)
    ours = [key for listed in found for key in listed.keys if key == manifest or is_pack_object(key, root)]
    more = any(listed.more for listed in found)
    return Remains(bool(ours) or more, len(ours), more) if ours or more else NOTHING


def _uncounted(retention: Retention, manifest: str, cause: str, had_manifest: bool) -> Remains:
    """Return whether versions remain, without their number: the container, or the key of the manifest, may tell."""
    try:
        if retention.versioning() is Versioning.OFF:
            return NOTHING
        return Remains(is_hidden=True, cause=cause)
    except CinderblockError:
        pass
    try:
        state = retention.inspect(manifest)
    except CinderblockError:
        return Remains(is_hidden=None, cause=cause)
    if state.is_hidden:
        return Remains(is_hidden=True, cause=cause)
    return NOTHING if had_manifest and not state.exists else Remains(is_hidden=None, cause=cause)
