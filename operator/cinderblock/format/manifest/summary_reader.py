"""Read a manifest without its entries, in little memory, whatever its writer claims.

The operator reads manifests of every namespace, and anybody who can write to one bucket can put anything there. A
footer of 37 kB may decompress to a gigabyte, and JSON of 4 MB may take 1.6 GiB of objects. So the footer is read,
checked and decompressed as a stream. Only the summary of its table is kept, and a count for each origin of packs.

Bounds, all much above what any volume needs:

- a footer: MAX_FOOTER_BYTES, as for every reader; its window in memory: _WINDOW_BYTES;
- its summary: MAX_SUMMARY_BYTES, with at most as many values as 65,536 origins have;
- numbers that are counted: as many as the columns behind them have rows.

Measured: the largest footer takes less than 1 MiB; a chain of 65,536 backups 64 MiB; the worst document, one string of
15 MB, 130 MiB. Only one document at a time becomes objects, and one thread at a time counts.
"""

from __future__ import annotations

import json
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import zstandard
from blake3 import blake3
from pydantic import ValidationError

from cinderblock.errors import IntegrityError, TooLarge
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.sealer import TAG_BYTES, FrameKind, Sealer
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.manifest.footer import (
    MAX_SECTIONS,
    MAX_SUMMARY_BYTES,
    PACK_ROW_BYTES,
    SECTION_ROW_BYTES,
    SUMMARY_VALUES,
    TAIL_BYTES,
    TRAILER_BYTES,
    FooterSummary,
    Trailer,
    check_document,
    count_values,
    decode_data_keys,
    implausible,
    parse_trailer,
)
from cinderblock.format.manifest.header import HEADER_BYTES, MAX_ID_BYTES
from cinderblock.format.manifest.pack_set import MAX_BLOCKS, Blocks, PackSet, add_numbers, count_blocks
from cinderblock.format.pack import Origin, PackTable
from cinderblock.format.range_reader import RangeReader, read_exactly

SMALL_SUMMARY_BYTES: Final = 256 << 10
"""Bytes of a document that many readers may hold at once: 1400 origins."""
_READ_BYTES: Final = 1 << 20
"""Bytes of one ranged read of a footer."""
_PIECE_BYTES: Final = 64 << 10
"""Bytes of a column that are decoded at once."""
_WINDOW_BYTES: Final = 8 << 20
"""Most bytes that zstd may look back. `footer` compresses with level 3, whose window has 2 MiB."""
_DESCRIPTION_CHARACTERS: Final = 2 << 20
"""Most characters of a document without origins and data keys. It describes Kubernetes objects, of at most 1.5 MiB."""
_parsing: Final = threading.Lock()
"""One document at a time becomes objects. Parsing waits for no network."""
_counting: Final = threading.Lock()
"""One thread at a time counts numbers, a piece at a time. Counting holds the interpreter, so several threads together
would leave the event loop of the operator little of it."""


class FooterFacts:
    """The facts of a footer, without the places of sections and packs.

    Attributes:
        summary: the JSON document, without origins and data keys.
        references: number of packs by the backup that made them.
        manifest_bytes: bytes of the whole manifest.
        packs: all packs that the manifest lists; None: they were not requested.
        table: the same with their sizes, and the data keys of other backups; None: it was not requested.
    """

    def __init__(
        self,
        summary: FooterSummary,
        references: dict[str, int],
        manifest_bytes: int,
        packs: PackSet | None,
        table: KeyedPacks | None = None,
    ) -> None:
        self.summary = summary
        self.references = references
        self.manifest_bytes = manifest_bytes
        self.packs = packs
        self.table = table


class KeyedPacks(NamedTuple):
    """The packs that a manifest lists, and the data keys of other backups that made some of them, by backup id."""

    packs: PackTable
    data_keys: Mapping[str, DataKey]


class _PackColumns(NamedTuple):
    """The kept part of the columns 1 to 3.

    Attributes:
        counts: how often each number of column 1 occurs.
        blocks: the numbers of column 2 by those of column 1, if a set of packs was requested.
        columns: all three columns, if a table was requested.
    """

    counts: Counter[int]
    blocks: dict[int, Blocks]
    columns: tuple[bytes, bytes, bytes] | None


def read_footer_facts(
    read: RangeReader,
    sealer: Sealer,
    label: str,
    max_summary_bytes: int,
    check_time: Callable[[], None],
    *,
    with_packs: bool = False,
    table_rows: int | None = None,
) -> FooterFacts:
    """Read and verify the footer of a manifest.

    Args:
        read: reads the object.
        sealer: of the manifest.
        label: name of the object in messages.
        max_summary_bytes: most bytes of the JSON document; at most MAX_SUMMARY_BYTES.
        check_time: called before each piece of work; raises if the time of the caller is up.
        with_packs: whether to return each listed pack.
        table_rows: most packs of a table to return; None: return none.

    Raises IntegrityError; TooLarge for a document that is longer than ``max_summary_bytes``, and for a list of packs
    that fits into no `PackSet` or has more than ``table_rows``; and what ``read`` and ``check_time`` raise.
    """
    tail = read(-TAIL_BYTES, TAIL_BYTES)
    trailer = parse_trailer(tail, label)
    frame = _Frame(read, tail, trailer, label)
    plaintext = _Plaintext(frame, sealer, label)
    table = _Table(_decode(plaintext, trailer, label), trailer.size, label, check_time)
    try:
        document = table.read_column(max_summary_bytes)
        listed = table.read_packs(with_packs=with_packs, table_rows=table_rows)
        body, sections = table.sum_lengths()
        table.skip_column(4 * sections)
        table.skip_column(4 * sections)
        digest = table.digest_of_column(DIGEST_BYTES * sections)
        table.skip_rest()
        plaintext.drain()
    except (zstandard.ZstdError, struct.error):
        raise IntegrityError(f"{label}: its footer is malformed") from None
    if frame.checksum() != trailer.checksum:
        raise IntegrityError(f"{label}: its footer was changed")
    if body != trailer.body:
        raise IntegrityError(f"{label}: its sections do not add up")
    _check_size(read, tail, frame.manifest_bytes, label)
    summary, origins, key_texts = _parse(document, label, check_time, with_keys=table_rows is not None)
    if digest != summary.content_digest:
        raise IntegrityError(f"{label}: its sections differ from those that were written")
    references = _references(listed.counts, origins, label)
    packs = _pack_set(listed.blocks, origins) if with_packs else None
    keyed = None
    if listed.columns is not None:
        keyed = KeyedPacks(PackTable.from_columns(origins, *listed.columns), decode_data_keys(key_texts, label))
    return FooterFacts(summary, references, frame.manifest_bytes, packs, keyed)


def _check_size(read: RangeReader, tail: bytes, size: int, label: str) -> None:
    is_whole = size == len(tail) if len(tail) < TAIL_BYTES else read(size - 1, 2) == tail[-1:]
    if not is_whole:
        raise IntegrityError(f"{label}: its parts do not add up to its size")


class _Frame:
    """The bytes of the footer's frame, as a stream, and their checksum."""

    def __init__(self, read: RangeReader, tail: bytes, trailer: Trailer, label: str) -> None:
        self._read = read
        self._tail = tail
        self._stored = trailer.stored
        self._start = HEADER_BYTES + trailer.body
        self._label = label
        self._hash = blake3(tail[-TRAILER_BYTES:-DIGEST_BYTES])
        self.manifest_bytes = self._start + trailer.stored + TRAILER_BYTES

    @property
    def size(self) -> int:
        """Bytes of the frame."""
        return self._stored

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in order."""
        in_tail = min(self._stored, len(self._tail) - TRAILER_BYTES)
        position, end = self._start, self._start + self._stored - in_tail
        while position < end:
            piece = read_exactly(self._read, position, min(_READ_BYTES, end - position), self._label)
            self._hash.update(piece)
            yield piece
            position += len(piece)
        piece = self._tail[len(self._tail) - TRAILER_BYTES - in_tail : -TRAILER_BYTES]
        self._hash.update(piece)
        yield piece

    def checksum(self) -> bytes:
        """Return the checksum of what was read."""
        return self._hash.digest()


class _Plaintext:
    """The opened frame, as a file that is read once. Reading its end checks the tag."""

    def __init__(self, frame: _Frame, sealer: Sealer, label: str) -> None:
        if frame.size <= TAG_BYTES:
            raise IntegrityError(f"{label}: a frame is empty")
        self._pieces = frame.pieces()
        self._opener = sealer.opener(FrameKind.INDEX, 0)
        self._left = frame.size - TAG_BYTES
        self._tag = b""
        self._buffer = memoryview(b"")

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes; empty at the end. Raises IntegrityError if the tag is wrong."""
        while not self._buffer and self._left:
            piece = next(self._pieces)
            content, rest = piece[: self._left], piece[self._left :]
            self._left -= len(content)
            self._buffer = memoryview(self._opener.update(content))
            if not self._left:
                self._opener.finish(rest + b"".join(self._pieces))
        part, self._buffer = self._buffer[:count], self._buffer[count:]
        return bytes(part)

    def drain(self) -> None:
        """Read to the end, which checks the tag."""
        while self.read(_PIECE_BYTES):
            pass


def _decode(plaintext: _Plaintext, trailer: Trailer, label: str) -> Any:
    """Return a file with the decoded table."""
    encoding = plaintext.read(1)[0]
    if encoding == Encoding.RAW:
        return plaintext
    if encoding != Encoding.ZSTD:
        raise IntegrityError(f"{label}: unknown encoding {encoding}")
    begin = plaintext.read(_FRAME_HEADER_BYTES)
    try:
        parameters = zstandard.get_frame_parameters(begin)
    except zstandard.ZstdError:
        raise IntegrityError(f"{label}: the compressed frame is damaged") from None
    if parameters.content_size != trailer.size or parameters.window_size > _WINDOW_BYTES:
        raise IntegrityError(f"{label}: the compressed frame does not hold {trailer.size} bytes")
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    return decompressor.stream_reader(_Joined(begin, plaintext), read_size=_PIECE_BYTES)  # type: ignore[arg-type]


_FRAME_HEADER_BYTES: Final = 18
"""Most bytes of a zstd frame header (RFC 8878, section 3.1.1)."""


class _Joined:
    """Bytes that were read already, and the file that follows them."""

    def __init__(self, begin: bytes, rest: _Plaintext) -> None:
        self._begin = begin
        self._rest = rest

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes; empty at the end."""
        part, self._begin = self._begin[:count], self._begin[count:]
        return part or self._rest.read(count)


class _Table:
    """The columns of a footer, each read once and in order."""

    def __init__(self, file: Any, size: int, label: str, check_time: Callable[[], None]) -> None:
        self._file = file
        self._left = size
        self._label = label
        self._check_time = check_time

    def read_column(self, limit: int) -> bytes:
        """Return a whole column. Raises TooLarge if it has more bytes than ``limit``."""
        length = self._length()
        if length > MAX_SUMMARY_BYTES:
            raise implausible(self._label, f"its summary claims to have {length} bytes")
        if length > limit:
            raise TooLarge(f"Cannot read {self._label}: its summary has {length} bytes, and at most {limit} are read.")
        return b"".join(self._pieces(length))

    def read_packs(self, *, with_packs: bool, table_rows: int | None) -> _PackColumns:
        """Read the columns 1 to 3. A table of them has at most 128 MiB, like every footer."""
        counts, column = self._count_origins(keep=with_packs or table_rows is not None, most=table_rows)
        if table_rows is None:
            blocks = self._read_numbers(column, 4 * counts.total())
            self.skip_column(8 * counts.total())
            return _PackColumns(counts, blocks, None)
        columns = (column, self._keep_column(4 * counts.total()), self._keep_column(8 * counts.total()))
        return _PackColumns(counts, {}, columns)

    def _keep_column(self, length: int) -> bytes:
        self._expect(length)
        return b"".join(self._pieces(length))

    def _count_origins(self, *, keep: bool, most: int | None) -> tuple[Counter[int], bytes]:
        """Return how often each number of column 1 occurs, and to ``keep`` it, the column itself: at most 19 MB."""
        counts: Counter[int] = Counter()
        kept: list[bytes] = []
        length = self._length_of(2, PACK_ROW_BYTES)
        if most is not None and length > 2 * most:
            raise TooLarge(f"Cannot read {self._label}: it lists {length // 2} packs, and at most {most} are read.")
        for piece in self._pieces(length):
            with _counting:
                counts.update(struct.unpack(f"<{len(piece) // 2}H", piece))
            kept += [piece] if keep else []
        return counts, b"".join(kept)

    def _read_numbers(self, origins: bytes, length: int) -> dict[int, Blocks]:
        """Return the numbers of column 2 by the numbers of column 1, ``origins``. Without these, skip the column."""
        blocks: dict[int, Blocks] = {}
        self._expect(length)
        position = 0
        for piece in self._pieces(length):
            rows = len(piece) // 4 if origins else 0
            of_piece = struct.unpack_from(f"<{rows}H", origins, position)
            with _counting:
                add_numbers(blocks, zip(of_piece, struct.unpack_from(f"<{rows}I", piece), strict=True))
            if count_blocks(blocks) > MAX_BLOCKS:
                raise TooLarge(f"Cannot read {self._label}: its packs have more numbers than any backup needs.")
            position += 2 * rows
        return blocks

    def sum_lengths(self) -> tuple[int, int]:
        """Return the sum of column 4, and how many numbers it has."""
        total = count = 0
        length = self._length_of(4, SECTION_ROW_BYTES)
        if length > 4 * MAX_SECTIONS:
            raise implausible(self._label, f"its footer lists {length // 4} sections")
        for piece in self._pieces(length):
            numbers = struct.unpack(f"<{len(piece) // 4}I", piece)
            total, count = total + sum(numbers), count + len(numbers)
        return total, count

    def digest_of_column(self, length: int) -> str:
        """Return the digest of a column of this many bytes, in hexadecimal."""
        digest = blake3()
        self._expect(length)
        for piece in self._pieces(length):
            digest.update(piece)
        return digest.hexdigest()

    def skip_column(self, length: int) -> None:
        """Skip a column of this many bytes."""
        self._expect(length)
        for _ in self._pieces(length):
            pass

    def skip_rest(self) -> None:
        """Read to the end, over columns of later releases."""
        for _ in self._pieces(self._left):
            pass
        if self._file.read(1):
            raise self._malformed()

    def _expect(self, length: int) -> None:
        if self._length() != length:
            raise self._malformed()

    def _length_of(self, width: int, row: int) -> int:
        """Return the length of a column of numbers, of ``width`` bytes each.

        The columns behind it must have room for the rest of each ``row``. Otherwise a footer could consist of numbers
        that take a hundred times as long to count as to decompress.
        """
        length = self._length()
        rows, rest = divmod(length, width)
        if rest or rows * row > self._left:
            raise self._malformed()
        return length

    def _length(self) -> int:
        (length,) = struct.unpack("<I", b"".join(self._pieces(4)))
        return int(length)

    def _pieces(self, length: int) -> Iterator[bytes]:
        """Yield the next bytes, in pieces of a whole number of 8 bytes except the last."""
        if length > self._left:
            raise self._malformed()
        self._left -= length
        while length:
            self._check_time()
            piece = self._read_fully(min(length, _PIECE_BYTES))
            length -= len(piece)
            yield piece

    def _read_fully(self, count: int) -> bytes:
        content: bytes = self._file.read(count)
        while len(content) < count:
            more = self._file.read(count - len(content))
            if not more:
                raise self._malformed()
            content += more
        return content

    def _malformed(self) -> IntegrityError:
        return IntegrityError(f"{self._label}: its footer is malformed")


def _parse(
    document: bytes, label: str, check_time: Callable[[], None], *, with_keys: bool
) -> tuple[FooterSummary, list[Origin], dict[str, str]]:
    """Return the summary without origins and data keys, the origins, and the data keys if they are requested."""
    check_document(document, label)
    with _parsing:
        # Other documents may have taken long.
        check_time()
        try:
            fields = json.loads(document)
            origins = [_origin(origin) for origin in fields.pop("origins")]
            key_texts = dict(fields.pop("dataKeys", {}))
            if _characters(fields) > _DESCRIPTION_CHARACTERS:
                raise implausible(label, "its description is larger than any backup needs")
            rest = json.dumps(fields, ensure_ascii=False).encode()
            if count_values(rest) > SUMMARY_VALUES:
                raise implausible(label, "its description has more values than any backup needs")
            summary = FooterSummary.model_validate_json(rest[:-1] + b',"origins":[]}')
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
            raise IntegrityError(f"{label}: its footer is malformed") from None
    return summary, origins, key_texts if with_keys else {}


def _characters(fields: object) -> int:
    """Return the number of characters in all strings of a document."""
    total, rest = 0, [fields]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            rest += (*value.keys(), *value.values())
        elif isinstance(value, list):
            rest += value
    return total


def _origin(origin: dict[str, Any]) -> Origin:
    backup_id, attempt = origin["backupId"], origin["attempt"]
    if not (isinstance(backup_id, str) and isinstance(attempt, str)):
        raise TypeError
    if max(len(backup_id), len(attempt)) > MAX_ID_BYTES:
        raise ValueError
    return Origin(backup_id, attempt)


def _pack_set(blocks: dict[int, Blocks], origins: list[Origin]) -> PackSet:
    packs = PackSet()
    for number, of_origin in blocks.items():
        packs.add(origins[number], of_origin)
    return packs


def _references(counts: Counter[int], origins: list[Origin], label: str) -> dict[str, int]:
    references: Counter[str] = Counter()
    for number, count in counts.items():
        if number >= len(origins):
            raise IntegrityError(f"{label}: its footer is malformed")
        references[origins[number].backup_id] += count
    return dict(references)
