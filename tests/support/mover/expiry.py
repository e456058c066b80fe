"""Expire backups of a volume as the operator does."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository.expiry import Expiry
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.references import References
from cinderblock.store.base import ObjectStore


def expire(
    store: ObjectStore,
    prefix: str,
    volume_id: str,
    backup_ids: Collection[str],
    keys: KeyRing | None = None,
    *,
    known: VolumeReferences | None = None,
) -> None:
    """Remove backups in any order, also parents of others. Raises the first error of a backup.

    ``known`` are references from earlier calls, as the operator remembers them.
    """
    remembered = known if known is not None else VolumeReferences()

    def begin() -> References:
        return References(store, prefix, volume_id, keys, remembered)

    run = Expiry(store, prefix, volume_id, backup_ids, begin, clock=lambda: datetime.now(UTC))
    for _ in run.steps():
        pass
    for error in run.errors.values():
        raise error
