"""What an earlier run for the same backup has left in the store: packs that need not be sent again.

While a sealed backup is in the making, its data key lies wrapped beside its packs, in an object of its own, so that a
run that resumes can read their indexes. It goes before the manifest comes, so that re-wrapping the manifest is all that
rotating a key takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cinderblock.api.layout import pack_prefix
from cinderblock.errors import IntegrityError, KeyUnavailable, ObjectNotFound, UnsupportedFormat
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.crypto.sealer import Sealer, Suite
from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.header import HEADER_BYTES, new_header, parse_header
from cinderblock.format.pack import Origin, PackTable, pack_sealer, parse_pack_name, read_pack
from cinderblock.repository.objects import KEY_NAME
from cinderblock.store.base import ObjectInfo, ObjectStore

_READERS = 8


class UnfinishedBackup:
    """The objects of an earlier run.

    Args:
        store, prefix: where they are.
        volume_id, backup_id: whose they are.
    """

    def __init__(self, store: ObjectStore, prefix: str, volume_id: str, backup_id: str) -> None:
        self._store = store
        self._prefix = pack_prefix(prefix, volume_id, backup_id)
        self._owner = (volume_id, backup_id)
        self._objects = list(store.list(self._prefix))

    def data_key(self, keys: KeyRing) -> DataKey:
        """The data key of the earlier run, or a new one if there is none to be believed; stored either way.

        Only one that is wrapped for this backup by the active key is: whoever can write to the store, and has learnt
        another backup's data key or a key that was replaced, could otherwise choose what this backup is sealed with.
        """
        key = self._prefix + KEY_NAME
        if any(info.key == key for info in self._objects):
            try:
                header = parse_header(self._store.get(key, 0, HEADER_BYTES), key)
                is_ours = header.owner == self._owner and header.key_id == keys.active
                found = header.data_key(keys) if is_ours else None
            except (IntegrityError, UnsupportedFormat, KeyUnavailable, ObjectNotFound):
                found = None
            if found is not None:
                return found
        data_key = DataKey.random()
        volume_id, backup_id = self._owner
        self._store.put(key, new_header(volume_id, backup_id, None, data_key, keys).encode())
        return data_key

    def chunks(self, data_key: DataKey | None, packs: PackTable) -> Iterator[Chunk]:
        """The chunks of all packs that can be read with this key; their packs are added to ``packs``.

        A pack that cannot be read is passed over: nothing will point into it, so it goes before the manifest comes.
        """
        candidates = list(self._packs())
        with ThreadPoolExecutor(_READERS, "leftover") as pool:
            indexes = pool.map(partial(self._read, data_key), candidates)
            for (info, attempt, number), index in zip(candidates, indexes, strict=True):
                if index:
                    pack = packs.add(Origin(self._owner[1], attempt), number, info.size)
                    yield from (chunk._replace(pack=pack) for chunk in index)

    def _packs(self) -> Iterator[tuple[ObjectInfo, str, int]]:
        for info in self._objects:
            parsed = parse_pack_name(info.key.removeprefix(self._prefix))
            if parsed:
                yield info, *parsed

    def _read(self, data_key: DataKey | None, candidate: tuple[ObjectInfo, str, int]) -> list[Chunk]:
        info = candidate[0]

        def sealer_for(suite: Suite) -> Sealer:
            name = info.key.removeprefix(self._prefix)
            sealer = pack_sealer(data_key, *self._owner, name, info.key)
            if sealer.suite is not suite:
                raise IntegrityError(f"{info.key} is sealed in another way than this backup")
            return sealer

        try:
            return read_pack(partial(self._store.get, info.key), 0, sealer_for, info.key)
        except (IntegrityError, UnsupportedFormat, ObjectNotFound):
            return []
