"""Seal chunks into packs, and upload several packs at a time."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from cinderblock.api.layout import pack_prefix
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.entries import Chunk
from cinderblock.format.pack import (
    NOT_LOCKED,
    Origin,
    PackBuilder,
    PackTable,
    buffer_bytes,
    lock_hours,
    pack_name,
    pack_sealer,
)
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectLock, ObjectStore

UPLOADS = 3
"""Packs that are uploaded at once: with 24 MiB each, enough for a network of 10 Gbit/s at 50 ms for each request."""


@dataclass(frozen=True, slots=True)
class PackOwner:
    """The backup and run that packs belong to.

    Attributes:
        prefix: of the store.
        volume_id, backup_id: UIDs.
        attempt: the id of this run (`format.pack.new_attempt`).
        data_key: seals the packs; None: unsealed.
        lock: of each pack; None: none.
    """

    prefix: str
    volume_id: str
    backup_id: str
    attempt: str
    data_key: DataKey | None
    lock: ObjectLock | None = None

    def key(self, name: str) -> str:
        """Return the key of a pack of this backup."""
        return pack_prefix(self.prefix, self.volume_id, self.backup_id) + name


class PackUploader:
    """Seal chunks into packs and upload them. Only one thread may use it.

    In flight are at most ``(UPLOADS + 1) * buffer_bytes(chunk_bytes)`` bytes, all in buffers that are reused.
    """

    def __init__(self, store: ObjectStore, owner: PackOwner, packs: PackTable, chunk_bytes: int) -> None:
        self._store = store
        self._owner = owner
        self._packs = packs
        self._buffer_bytes = buffer_bytes(chunk_bytes)
        self._free: list[bytearray] = []
        self._buffers = 0
        self._sending: deque[tuple[Future[None], bytearray]] = deque()
        self._pool = ThreadPoolExecutor(UPLOADS, "upload")
        self._builder: PackBuilder | None = None
        self._buffer = bytearray()
        self._pack = -1
        self._number = 0
        self._lock = threading.Lock()
        self.bytes_sent = 0

    def add(self, encoded_chunk: EncodedChunk) -> Chunk:
        """Add a chunk to a pack, and return its place. Raises what an earlier upload has raised."""
        builder = self._builder or self._begin()
        chunk = builder.add(
            self._pack, encoded_chunk.digest, encoded_chunk.size, encoded_chunk.encoding, encoded_chunk.encoded
        )
        if builder.is_full:
            self._send()
        return chunk

    def finish(self) -> None:
        """Upload the last pack, and wait until everything is stored. Raises what an upload has raised."""
        if self._builder is not None:
            self._send()
        while self._sending:
            self._wait_for_oldest()
        self._free.clear()

    def close(self) -> None:
        """Wait for running uploads, and start no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def _is_exhausted(self) -> bool:
        return not self._free and self._buffers > UPLOADS

    def _begin(self) -> PackBuilder:
        """Begin the next pack in a free buffer."""
        while self._sending and (self._sending[0][0].done() or self._is_exhausted):
            self._wait_for_oldest()
        if self._free:
            self._buffer = self._free.pop()
        else:
            self._buffer = bytearray(self._buffer_bytes)
            self._buffers += 1
        owner, name = self._owner, pack_name(self._owner.attempt, self._number)
        locked_until = lock_hours(owner.lock.until) if owner.lock is not None else NOT_LOCKED
        self._pack = self._packs.add(Origin(owner.backup_id, owner.attempt), self._number, 0, locked_until)
        sealer = pack_sealer(owner.data_key, owner.volume_id, owner.backup_id, name, owner.key(name))
        self._builder = PackBuilder(self._buffer, sealer)
        return self._builder

    def _send(self) -> None:
        assert self._builder is not None
        body = self._builder.finish()
        self._packs.set_size(self._pack, len(body))
        key = self._owner.key(pack_name(self._owner.attempt, self._number))
        self._sending.append((self._pool.submit(self._put, key, body), self._buffer))
        self._number += 1
        self._builder = None

    def _put(self, key: str, body: memoryview) -> None:
        self._store.put(key, body, self._owner.lock)
        with self._lock:
            self.bytes_sent += len(body)

    def _wait_for_oldest(self) -> None:
        future, buffer = self._sending.popleft()
        future.result()
        self._free.append(buffer)


@dataclass(slots=True)
class EncodedChunk:
    """A chunk after a worker: known already, or encoded and not stored yet.

    Attributes:
        digest: BLAKE3 of the plaintext.
        size: bytes of the plaintext.
        known: its place, if it is stored already.
        encoding, encoded: otherwise the bytes to store; they may be in the worker's buffer.
    """

    digest: bytes
    size: int
    known: Chunk | None = None
    encoding: Encoding = Encoding.RAW
    encoded: Buffer = b""
