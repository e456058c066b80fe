"""The footer of a manifest: the description of the backup, the index of sections, and the table of packs.

The footer is one sealed frame after the sections, followed by a trailer of fixed size. So two ranged reads give
everything except the entries.
"""

from __future__ import annotations

import base64
import binascii
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from blake3 import blake3
from pydantic import Field, ValidationError

from cinderblock.api.losses import Losses, Path
from cinderblock.api.meta import Model
from cinderblock.api.mover import BackupMetadata
from cinderblock.errors import IntegrityError, TooLarge
from cinderblock.format.compression import Encoder, Encoding, decode
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.sealer import TAG_BYTES, FrameKind, Sealer
from cinderblock.format.hashing import DIGEST_BYTES, digest_of
from cinderblock.format.manifest.columns import join_columns, pack_numbers, split_columns, unpack_numbers
from cinderblock.format.manifest.comparison import Comparison, Count
from cinderblock.format.pack import MAX_LOCK_HOURS, NOT_LOCKED, Origin, PackTable
from cinderblock.format.range_reader import Buffer
from cinderblock.reasons import Reason

MAGIC = b"CBLKMEND"
MAX_FOOTER_BYTES = 128 << 20
"""Most bytes of a footer. 64 TiB in packs of 24 MiB need 62 MiB, a chain of 65,536 backups needs 12 MiB. A writer holds
the whole manifest in the memory of a mover, whose default limit is 448 MiB."""
MAX_SUMMARY_BYTES = 16 << 20
"""Most bytes of the JSON document: 65,536 origins, which column 1 can number, and their data keys have 12 MiB."""
SUMMARY_VALUES = 20_000
_BYTES_PER_VALUE = 40
"""Most values of a document: 20,000 for the description, and one for each 40 bytes. An origin with its data key counts
as 4 values in 182 bytes."""
MAX_BODY_BYTES = 1 << 40
"""Most bytes of all sections: 2000 times what ten million files need."""
MAX_SECTION_BYTES = 256 << 20
"""Most bytes of a section: 1 MiB plus one entry, which may have large extended attributes."""
MAX_SECTIONS = 1 << 18
"""Most sections: 64 GiB of entries in sections of 256 KiB, which are the smallest that a writer copies. Their places
take 64 MiB."""
PACK_ROW_BYTES = 2 + 4 + 8
"""Bytes of a pack in the columns 1 to 3."""
SECTION_ROW_BYTES = 4 + 4 + 4 + DIGEST_BYTES
"""Bytes of a section in the columns 4 to 7."""
FRAME_BYTES = 1 + TAG_BYTES
"""Bytes that a frame has at most in addition to its plaintext: the encoding, and the tag."""
_ROWS_AT_ONCE = 64 << 10
"""Rows of columns that are unpacked at once. A number takes 40 bytes as a Python object."""
TAIL_BYTES = 64 << 10
"""Bytes of the first read, which contains the trailer and the footer of most manifests."""
_TRAILER = struct.Struct("<8sQQQ32s")
TRAILER_BYTES = _TRAILER.size
_COLUMNS = 8
_OPTIONAL_COLUMNS = 2
"""Column 8 with the bytes in use of each pack, which release 0.1.0 did not write, and column 9 with the ends of their
locks, which is written only if any pack has one."""
_ENCODER = Encoder(3)
"""For sections and footers. Level 3 makes them a tenth smaller than level 1, at 5 ms instead of 4 ms per MiB."""


class Counts(Model):
    """Sizes and counts of a backup. Attributes are bytes unless their name says otherwise."""

    entries: Count = 0
    """Names in the tree; 1 for a device."""
    object_count: Count = 0
    """Packs of this backup itself."""
    logical_bytes: Count = 0
    """Bytes of data in the volume, without holes and zeros."""
    transferred_bytes: Count = 0
    """Bytes of data that lie in packs of this backup itself."""
    renewed_bytes: Count = 0
    """Those of them that have not changed since the parent. They lay in packs of which little was in use."""
    pack_bytes: Count = 0
    """Bytes of the packs of this backup itself."""


class OriginRecord(Model):
    """The backup and the attempt that made packs of this backup."""

    backup_id: str
    attempt: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class UnreadableRecord(Model):
    """Objects that could not be read when the backup was made, and are missing from it."""

    files: Annotated[int, Field(ge=1)]
    """Number of missing objects; a directory with all its contents counts as one."""
    examples: Annotated[list[Path], Field(max_length=5)] = []
    """Some of their paths, printable; that of a directory ends in a slash."""


class FooterSummary(Model):
    """The JSON document of a footer."""

    description: BackupMetadata
    parent_id: str | None = None
    chunk_bytes: Annotated[int, Field(ge=1, le=8 << 20)]
    """Largest chunk of the backup."""
    newest_ctime_ns: int = 0
    """The newest ctime of all entries, nanoseconds since 1970."""
    comparison: Comparison | None = None
    """How the backup found changed files. None: a device, or a backup by an earlier release."""
    counts: Counts
    content_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """BLAKE3 of the digests of all sections, in order."""
    origins: list[OriginRecord]
    """The origins that column 1 numbers."""
    unreadable: UnreadableRecord | None = None
    """Missing objects; None if there are none."""
    losses: Losses = []
    """Metadata that the backup could not keep of its files, each kind once."""
    data_keys: dict[str, str] = Field(default={}, repr=False)
    """Data keys, in base64 by backup id, of the ancestors whose packs this backup uses. Only in sealed manifests."""


class Section(NamedTuple):
    """The place of a section, and what it must contain.

    Attributes:
        number: from 0.
        offset: start of its frame, from the end of the header.
        stored: bytes of its frame.
        size: bytes of its plaintext.
        entries: number of its entries.
        digest: BLAKE3 of its plaintext.
    """

    number: int
    offset: int
    stored: int
    size: int
    entries: int
    digest: bytes


class Footer(NamedTuple):
    """All contents of a footer.

    Attributes:
        summary: the JSON document.
        packs: the packs in use.
        sections: the places of the sections.
        used: for each pack, at most how many of its bytes are in use; empty: not recorded.
    """

    summary: FooterSummary
    packs: PackTable
    sections: list[Section]
    used: Sequence[int] = ()


class Trailer(NamedTuple):
    """The last bytes of a manifest.

    Attributes:
        body: bytes of all sections.
        stored: bytes of the footer's frame.
        size: bytes of the footer's plaintext.
        checksum: BLAKE3 of the preceding bytes of the trailer and of the footer's frame.
    """

    body: int
    stored: int
    size: int
    checksum: bytes


def content_digest(sections: list[Section]) -> str:
    """Return one digest over the contents of all sections, in hexadecimal."""
    return digest_of(b"".join(section.digest for section in sections)).hex()


def encode_data_keys(keys: dict[str, DataKey]) -> dict[str, str]:
    """Encode data keys for the summary."""
    return {backup_id: base64.b64encode(key.reveal()).decode() for backup_id, key in keys.items()}


def decode_data_keys(keys: Mapping[str, str], label: str) -> dict[str, DataKey]:
    """Decode the result of `encode_data_keys`. Raises IntegrityError."""
    try:
        return {backup: DataKey(base64.b64decode(text, validate=True)) for backup, text in keys.items()}
    except (binascii.Error, TypeError, ValueError):
        raise IntegrityError(f"{label}: a data key in its footer is malformed") from None


def encode_footer(footer: Footer, sealer: Sealer) -> bytes:
    """Return the footer's frame and the trailer. Raises TooLarge for a footer that no reader accepts."""
    packs, sections = footer.packs, footer.sections
    numbers = range(len(packs))
    plaintext = join_columns(
        [
            footer.summary.model_dump_json(by_alias=True).encode(),
            pack_numbers("H", [packs.origin_number(pack) for pack in numbers]),
            pack_numbers("I", [packs.number(pack) for pack in numbers]),
            pack_numbers("Q", [packs.size(pack) for pack in numbers]),
            pack_numbers("I", [section.stored for section in sections]),
            pack_numbers("I", [section.size for section in sections]),
            pack_numbers("I", [section.entries for section in sections]),
            b"".join(section.digest for section in sections),
            pack_numbers("Q", footer.used),
            *([pack_numbers("I", [packs.locked_until(pack) for pack in numbers])] if packs.has_locks else []),
        ]
    )
    if len(plaintext) > MAX_FOOTER_BYTES or len(sections) > MAX_SECTIONS:
        raise TooLarge(
            f"Cannot write the manifest: its tables of {len(packs)} packs and {len(sections)} sections are larger than"
            " any reader accepts. Make a full backup, or divide the volume."
        )
    frame = sealer.seal(FrameKind.INDEX, 0, compress_frame(plaintext))
    body = sum(section.stored for section in sections)
    blank = _TRAILER.pack(MAGIC, body, len(frame), len(plaintext), bytes(DIGEST_BYTES))
    return frame + blank[:-DIGEST_BYTES] + _checksum(blank, frame)


def compress_frame(plaintext: bytes) -> bytes:
    """Return one byte for the encoding, followed by the encoded plaintext."""
    encoded = _ENCODER.encode(memoryview(plaintext))
    return bytes((Encoding.RAW,)) + plaintext if encoded is None else bytes((Encoding.ZSTD,)) + encoded


def expand_frame(opened: Buffer, size: int, label: str) -> Buffer:
    """Decode the result of `compress_frame`. Raises IntegrityError."""
    if not opened:
        raise IntegrityError(f"{label}: a frame is empty")
    return decode(opened[0], memoryview(opened)[1:], size, label)


def parse_trailer(tail: bytes, label: str) -> Trailer:
    """Parse the trailer from the last bytes of a manifest. Raises IntegrityError."""
    if len(tail) < TRAILER_BYTES:
        raise IntegrityError(f"{label}: cut short, it has no trailer")
    magic, body, stored, size, checksum = _TRAILER.unpack(tail[-TRAILER_BYTES:])
    if magic != MAGIC:
        raise IntegrityError(f"{label}: it does not end like a manifest: cut short, or overwritten")
    if body > MAX_BODY_BYTES or stored > MAX_FOOTER_BYTES or size > MAX_FOOTER_BYTES:
        raise IntegrityError(f"{label}: its trailer claims {body} bytes of sections, and {size} of a footer")
    if stored > size + FRAME_BYTES:
        raise IntegrityError(f"{label}: its trailer claims {stored} bytes for a footer of {size}")
    return Trailer(body, stored, size, checksum)


def decode_footer(tail: Buffer, trailer: Trailer, sealer: Sealer, label: str) -> Footer:
    """Decode the footer from the bytes of its frame and the trailer. Raises IntegrityError."""
    frame = tail[:-TRAILER_BYTES]
    if _checksum(tail[-TRAILER_BYTES:], frame) != trailer.checksum:
        raise IntegrityError(f"{label}: its footer was changed")
    plaintext = expand_frame(sealer.open(FrameKind.INDEX, 0, frame), trailer.size, label)
    try:
        footer = _parse_footer(plaintext, label)
    except (ValueError, IndexError, ValidationError, struct.error):
        raise IntegrityError(f"{label}: its footer is malformed") from None
    _check_footer(footer, trailer, label)
    return footer


def check_document(document: Buffer, label: str) -> None:
    """Check that a JSON document has no more bytes and values than any backup needs. Raises IntegrityError.

    A document of 4 MB may have a million values, which take 1.6 GiB as objects.
    """
    if len(document) > MAX_SUMMARY_BYTES:
        raise implausible(label, f"its summary claims to have {len(document)} bytes")
    if count_values(bytes(document)) > SUMMARY_VALUES + len(document) // _BYTES_PER_VALUE:
        raise implausible(label, "its summary has more values than any backup needs")


def count_values(document: bytes) -> int:
    """Return the most values that a JSON document can have."""
    return document.count(b",") + document.count(b"[") + document.count(b"{")


def implausible(label: str, cause: str) -> IntegrityError:
    """Return the error for what no release of this program writes."""
    return IntegrityError(f"{label}: {cause}", reason=Reason.TOO_LARGE)


def _parse_footer(plaintext: Buffer, label: str) -> Footer:
    columns = split_columns(plaintext, _COLUMNS, _OPTIONAL_COLUMNS)
    _check_rows(columns[1:4], (2, 4, 8))
    _check_rows(columns[4:_COLUMNS], (4, 4, 4, DIGEST_BYTES))
    check_document(columns[0], label)
    summary = FooterSummary.model_validate_json(bytes(columns[0]))
    origins = [Origin(record.backup_id, record.attempt) for record in summary.origins]
    packs = PackTable()
    for start in range(0, len(columns[1]) // 2, _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        numbers = (
            unpack_numbers(code, column[start * width : stop * width])
            for code, width, column in zip("HIQ", (2, 4, 8), columns[1:4], strict=True)
        )
        for origin, number, size in zip(*numbers, strict=True):
            packs.add(origins[origin], number, size)
    optional = columns[_COLUMNS:]
    _parse_locks(optional[1:], packs)
    return Footer(summary, packs, _parse_sections(columns[4:_COLUMNS], label), _parse_use(optional[:1], packs))


def _parse_use(columns: list[memoryview], packs: PackTable) -> array[int]:
    """Return the bytes in use of each pack; empty if they are not recorded. A restore must not fail because of them."""
    used = array("Q")
    for column in columns:
        for start in range(0, len(column) if len(column) == 8 * len(packs) else 0, 8 * _ROWS_AT_ONCE):
            used.extend(unpack_numbers("Q", column[start : start + 8 * _ROWS_AT_ONCE]))
    return used


def _parse_locks(columns: list[memoryview], packs: PackTable) -> None:
    """Add the ends of the locks of packs, if they are recorded. A restore must not fail because of them."""
    for column in columns:
        for start in range(0, len(packs) if len(column) == 4 * len(packs) else 0, _ROWS_AT_ONCE):
            rows = unpack_numbers("I", column[4 * start : 4 * (start + _ROWS_AT_ONCE)])
            for pack, hours in enumerate(rows, start):
                packs.set_locked_until(pack, hours if hours <= MAX_LOCK_HOURS else NOT_LOCKED)


def _check_rows(columns: list[memoryview], widths: tuple[int, ...]) -> None:
    """Check that columns have the same number of rows, before any row is read. Raises ValueError."""
    rows = {len(column) / width for column, width in zip(columns, widths, strict=True)}
    if len(rows) > 1 or not rows.pop().is_integer():
        raise ValueError("columns of different lengths")


def _parse_sections(columns: list[memoryview], label: str) -> list[Section]:
    if len(columns[0]) > 4 * MAX_SECTIONS:
        raise implausible(label, f"its footer lists {len(columns[0]) // 4} sections")
    stored, sizes, entries = (unpack_numbers("I", column) for column in columns[:3])
    digests = bytes(columns[3])
    sections: list[Section] = []
    offset = 0
    for number, (length, size, count) in enumerate(zip(stored, sizes, entries, strict=True)):
        # Nobody has checked these numbers yet, and readers request as many bytes as they say.
        if size > MAX_SECTION_BYTES or length > size + FRAME_BYTES:
            raise implausible(label, f"section {number} claims to have {size} bytes, stored as {length}")
        digest = digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        sections.append(Section(number, offset, length, size, count, digest))
        offset += length
    return sections


def _check_footer(footer: Footer, trailer: Trailer, label: str) -> None:
    """Check that the parts of a manifest agree with each other."""
    if sum(section.stored for section in footer.sections) != trailer.body:
        raise IntegrityError(f"{label}: its sections do not add up")
    if content_digest(footer.sections) != footer.summary.content_digest:
        raise IntegrityError(f"{label}: its sections differ from those that were written")


def _checksum(trailer: Buffer, frame: Buffer) -> bytes:
    return blake3(trailer[:-DIGEST_BYTES]).update(frame).digest()
