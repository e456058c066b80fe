"""Read chunks from a store in large ranges, and verify every byte before it is used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from cinderblock.api.layout import pack_prefix
from cinderblock.errors import IntegrityError, ObjectNotFound
from cinderblock.format.compression import decode
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.sealer import Sealer
from cinderblock.format.entries import Chunk
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import PackTable, open_chunk, pack_sealer
from cinderblock.format.range_reader import Buffer
from cinderblock.repository.read_ahead import ReadAhead
from cinderblock.store.base import ObjectStore

RANGE_BYTES = 8 << 20
"""Approximate limit of one read: large enough to hide the latency of a request, small enough that several reads fit
into memory."""
COALESCE_BYTES = 128 << 10
"""Unneeded bytes that are fetched to save a request: what a network of 1 Gbit/s carries in 1 ms."""

_NOTHING = bytearray()

Fetched = tuple[Chunk, Buffer]
"""A chunk and its plaintext, verified."""


class ChunkReader:
    """Read and verify the chunks of a manifest. Several threads may use it.

    Args:
        store, prefix: where the packs are.
        manifest: lists the packs, and holds their keys.
    """

    def __init__(self, store: ObjectStore, prefix: str, manifest: ManifestReader) -> None:
        self._store = store
        self._prefix = prefix
        self._volume_id = manifest.header.volume_id
        self._packs: PackTable = manifest.packs
        self._data_keys: Mapping[str, DataKey] = manifest.data_keys()
        self._lock = threading.Lock()
        self._bytes_fetched = 0
        self._ahead = ReadAhead()
        self._local = threading.local()

    @property
    def bytes_fetched(self) -> int:
        """Bytes of packs that were read."""
        return self._bytes_fetched

    def pack_key(self, pack: int) -> str:
        """Return the key of a pack in the store."""
        prefix = pack_prefix(self._prefix, self._volume_id, self._packs.origin(pack).backup_id)
        return prefix + self._packs.name(pack)

    def fetch(self, chunks: Iterable[Chunk]) -> Iterator[Fetched]:
        """Return the plaintexts of chunks in order of their place in the packs, each verified by its tag and its
        BLAKE3.

        A plaintext is only valid until the next one is requested. This holds at most one range of RANGE_BYTES and two
        chunks at a time, and for all threads together what `read_ahead` keeps. Raises IntegrityError naming the pack,
        and what the store raises.
        """
        for run in group_chunks(chunks):
            yield from self._fetch_run(run)

    def sealer(self, pack: int) -> Sealer:
        """Return the sealer that opens the frames of a pack."""
        backup_id = self._packs.origin(pack).backup_id
        data_key = self._data_keys.get(backup_id)
        return pack_sealer(data_key, self._volume_id, backup_id, self._packs.name(pack), self.pack_key(pack))

    def _fetch_run(self, run: list[Chunk]) -> Iterator[Fetched]:
        sealer = self.sealer(run[0].pack)
        end = run[-1].offset + run[-1].stored
        read = partial(self._read, sealer.label)
        data = self._ahead.get(sealer.label, run[0].offset, end, self._packs.size(run[0].pack), read)
        scratch = self._scratch(max(chunk.stored for chunk in run))
        for chunk in run:
            start = chunk.offset - run[0].offset
            yield chunk, verify_chunk(sealer, chunk, data[start : start + chunk.stored], scratch)

    def _scratch(self, size: int) -> bytearray:
        """Return this thread's buffer for decrypted frames."""
        scratch: bytearray = getattr(self._local, "scratch", _NOTHING)
        if len(scratch) < size:
            scratch = self._local.scratch = bytearray(size)
        return scratch

    def _read(self, pack: str, start: int, length: int) -> bytes:
        """Read bytes of a pack. Raises IntegrityError naming a pack that is missing, and what the store raises."""
        try:
            data = self._store.get(pack, start, length)
        except ObjectNotFound as error:
            raise missing(pack) from error
        with self._lock:
            self._bytes_fetched += len(data)
        return data


def missing(pack: str) -> IntegrityError:
    """Return the error for a pack that a manifest lists and the store does not have."""
    return IntegrityError(f"Cannot read the backup: {pack} is missing, and its data is lost.")


def verify_chunk(sealer: Sealer, chunk: Chunk, frame: Buffer, scratch: bytearray) -> Buffer:
    """Return the plaintext of a chunk, verified by its tag and its BLAKE3. Raises IntegrityError naming the pack.

    ``scratch`` is memory for the plaintext, at least as long as the frame.
    """
    encoded = open_chunk(sealer, chunk, frame, scratch)
    plaintext = decode(chunk.encoding, encoded, chunk.size, sealer.label)
    if digest_of(plaintext) != chunk.digest:
        raise IntegrityError(
            f"Cannot read chunk {chunk.number} of {sealer.label}: its content is not what was written."
        )
    return plaintext


def group_chunks(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Group chunks that are close together in one pack into ranges of about RANGE_BYTES; each chunk once."""
    run: list[Chunk] = []
    for chunk in sorted(set(chunks), key=lambda chunk: (chunk.pack, chunk.offset)):
        if run and not _fits(run, chunk):
            yield run
            run = []
        run.append(chunk)
    if run:
        yield run


def _fits(run: list[Chunk], chunk: Chunk) -> bool:
    last = run[-1]
    return (
        chunk.pack == last.pack
        and chunk.offset - (last.offset + last.stored) <= COALESCE_BYTES
        and chunk.offset + chunk.stored - run[0].offset <= RANGE_BYTES
    )
