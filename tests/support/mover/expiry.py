"""Expire backups of a volume: delete their manifests, and then all packs that no remaining manifest lists."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from cinderblock.api.layout import manifest_key, pack_prefix, pack_root
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.objects import list_manifests
from cinderblock.store.base import ObjectStore


def expire(
    store: ObjectStore, prefix: str, volume_id: str, backup_ids: Collection[str], keys: KeyRing | None = None
) -> None:
    """Remove backups in any order, also parents of others. No mover may work for the volume."""
    store.delete([manifest_key(prefix, volume_id, backup_id) for backup_id in backup_ids])
    needed: set[str] = set()
    for found in list_manifests(store, prefix, volume_id):
        packs = ManifestReader(partial(store.get, found.key), keys, found.expected(), found.key).packs
        for pack in range(len(packs)):
            needed.add(pack_prefix(prefix, volume_id, packs.origin(pack).backup_id) + packs.name(pack))
    listed = [info.key for info in store.list(f"{pack_root(prefix)}{volume_id}/")]
    store.delete([key for key in listed if key not in needed])
