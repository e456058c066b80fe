"""Check one pack: its size, its index, and the tag and the hash of every chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from cinderblock.errors import IntegrityError
from cinderblock.format.crypto.sealer import TAG_BYTES, Sealer, Suite
from cinderblock.format.entries import Chunk
from cinderblock.format.pack import packed_bytes, read_pack
from cinderblock.format.range_reader import RangeReader, read_exactly
from cinderblock.repository.chunk_reader import group_chunks, verify_chunk
from cinderblock.repository.verify.recorded_chunks import fingerprint
from cinderblock.store.base import ObjectStore, slice_body

WHOLE_BYTES: Final = 40 << 20
"""Bytes of the largest pack that is read in one request. Packs have 24 MiB and one chunk, of at most 8 MiB."""
_CHUNK_BYTES: Final = 8 << 20
"""Bytes of the largest chunk that the format allows."""


class PackChecker:
    """Checks packs. Several threads may use it; each holds one pack and one chunk."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._local = threading.local()

    def check(self, sealer: Sealer, size: int, recorded: frozenset[int] = frozenset()) -> None:
        """Read a pack and check all its bytes.

        Args:
            sealer: of the pack; its label is the key of the pack.
            size: bytes that the pack must have.
            recorded: fingerprints of chunks that the pack must contain.

        Raises IntegrityError naming the pack, UnsupportedFormat, ObjectNotFound, and what the store raises.
        """
        key = sealer.label
        if size <= WHOLE_BYTES:
            self.check_body(self._store.get(key, 0, size + 1), sealer, size, recorded)
            return
        if len(self._store.get(key, size - 1, 2)) != 1:
            raise _wrong_size(key, size)
        read = partial(self._store.get, key)
        self._check_content(
            read, lambda start, end: memoryview(read_exactly(read, start, end - start, key)), sealer, size, recorded
        )

    def check_body(self, body: bytes, sealer: Sealer, size: int, recorded: frozenset[int] = frozenset()) -> None:
        """Check the bytes of a pack that the caller has read. Raises what `check` raises."""
        if len(body) != size:
            raise _wrong_size(sealer.label, size)
        view = memoryview(body)
        self._check_content(partial(slice_body, body), lambda start, end: view[start:end], sealer, size, recorded)

    def _check_content(
        self,
        read: RangeReader,
        view: Callable[[int, int], memoryview],
        sealer: Sealer,
        size: int,
        recorded: frozenset[int],
    ) -> None:
        """Check index and chunks. ``view`` returns the bytes of the pack between two offsets."""
        chunks = read_pack(read, 0, partial(_same_suite, sealer), sealer.label)
        _check_places(chunks, size, sealer.label)
        if not recorded.issubset(map(fingerprint, chunks)):
            raise IntegrityError(
                f"Cannot verify {sealer.label}: it does not contain the chunks that the manifest records. Somebody has"
                " replaced it."
            )
        scratch = self._scratch(max((chunk.stored for chunk in chunks), default=0))
        for run in group_chunks(chunks):
            start = run[0].offset
            data = view(start, run[-1].offset + run[-1].stored)
            for chunk in run:
                begin = chunk.offset - start
                verify_chunk(sealer, chunk, data[begin : begin + chunk.stored], scratch)

    def _scratch(self, size: int) -> bytearray:
        """Return this thread's buffer for decrypted frames."""
        scratch: bytearray | None = getattr(self._local, "scratch", None)
        if scratch is None or len(scratch) < size:
            scratch = self._local.scratch = bytearray(size)
        return scratch


def _wrong_size(key: str, size: int) -> IntegrityError:
    return IntegrityError(f"Cannot verify {key}: it does not have the {size} bytes that were written.")


def _same_suite(sealer: Sealer, suite: Suite) -> Sealer:
    if suite is not sealer.suite:
        raise IntegrityError(f"Cannot verify {sealer.label}: it is not sealed as the manifest says.")
    return sealer


def _check_places(chunks: Sequence[Chunk], size: int, label: str) -> None:
    """Check that the chunks fill the pack, and are no larger than the format allows."""
    if packed_bytes(chunks) != size:
        raise IntegrityError(f"Cannot verify {label}: its chunks do not add up to its {size} bytes.")
    for chunk in chunks:
        if not TAG_BYTES <= chunk.stored <= chunk.size + TAG_BYTES or chunk.size > _CHUNK_BYTES:
            raise IntegrityError(f"Cannot verify {label}: chunk {chunk.number} has an impossible size.")
