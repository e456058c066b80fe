"""How plaintext is encoded before it is sealed: zstd, or as it is where zstd does not help."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from cinderblock.errors import IntegrityError
from cinderblock.format.range_reader import Buffer

MAX_COMPRESSED_RATIO = 0.95
"""What zstd does not bring below this share of the plaintext is stored as it is: reading it back is then cheaper."""
_PROBE_BYTES = 7
"""From this level on, level 1 is tried first, and the rest is spared where it does not help. Level 1 gives up on random
data at 4400 MiB/s, level 6 at 2400, level 19 at 16 (one core); that is the cheapest test, and looks at every byte."""


class Encoding(IntEnum):
    """How a plaintext is encoded. The numbers are part of the format."""

    RAW = 0
    ZSTD = 1


class Encoder:
    """Compresses plaintexts; safe for several threads, each of which gets a context of its own.

    Args:
        level: zstd level 1 to 19; None: nothing is compressed.
    """

    def __init__(self, level: int | None) -> None:
        self._level = level
        self._local = threading.local()

    def encode(self, plaintext: memoryview) -> bytes | None:
        """The plaintext as one zstd frame with its size in the frame's header; None where that does not help."""
        if self._level is None:
            return None
        limit = len(plaintext) * MAX_COMPRESSED_RATIO
        if self._level >= _PROBE_BYTES and len(self._context(1).compress(plaintext)) >= limit:
            return None
        encoded = self._context(self._level).compress(plaintext)
        return encoded if len(encoded) < limit else None

    def _context(self, level: int) -> zstandard.ZstdCompressor:
        """This thread's context for a level."""
        contexts: dict[int, zstandard.ZstdCompressor] | None = getattr(self._local, "contexts", None)
        if contexts is None:
            contexts = self._local.contexts = {}
        if level not in contexts:
            contexts[level] = zstandard.ZstdCompressor(level=level)
        return contexts[level]


_decoders = threading.local()


def decode(encoding: int, encoded: Buffer, size: int, label: str) -> Buffer:
    """The plaintext of ``size`` bytes. Raises IntegrityError naming ``label``; never makes more than ``size`` bytes."""
    if encoding == Encoding.RAW:
        plaintext = encoded
    elif encoding == Encoding.ZSTD:
        plaintext = _decompress(encoded, size, label)
    else:
        raise IntegrityError(f"{label}: encoding {encoding} is unknown")
    if len(plaintext) != size:
        raise IntegrityError(f"{label}: {len(plaintext)} bytes where {size} belong")
    return plaintext


def _decompress(encoded: Buffer, size: int, label: str) -> bytes:
    """One zstd frame that says of itself that it holds ``size`` bytes."""
    decoder: zstandard.ZstdDecompressor | None = getattr(_decoders, "decoder", None)
    if decoder is None:
        decoder = _decoders.decoder = zstandard.ZstdDecompressor()
    try:
        if zstandard.frame_content_size(encoded) != size:
            raise IntegrityError(f"{label}: the compressed frame does not hold {size} bytes")
        return decoder.decompress(encoded, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise IntegrityError(f"{label}: the compressed frame is damaged") from None
