"""Encoding of plaintext before it is sealed: zstd, or unchanged where zstd does not help."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from cinderblock.errors import IntegrityError
from cinderblock.format.range_reader import Buffer

MAX_COMPRESSED_RATIO = 0.95
"""Plaintext that zstd cannot reduce below this ratio is stored unchanged, which makes reading cheaper."""
_MIN_PROBED_LEVEL = 7
"""From this level on, level 1 is tried first, and the level itself only if level 1 helps. Level 1 gives up on random
data at 4400 MiB/s, level 6 at 2400, level 19 at 16 (one core). It is the cheapest test that reads every byte."""


class Encoding(IntEnum):
    """Encoding of a plaintext. The numbers are part of the format."""

    RAW = 0
    ZSTD = 1


class Encoder:
    """Compresses plaintexts. Several threads may use it; each gets its own context.

    Args:
        level: zstd level 1 to 19; None disables compression.
    """

    def __init__(self, level: int | None) -> None:
        self._level = level
        self._local = threading.local()

    def encode(self, plaintext: memoryview) -> bytes | None:
        """Return the plaintext as one zstd frame with its size in the frame header, or None if that does not help."""
        if self._level is None:
            return None
        limit = len(plaintext) * MAX_COMPRESSED_RATIO
        if self._level >= _MIN_PROBED_LEVEL and len(self._context(1).compress(plaintext)) >= limit:
            return None
        encoded = self._context(self._level).compress(plaintext)
        return encoded if len(encoded) < limit else None

    def _context(self, level: int) -> zstandard.ZstdCompressor:
        """Return this thread's context for a level."""
        contexts: dict[int, zstandard.ZstdCompressor] | None = getattr(self._local, "contexts", None)
        if contexts is None:
            contexts = self._local.contexts = {}
        if level not in contexts:
            contexts[level] = zstandard.ZstdCompressor(level=level)
        return contexts[level]


_decoders = threading.local()


def decode(encoding: int, encoded: Buffer, size: int, label: str) -> Buffer:
    """Decode a plaintext of ``size`` bytes, and never produce more. Raises IntegrityError naming ``label``."""
    if encoding == Encoding.RAW:
        plaintext = encoded
    elif encoding == Encoding.ZSTD:
        plaintext = _decompress(encoded, size, label)
    else:
        raise IntegrityError(f"{label}: unknown encoding {encoding}")
    if len(plaintext) != size:
        raise IntegrityError(f"{label}: found {len(plaintext)} bytes, expected {size}")
    return plaintext


def _decompress(encoded: Buffer, size: int, label: str) -> bytes:
    """Decompress one zstd frame whose header must state ``size`` bytes."""
    decoder: zstandard.ZstdDecompressor | None = getattr(_decoders, "decoder", None)
    if decoder is None:
        decoder = _decoders.decoder = zstandard.ZstdDecompressor()
    try:
        if zstandard.frame_content_size(encoded) != size:
            raise IntegrityError(f"{label}: the compressed frame does not hold {size} bytes")
        return decoder.decompress(encoded, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise IntegrityError(f"{label}: the compressed frame is damaged") from None
