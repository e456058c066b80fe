"""How plaintext is encoded before it is sealed: zstd, or as it is where zstd does not help."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from cinderblock.datapath.seal import Buffer
from cinderblock.errors import IntegrityError

SAMPLE_BYTES = 8192
"""Compressed first to see whether the rest is worth it: 8 pieces of 1 KiB from all over the chunk."""
_PIECES = 8
_SAMPLE_FROM = 64 << 10
"""Smaller plaintexts are compressed at once."""
WORTHWHILE = 0.95
"""What zstd does not bring below this share of the plaintext is stored as it is: reading it back is then cheaper."""
_SAMPLE_HOPELESS = 0.99
"""A sample that stays above this share is taken for incompressible. Random, encrypted and already compressed data
stay above 1.0 (the frame's header costs 9 bytes); text, tables and programs are below 0.8."""


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
        size = len(plaintext)
        context = self._context()
        if size >= _SAMPLE_FROM and len(context.compress(_sample(plaintext))) > SAMPLE_BYTES * _SAMPLE_HOPELESS:
            return None
        encoded = context.compress(plaintext)
        return encoded if len(encoded) < size * WORTHWHILE else None

    def _context(self) -> zstandard.ZstdCompressor:
        context: zstandard.ZstdCompressor | None = getattr(self._local, "context", None)
        if context is None:
            context = self._local.context = zstandard.ZstdCompressor(level=self._level or 1)
        return context


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


def _sample(plaintext: memoryview) -> bytes:
    """Pieces from all over a plaintext, SAMPLE_BYTES together."""
    piece = SAMPLE_BYTES // _PIECES
    stride = len(plaintext) // _PIECES
    return b"".join(plaintext[start : start + piece] for start in range(0, stride * _PIECES, stride))
