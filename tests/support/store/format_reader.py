"""A reader of stored backups that was written from docs/reference/format.md alone, without code of Cinderblock.

    reader = FormatReader(get, "prefix/", {"key id": b"32 bytes"})
    for entry in reader.entries("prefix/backups/<volume id>/<backup id>.manifest"): ...

It asserts every check that the page demands, holds everything in memory, and is slow.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT_VERSION = 1


@dataclass
class ReadEntry:
    """An entry with its content."""

    path: bytes
    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    target: bytes
    rdev: int
    xattrs: list[tuple[bytes, bytes]]
    content: bytearray = field(default_factory=bytearray)


def H(data: bytes) -> bytes:  # noqa: N802 - as the page calls it
    return blake3(data).digest()


def hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, info).derive(secret)


def text(value: str) -> bytes:
    return struct.pack("<H", len(value.encode())) + value.encode()


def identity(*names: str) -> bytes:
    return b"cinderblock" + struct.pack("<H", FORMAT_VERSION) + b"".join(map(text, names))


def open_frame(key: bytes | None, who: bytes, slot: int, number: int, frame: bytes) -> bytes:
    """Return the plaintext of a frame; ``key`` is the key of the object."""
    place = struct.pack("<IQ", slot, number)
    if key is None:
        assert blake3(who + place + frame[:-16]).digest(16) == frame[-16:]
        return frame[:-16]
    return AESGCM(key).decrypt(place, frame, who + place)


def open_object(data_key: bytes | None, who: bytes) -> Callable[[int, int, bytes], bytes]:
    """Return the cipher that opens the frames of the object with this identity."""
    key = None if data_key is None else hkdf(data_key, who)
    return lambda slot, number, frame: open_frame(key, who, slot, number, frame)


def decode(encoding: int, data: bytes, size: int) -> bytes:
    assert encoding in (0, 1)
    if encoding == 1:
        assert zstandard.frame_content_size(data) == size
        data = zstandard.ZstdDecompressor().decompress(data)
    assert len(data) == size
    return data


def columns(table: bytes) -> list[bytes]:
    found, position = [], 0
    while position < len(table):
        (length,) = struct.unpack_from("<I", table, position)
        found.append(table[position + 4 : position + 4 + length])
        position += 4 + length
    return found


def numbers(code: str, column: bytes) -> list[int]:
    return [value for (value,) in struct.iter_unpack("<" + code, column)]


def digests(column: bytes) -> list[bytes]:
    return [column[start : start + 32] for start in range(0, len(column), 32)]


@dataclass
class Header:
    length: int
    suite: int
    salt: bytes
    volume: str
    backup: str
    parent: str
    key_id: str = ""
    wrap_salt: bytes = b""
    wrapped: bytes = b""


def parse_header(data: bytes) -> Header:
    magic, length, checksum = struct.unpack_from("<8sI32s", data)
    assert magic == b"CBLKMANI"
    assert H(data[44:length]) == checksum
    version, suite = struct.unpack_from("<HB", data, 44)
    assert version == FORMAT_VERSION
    position = 47 + 16
    texts = []
    for _ in range(3 if suite == 0 else 4):
        (size,) = struct.unpack_from("<H", data, position)
        texts.append(data[position + 2 : position + 2 + size].decode())
        position += 2 + size
    header = Header(length, suite, data[47:63], volume=texts[0], backup=texts[1], parent=texts[2])
    if suite == 1:
        header.key_id = texts[3]
        header.wrap_salt, header.wrapped = data[position : position + 32], data[position + 32 : position + 80]
        position += 80
    assert not any(data[position:length])
    return header


def read_index(pack: bytes, data_key: bytes | None, volume: str, backup: str, name: str) -> list[tuple[bytes, int]]:
    """Return digest and size of each chunk from the index of a pack, and check the places of the frames."""
    trailer = pack[-52:]
    magic, version, suite, zero, count, stored, checksum = struct.unpack("<8sHBBII32s", trailer)
    assert (magic, version, zero) == (b"CBLKPACK", FORMAT_VERSION, 0)
    assert suite == (data_key is not None)
    frame = pack[-52 - stored : -52]
    assert H(trailer[:-32] + frame) == checksum
    opener = open_object(data_key, identity("pack", volume, backup, name))
    found, position = [], 0
    for number, (digest, length, size, encoding) in enumerate(struct.iter_unpack("<32sIIB", opener(1, 0, frame))):
        assert H(decode(encoding, opener(0, number, pack[position : position + length]), size)) == digest
        found.append((digest, size))
        position += length
    assert len(found) == count
    assert position + stored + 52 == len(pack)
    return found


class FormatReader:
    """Read backups through ``get(key)``, which returns whole objects."""

    def __init__(self, get: Callable[[str], bytes], prefix: str, keys: dict[str, bytes]) -> None:
        self._get = get
        self._prefix = prefix
        self._keys = keys
        self.summary: dict[str, Any] = {}
        self.used: list[int] = []

    def unfinished(self, volume: str, backup: str, names: list[str]) -> dict[str, list[tuple[bytes, int]]]:
        """Return digest and size of each chunk by pack, for a sealed backup without a manifest."""
        place = f"{self._prefix}packs/{volume}/{backup}/"
        header = parse_header(self._get(f"{place}data-key"))
        assert (header.volume, header.backup, header.parent) == (volume, backup, "")
        data_key = self._unwrap(header)
        return {name: read_index(self._get(place + name), data_key, volume, backup, name) for name in names}

    def entries(self, manifest: str) -> list[ReadEntry]:
        """Return every entry with its content."""
        data = self._get(manifest)
        header = parse_header(data)
        assert manifest == f"{self._prefix}backups/{header.volume}/{header.backup}.manifest"
        data_key = self._unwrap(header)
        who = identity("manifest", header.volume, header.backup, header.parent, header.salt.hex())
        opener = open_object(data_key, who)
        sections = self._read_footer(data, header, opener, data_key)
        found: list[ReadEntry] = []
        for number, (start, length, size, digest) in enumerate(sections):
            opened = opener(0, number, data[start : start + length])
            table = decode(opened[0], opened[1:], size)
            assert H(table) == digest
            for entry in self._read_section(columns(table)):
                if found and found[-1].path == entry.path:
                    both = int.from_bytes(found[-1].content, "little") | int.from_bytes(entry.content, "little")
                    found[-1].content = entry.content = bytearray(both.to_bytes(entry.size, "little"))
                    assert found[-1] == entry
                else:
                    found.append(entry)
        assert [entry.path.split(b"/") for entry in found] == sorted(entry.path.split(b"/") for entry in found)
        return found

    def _unwrap(self, header: Header) -> bytes | None:
        if header.suite == 0:
            return None
        who = identity("key", header.volume, header.backup, header.key_id)
        return open_frame(hkdf(self._keys[header.key_id], who + header.wrap_salt), who, 2, 0, header.wrapped)

    def _read_footer(
        self, data: bytes, header: Header, opener: Callable[[int, int, bytes], bytes], data_key: bytes | None
    ) -> list[tuple[int, int, int, bytes]]:
        trailer = data[-64:]
        magic, body, stored, size, checksum = struct.unpack("<8sQQQ32s", trailer)
        frame = data[-64 - stored : -64]
        assert magic == b"CBLKMEND"
        assert H(trailer[:-32] + frame) == checksum
        assert header.length + body + stored + 64 == len(data)
        opened = opener(1, 0, frame)
        table = columns(decode(opened[0], opened[1:], size))
        self.summary = json.loads(table[0])
        description = self.summary["description"]
        assert (description["backupId"], description["volumeId"]) == (header.backup, header.volume)
        assert (self.summary.get("parentId") or "") == header.parent
        assert H(table[7]).hex() == self.summary["contentDigest"]
        keys = {backup: base64.b64decode(key) for backup, key in self.summary["dataKeys"].items()}
        if data_key is not None:
            keys[header.backup] = data_key
        self._read_packs(table, header.volume, keys)
        lengths, sizes = numbers("I", table[4]), numbers("I", table[5])
        assert sum(lengths) == body
        starts = [header.length + sum(lengths[:number]) for number in range(len(lengths))]
        return list(zip(starts, lengths, sizes, digests(table[7]), strict=True))

    def _read_packs(self, table: list[bytes], volume: str, keys: dict[str, bytes]) -> None:
        self._packs = []
        self.used = [*numbers("Q", table[8])] if len(table) > 8 else []
        assert len(self.used) in {0, len(table[1]) // 2}
        for origin, number, size in zip(
            numbers("H", table[1]), numbers("I", table[2]), numbers("Q", table[3]), strict=True
        ):
            backup, attempt = (self.summary["origins"][origin][name] for name in ("backupId", "attempt"))
            name = f"{attempt}-{number:06d}"
            data = self._get(f"{self._prefix}packs/{volume}/{backup}/{name}")
            assert len(data) == size
            self._packs.append((data, open_object(keys.get(backup), identity("pack", volume, backup, name))))

    def _read_chunks(self, table: list[bytes]) -> list[bytes]:
        found = []
        rows = zip(*(numbers("I", column) for column in table[:5]), table[5], digests(table[6]), strict=True)
        for pack, number, offset, stored, size, encoding, digest in rows:
            data, opener = self._packs[pack]
            chunk = decode(encoding, opener(0, number, data[offset : offset + stored]), size)
            assert H(chunk) == digest
            found.append(chunk)
        return found

    def _read_section(self, table: list[bytes]) -> Iterator[ReadEntry]:
        chunks, kinds = self._read_chunks(table), list(table[8])
        targets = iter(table[18].split(b"\0"))
        rdevs = iter(numbers("Q", table[19]))
        xattrs = self._read_xattrs(table)
        extents = self._read_extents(table, chunks)
        mtimes, ctimes = (
            [s * 10**9 + n for s, n in zip(numbers("q", seconds), numbers("I", nanoseconds), strict=True)]
            for seconds, nanoseconds in (table[12:14], table[14:16])
        )
        inodes = numbers("Q", table[16])
        owners = list(zip(numbers("I", table[10]), numbers("I", table[11]), strict=True))
        modes, sizes, counts = numbers("H", table[9]), numbers("Q", table[17]), numbers("I", table[24])
        for row, path in enumerate(table[7].split(b"\0")):
            entry = ReadEntry(
                path,
                kinds[row],
                modes[row],
                owners[row],
                mtimes[row],
                ctimes[row],
                inodes[row],
                sizes[row],
                next(targets) if kinds[row] in (3, 4) else b"",
                next(rdevs) if kinds[row] in (6, 7) else 0,
                xattrs.get(row, []),
                bytearray(sizes[row]),
            )
            for _ in range(counts[row]):
                offset, content = next(extents)
                entry.content[offset : offset + len(content)] = content
            assert len(entry.content) == entry.size
            yield entry

    def _read_xattrs(self, table: list[bytes]) -> dict[int, list[tuple[bytes, bytes]]]:
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        position = 0
        for row, name, value in zip(*(numbers("I", column) for column in table[20:23]), strict=True):
            middle, end = position + name, position + name + value
            found.setdefault(row, []).append((table[23][position:middle], table[23][middle:end]))
            position = end
        return found

    def _read_extents(self, table: list[bytes], chunks: list[bytes]) -> Iterator[tuple[int, bytes]]:
        own = iter(digests(table[29]))
        rows = zip(numbers("Q", table[25]), *(numbers("I", column) for column in table[26:29]), strict=True)
        for offset, length, chunk, inner in rows:
            content = chunks[chunk][inner : inner + length]
            assert len(content) == length
            if length != len(chunks[chunk]):
                assert H(content) == next(own)
            yield offset, content
