"""BLAKE3 digests with 256 bits of output, which identify chunks and sections."""

from __future__ import annotations

from blake3 import blake3

from cinderblock.format.range_reader import Buffer

DIGEST_BYTES = 32


def digest_of(data: Buffer) -> bytes:
    """Return the BLAKE3 digest of ``data``, 32 bytes. Releases the interpreter's lock for more than 2 KiB."""
    return blake3(data).digest()
