"""Which packs a mover may read that restores a backup of another namespace: those that its manifest lists.

The broker reads only the end of the manifest, which lists the packs. It verifies that as a restore does, against what
the status of the VolumeBackup records, so nobody widens the list by replacing the manifest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final

from cinderblock.broker.access import Access, GrantedManifest
from cinderblock.broker.faults import not_granted
from cinderblock.broker.keyed_locks import KeyedLocks
from cinderblock.broker.stores import OpenStore
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.errors import (
    CinderblockError,
    IntegrityError,
    KeyUnavailable,
    ObjectNotFound,
    StoreUnreachable,
    TooLarge,
    UnsupportedFormat,
)
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.format.manifest.reader import read_packs
from cinderblock.format.pack import Origin, parse_pack_name
from cinderblock.lifecycle.grant import Grant
from cinderblock.reasons import Reason
from cinderblock.store.deadline import check_current, limit_seconds
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import RetryPolicy

KEPT_SECONDS: Final = 600.0
"""How long a list counts without being read again. Nothing changes a manifest but a new wrapping of its keys."""
READ_SECONDS: Final = 60.0
"""Seconds for the few requests of one reading."""
MAX_BLOCKS: Final = 4096
"""Most blocks of a list, see `PackSet`: some 1.2 MB. A backup of 64 TiB has 2,800 if it was made in one run."""
_LISTS: Final = 64
_LISTS_OF_NAMESPACE: Final = 32
"""A namespace may have half of all movers. With fewer lists than movers, each request would read a manifest again.
Namespaces share `_LISTS`, so none of them pushes out the lists of others."""
_READS: Final = 2
"""Readings at the same time. One may take 20 MB for a moment."""
_RETRIES: Final = RetryPolicy(attempts=2, check_attempts=1)

_logger = logging.getLogger(__name__)


class GrantedPacks:
    """Reads the lists of packs, and keeps them for a short time.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lists: TtlCache[PackSet] = TtlCache(_LISTS, _LISTS_OF_NAMESPACE, clock)
        self._reading = KeyedLocks()
        self._reads = asyncio.Semaphore(_READS)

    async def complete(self, access: Access, store: OpenStore) -> Grant:
        """Return the grant of a mover with the packs that it may read.

        Raises AccessDenied (NotGranted) if the manifest is not the recorded one or cannot be read, and StoreUnreachable
        if the store gives no answer now.
        """
        manifest = access.manifest
        if manifest is None:
            return access.grant
        key = f"{store.container_url}/{manifest.key} {manifest.expected.model_dump_json()}"
        async with self._reading.hold(key):
            packs = self._lists.get(key)
            if packs is None:
                async with self._reads:
                    packs = await self._read(access, manifest, store)
                self._lists.put(key, access.pod.namespace, packs, KEPT_SECONDS)
        return replace(access.grant, lists_pack=partial(_is_listed, packs))

    async def _read(self, access: Access, manifest: GrantedManifest, store: OpenStore) -> PackSet:
        try:
            packs = await asyncio.to_thread(_read_packs, manifest, store)
        except (IntegrityError, UnsupportedFormat, KeyUnavailable, TooLarge, ObjectNotFound) as error:
            raise not_granted(f"The packs of the backup are unknown: {error.message}") from None
        except CinderblockError as error:
            # Tenants read the answer, and the administrator reads the log.
            _logger.warning(
                "Cannot read the manifest of a granted backup",
                extra={"store": access.store.cluster_store, "cause": error.message},
            )
            raise StoreUnreachable(
                f"The broker cannot read the manifest from ClusterBackupStore {access.store.cluster_store}. Its log has"
                " the cause.",
                reason=Reason.BROKER_UNAVAILABLE,
            ) from None
        if packs.blocks > MAX_BLOCKS:
            raise not_granted(f"The backup lists packs in more than {MAX_BLOCKS} blocks, too many for a grant.")
        return packs


def _read_packs(manifest: GrantedManifest, store: OpenStore) -> PackSet:
    place = store.place.model_copy(update={"create_container": False})
    opened = open_store(place, store.credentials, store.ca_file, _RETRIES)
    with closing(opened), limit_seconds(READ_SECONDS):
        read = partial(opened.get, manifest.key)
        return read_packs(read, store.keys, manifest.expected, manifest.key, check_time=check_current)


def _is_listed(packs: PackSet, backup_id: str, name: str) -> bool:
    parsed = parse_pack_name(name)
    return parsed is not None and packs.has(Origin(backup_id, parsed[0]), parsed[1])
