"""Manifests with a correct header, checksum and tag around any footer, as anybody with a bucket can make them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import zstandard
from blake3 import blake3

from cinderblock.api.pins import ExpectedBackup
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.crypto.sealer import FrameKind
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.manifest.columns import join_columns, pack_numbers
from cinderblock.format.manifest.footer import _TRAILER, MAGIC, compress_frame
from cinderblock.format.manifest.header import new_header

VOLUME_ID: Final = "0b8e0c1e-6f0c-4f0f-9d55-3f6f0a3a1c01"
BACKUP_ID: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
EXPECTED: Final = ExpectedBackup(volume_id=VOLUME_ID, backup_id=BACKUP_ID)


def document(origins: int = 1, data_keys: int = 0, digest: str = "", **more: Any) -> bytes:
    """Return the JSON document of a footer."""
    ids = [BACKUP_ID, *(f"0f8fad5b-d9cb-469f-a165-{number:012}" for number in range(1, max(origins, data_keys + 1)))]
    fields = {
        "description": {
            "backupId": BACKUP_ID,
            "volumeId": VOLUME_ID,
            "volumeMode": "Filesystem",
            "createdAt": "2026-01-02T12:00:00Z",
            "dataTimestamp": "2026-01-02T12:00:00Z",
        },
        "chunkBytes": 1 << 20,
        "counts": {},
        "contentDigest": digest or blake3(b"").hexdigest(),
        "origins": [{"backupId": ids[number], "attempt": f"{number:032x}"} for number in range(origins)],
        "dataKeys": {ids[number]: "A" * 43 + "=" for number in range(1, data_keys + 1)},
        **more,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def columns(document: bytes, packs: int = 0, origins: int = 1, sections: int = 0, size: int = 1 << 20) -> list[bytes]:
    """Return the columns of a footer."""
    return [
        document,
        pack_numbers("H", [number % origins for number in range(packs)]),
        pack_numbers("I", range(packs)),
        pack_numbers("Q", [24 << 20] * packs),
        pack_numbers("I", [size] * sections),
        pack_numbers("I", [size] * sections),
        pack_numbers("I", [1] * sections),
        digests(sections),
    ]


def digests(sections: int) -> bytes:
    """Return digests that do not compress."""
    return blake3(b"sections").digest(sections * DIGEST_BYTES)


def footer_of(
    table: Sequence[bytes], keys: KeyRing | None = None, *, body: int = 0, plaintext: bytes | None = None
) -> tuple[bytes, bytes]:
    """Return the header, and the footer's frame with the trailer.

    Args:
        table: the columns.
        keys: seals the manifest.
        body: bytes of all sections.
        plaintext: instead of the columns.
    """
    data_key = DataKey.random() if keys else None
    header = new_header(VOLUME_ID, BACKUP_ID, None, data_key, keys)
    sealer = header.sealer(data_key, "forged")
    content = join_columns(table) if plaintext is None else plaintext
    frame = sealer.seal(FrameKind.INDEX, 0, compress_frame(content))
    return header.encode(), frame + trailer(frame, len(content), body)


def trailer(frame: bytes, size: int, body: int = 0, stored: int | None = None) -> bytes:
    """Return a trailer with a correct checksum."""
    blank = _TRAILER.pack(MAGIC, body, len(frame) if stored is None else stored, size, bytes(DIGEST_BYTES))
    return blank[:-DIGEST_BYTES] + blake3(blank[:-DIGEST_BYTES]).update(frame).digest()


def bomb(size: int) -> tuple[bytes, bytes]:
    """Return header and footer of a small manifest whose footer unpacks to ``size`` zeros behind its columns."""
    header = new_header(VOLUME_ID, BACKUP_ID, None, None, None)
    sealer = header.sealer(None, "forged")
    content = join_columns(columns(document()))
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=size)
    encoded = compressor.compress(content)
    left = size - len(content)
    while left:
        encoded += compressor.compress(bytes(min(left, 1 << 20)))
        left -= min(left, 1 << 20)
    encoded += compressor.flush()
    frame = sealer.seal(FrameKind.INDEX, 0, bytes((Encoding.ZSTD,)) + encoded)
    return header.encode(), frame + trailer(frame, size)


class SparseObject:
    """A manifest whose sections are not stored, as a range reader that counts what is read."""

    def __init__(self, header: bytes, footer: bytes, body: int = 0) -> None:
        self._header = header
        self._footer = footer
        self._body = body
        self.largest_read = 0

    def read(self, start: int, length: int) -> bytes:
        """See `RangeReader`."""
        size = len(self._header) + self._body + len(self._footer)
        begin = max(size + start, 0) if start < 0 else start
        end = min(begin + length, size)
        self.largest_read = max(self.largest_read, end - begin)
        footer = len(self._header) + self._body
        if begin >= footer:
            return self._footer[begin - footer : end - footer]
        body = max(0, min(end, footer) - max(begin, len(self._header)))
        return self._header[begin:end] + bytes(body) + self._footer[: max(0, end - footer)]
