"""Reuse the packs that an earlier run for the same backup has uploaded.

While a sealed backup is unfinished, an object next to its packs holds its wrapped data key, so that a run that resumes
can read the indexes of the packs. This object is deleted before the manifest is written, so that a key rotation only
needs to rewrap manifests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from cinderblock.api.layout import pack_prefix
from cinderblock.errors import IntegrityError, KeyUnavailable, ObjectNotFound, UnsupportedFormat
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import Sealer, Suite
from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.header import HEADER_BYTES, new_header, parse_header
from cinderblock.format.pack import Origin, PackTable, pack_sealer, parse_pack_name, read_pack
from cinderblock.repository.objects import KEY_NAME, LISTING_SECONDS, list_pack_objects
from cinderblock.store.base import ObjectInfo, ObjectStore
from cinderblock.store.deadline import limit_seconds

_CONCURRENT_READS = 8
_BATCH_PACKS = 256
"""Packs that are listed before their indexes are read."""
_Candidate = tuple[ObjectInfo, str, int]
"""A pack, with the attempt and the number in its name."""


class UnfinishedBackup:
    """The objects of an earlier run for a backup.

    Args:
        store, prefix: where they are.
        volume_id, backup_id: the backup that they belong to.
    """

    def __init__(self, store: ObjectStore, prefix: str, volume_id: str, backup_id: str) -> None:
        self._store = store
        self._list = partial(list_pack_objects, store, prefix, volume_id, backup_id)
        self._prefix = pack_prefix(prefix, volume_id, backup_id)
        self._owner = (volume_id, backup_id)

    def data_key(self, keys: Keys) -> DataKey:
        """Return the data key of the earlier run, or a new one, which is stored.

        The earlier key must be wrapped for this backup by the active key. Otherwise an attacker who can write to the
        store, and who knows another backup's data key or a replaced key, could choose the key of this backup.
        """
        key = self._prefix + KEY_NAME
        try:
            header = parse_header(self._store.get(key, 0, HEADER_BYTES), key)
            is_ours = header.owner == self._owner and header.key_id == keys.active
            found = header.data_key(keys) if is_ours else None
        except (IntegrityError, UnsupportedFormat, KeyUnavailable, ObjectNotFound):
            found = None
        if found is not None:
            return found
        data_key = keys.new_data_key()
        volume_id, backup_id = self._owner
        self._store.put(key, new_header(volume_id, backup_id, None, data_key, keys).encode())
        return data_key

    def chunks(self, data_key: DataKey | None, packs: PackTable) -> Iterator[Chunk]:
        """Return the chunks of all packs that can be read with this key, and add these packs to ``packs``.

        A pack that cannot be read is skipped. The manifest will not point into it, so it is deleted before the commit.
        """
        with ThreadPoolExecutor(_CONCURRENT_READS, "leftover") as pool:
            for batch in self._batches():
                indexes = pool.map(partial(self._read, data_key), batch)
                for (info, attempt, number), index in zip(batch, indexes, strict=True):
                    if index:
                        pack = packs.add(Origin(self._owner[1], attempt), number, info.size)
                        yield from (chunk._replace(pack=pack) for chunk in index)

    def _batches(self) -> Iterator[list[_Candidate]]:
        """Yield the listed packs in batches, so that a listing of millions fills no memory."""
        found, left = self._packs(), LISTING_SECONDS
        while True:
            began = time.monotonic()
            # Only listing counts: the deadline must not reach the consumer of this generator.
            with limit_seconds(left):
                batch = list(islice(found, _BATCH_PACKS))
            left -= time.monotonic() - began
            if not batch:
                return
            yield batch

    def _packs(self) -> Iterator[_Candidate]:
        for info in self._list():
            parsed = parse_pack_name(info.key.removeprefix(self._prefix))
            if parsed:
                yield info, *parsed

    def _read(self, data_key: DataKey | None, candidate: _Candidate) -> list[Chunk]:
        info = candidate[0]

        def sealer_for(suite: Suite) -> Sealer:
            name = info.key.removeprefix(self._prefix)
            sealer = pack_sealer(data_key, *self._owner, name, info.key)
            if sealer.suite is not suite:
                raise IntegrityError(f"Cannot reuse {info.key}: it is sealed differently from this backup.")
            return sealer

        try:
            return read_pack(partial(self._store.get, info.key), 0, sealer_for, info.key)
        except (IntegrityError, UnsupportedFormat, ObjectNotFound):
            return []
