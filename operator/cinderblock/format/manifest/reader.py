"""The manifest: the one object that makes a backup exist. It says where every byte of the volume is.

header    plain: whose it is, and how its data key is wrapped (`header`)
sections  sealed: entries and their extents, sorted by path, about 1 MiB each (`sections`)
footer    sealed: description, counts, table of packs, index of sections (`footer`)
trailer   plain: where the footer begins
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import IntegrityError
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.crypto.sealer import TAG_BYTES, FrameKind, Sealer
from cinderblock.format.entries import Chunk, Entry
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import (
    TAIL_BYTES,
    TRAILER_BYTES,
    Footer,
    Section,
    decode_data_keys,
    decode_footer,
    expand_frame,
    parse_trailer,
)
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.pin_checks import check_content, check_header, pins_of
from cinderblock.format.manifest.section_decoder import EntryStats, SectionTable, decode_chunks, decode_stats
from cinderblock.format.pack import PackTable
from cinderblock.format.range_reader import Buffer, RangeReader, read_exactly

__all__ = [
    "ManifestHeader",
    "ManifestReader",
    "ManifestSummary",
    "RangeReader",
    "SectionContent",
    "SectionRun",
    "read_header",
    "read_summary",
]

SECTION_LIMIT = 256 << 20
"""Bytes of a section at most: 1 MiB, and one entry more, which may have large extended attributes."""
MIN_REUSED_SHARE = 256 << 10
"""Bytes of a section that is taken over whole; smaller ones are made anew, or they would become ever more."""
READ_BYTES = 4 << 20
"""Sections are fetched in ranges of about this many bytes."""


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What a manifest says of its backup, the entries left out.

    Attributes:
        header: the plain part.
        description: volume and request.
        chunk_bytes: largest chunk.
        entries: names in the tree; 1 for a device.
        object_count: packs of this backup itself.
        logical_bytes: bytes of data in the volume, holes and zeros left out.
        transferred_bytes: bytes of data that lie in packs of this backup itself.
        stored_bytes: bytes of this backup's objects in the store, the manifest among them.
        manifest_bytes: bytes of the manifest alone.
        references: how many packs of each ancestor the backup needs, by backup id; empty for a full backup.
        pins: what identifies the stored content.
        newest_ctime_ns: the newest ctime of all entries, nanoseconds since 1970.
        comparison: how the backup found changed files; None: a device, or not recorded.
        unreadable_files: how many objects could not be read when the backup was made, and are not in it.
        unreadable_examples: some of their paths, printable.
        losses: what the backup could not keep of the files, each kind once.
    """

    header: ManifestHeader
    description: BackupMetadata
    chunk_bytes: int
    entries: int
    object_count: int
    logical_bytes: int
    transferred_bytes: int
    stored_bytes: int
    manifest_bytes: int
    references: Mapping[str, int]
    pins: Pins
    newest_ctime_ns: int = 0
    comparison: Comparison | None = None
    unreadable_files: int = 0
    unreadable_examples: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()


def read_header(read: RangeReader, expected: ExpectedBackup, label: str = "the manifest") -> ManifestHeader:
    """The plain header of a manifest, in one request; no key is needed.

    Args:
        read: reads the object.
        expected: which backup it must be. A header does not show the content digest.
        label: what the object is called in messages, normally its key in the store.

    Raises IntegrityError, UnsupportedFormat, and what ``read`` raises (NotFound: no such backup).
    """
    header = parse_header(read(0, HEADER_BYTES), label)
    check_header(header, expected, label)
    return header


def read_summary(
    read: RangeReader, keys: KeyRing | None, expected: ExpectedBackup, label: str = "the manifest"
) -> ManifestSummary:
    """Header and footer of a manifest, verified, in two or three requests.

    What is verified: that it is the expected backup, the header's checksum, the footer's tag and checksum, that the
    object has the size which its parts add up to, that the header and the sealed description name the same backup,
    volume and parent, and the total digest over the index of sections. The entries themselves are not read.

    Args:
        read: reads the object.
        keys: the store's key ring; None if it has no encryption Secret.
        expected: which backup it must be.
        label: what the object is called in messages, normally its key in the store.

    Raises IntegrityError, UnsupportedFormat, KeyUnavailable, and what ``read`` raises.
    """
    return ManifestReader(read, keys, expected, label).summary


class SectionContent:
    """A verified section of a manifest: its entries, or what of them is wanted.

    Attributes:
        plaintext: as it is in the manifest, opened and decompressed.
        compressed: the same before it was decompressed.
    """

    def __init__(self, plaintext: Buffer, compressed: Buffer, label: str) -> None:
        self.plaintext = plaintext
        self.compressed = compressed
        self._label = label
        self._table: SectionTable | None = None

    @property
    def size(self) -> int:
        """Bytes of the plaintext."""
        return len(self.plaintext)

    @property
    def table(self) -> SectionTable:
        """The entries; made once. Raises IntegrityError."""
        if self._table is None:
            self._table = SectionTable(self.plaintext, self._label)
        return self._table

    def entries(self) -> list[Entry]:
        """All entries. Raises IntegrityError."""
        return self.table.entries(0, self.table.rows)

    def stamps(self) -> EntryStats:
        """What tells whether objects are as they were; decoded anew each time. Raises IntegrityError."""
        return decode_stats(self.plaintext, self._label)


@dataclass(frozen=True, slots=True)
class SectionRun:
    """Rows of a section that another manifest takes over as they are, without entries being made of them.

    Attributes:
        section: whose they are.
        start, stop: which rows.
        is_whole: whether these are all rows of the section.
        first_path, last_path: of the first and the last row.
        names: how many different paths there are; parts of an entry have the same.
        newest_ctime_ns: of all rows, nanoseconds since 1970.
        oldest_ctime_ns: of all rows but hard links, which have none; None: there are only hard links.
        size: bytes of the files together.
    """

    section: SectionContent
    start: int
    stop: int
    is_whole: bool
    first_path: bytes
    last_path: bytes
    names: int
    newest_ctime_ns: int
    oldest_ctime_ns: int | None
    size: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.stop - self.start

    @property
    def is_copied(self) -> bool:
        """Whether these rows become a section of their own again."""
        return self.is_whole and self.section.size >= MIN_REUSED_SHARE

    def targets(self) -> list[bytes]:
        """What the links among the rows point to, symbolic ones too. Raises IntegrityError."""
        return self.section.table.targets(self.start, self.stop)

    def entries(self) -> list[Entry]:
        """The rows as entries. Raises IntegrityError."""
        return self.section.table.entries(self.start, self.stop)


class ManifestReader:
    """A manifest that is open for reading: header and footer at once, sections as a stream.

    Args:
        read: reads the object.
        keys: the store's key ring; None if it has no encryption Secret.
        expected: which backup it must be. Otherwise somebody who can write to the store could put another one in its
            place: anybody can make an unsealed one without a key.
        label: what the object is called in messages, normally its key in the store.

    Raises IntegrityError, UnsupportedFormat, KeyUnavailable, and what ``read`` raises; here and while streaming.
    """

    def __init__(self, read: RangeReader, keys: KeyRing | None, expected: ExpectedBackup, label: str) -> None:
        self._read = read
        self._label = label
        self.header = read_header(read, expected, label)
        self._data_key = self.header.data_key(keys)
        self._sealer = self.header.sealer(self._data_key, label)
        self._footer, manifest_bytes = _read_footer(read, self._sealer, label)
        self.summary = _summarize(self.header, self._footer, manifest_bytes)
        check_content(self.summary.pins, expected, label)
        if keys is not None and self.header.key_id is not None:
            keys.check_age(self.header.key_id, expected.created_at or self.summary.description.created_at, label)

    @property
    def packs(self) -> PackTable:
        """The packs that chunks name by number."""
        return self._footer.packs

    def data_keys(self) -> dict[str, DataKey]:
        """Data keys of this backup and of the ancestors it uses, by backup id; backups not sealed are left out."""
        keys = decode_data_keys(self._footer.summary, self._label)
        if self._data_key is not None:
            keys[self.header.backup_id] = self._data_key
        return keys

    def entries(self) -> Iterator[Entry]:
        """All entries in order of path, verified section by section. Entries with many extents come in parts."""
        for content in self.contents():
            yield from content.entries()

    def contents(self) -> Iterator[SectionContent]:
        """All sections in order, verified one by one."""
        for section, compressed, plaintext in self._opened():
            label = f"{self._label}, section {section.number}"
            for chunk in decode_chunks(plaintext, label):
                self._check_chunk(chunk)
            yield SectionContent(plaintext, compressed, label)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks that extents use, section by section; one that several sections use comes several times."""
        for section, _, plaintext in self._opened():
            for chunk in decode_chunks(plaintext, f"{self._label}, section {section.number}"):
                self._check_chunk(chunk)
                yield chunk

    def _check_chunk(self, chunk: Chunk) -> None:
        """A chunk lies in a pack that the table knows, and is no larger than chunks of this backup are."""
        is_possible = (
            chunk.pack < len(self.packs)
            and chunk.size <= self.summary.chunk_bytes
            and TAG_BYTES <= chunk.stored <= chunk.size + TAG_BYTES
            and chunk.offset + chunk.stored <= self.packs.size(chunk.pack)
        )
        if not is_possible:
            raise IntegrityError(f"{self._label}: chunk {chunk.number} of pack {chunk.pack} is impossible")

    def _opened(self) -> Iterator[tuple[Section, Buffer, Buffer]]:
        """Each section as it was compressed, and decompressed."""
        for run in _runs(self._footer.sections):
            start, length = run[0].offset, sum(section.stored for section in run)
            data = memoryview(read_exactly(self._read, HEADER_BYTES + start, length, self._label))
            for section in run:
                begin = section.offset - start
                yield section, *self._open(section, data[begin : begin + section.stored])

    def _open(self, section: Section, frame: Buffer) -> tuple[Buffer, Buffer]:
        if section.size > SECTION_LIMIT:
            raise IntegrityError(f"{self._label}: section {section.number} says it has {section.size} bytes")
        opened = self._sealer.open(FrameKind.CONTENT, section.number, frame)
        plaintext = expand_frame(opened, section.size, self._label)
        if digest_of(plaintext) != section.digest:
            raise IntegrityError(f"{self._label}: section {section.number} was changed")
        return opened, plaintext


def _runs(sections: list[Section]) -> Iterator[list[Section]]:
    """Sections in groups of about READ_BYTES."""
    run: list[Section] = []
    size = 0
    for section in sections:
        if run and size + section.stored > READ_BYTES:
            yield run
            run, size = [], 0
        run.append(section)
        size += section.stored
    if run:
        yield run


def _read_footer(read: RangeReader, sealer: Sealer, label: str) -> tuple[Footer, int]:
    """The footer, and the bytes of the whole object."""
    tail = read(-TAIL_BYTES, None)
    trailer = parse_trailer(tail, label)
    wanted = trailer.stored + TRAILER_BYTES
    if wanted > len(tail):
        tail = read(-wanted, None)
    if wanted > len(tail):
        raise IntegrityError(f"{label}: cut short, its footer is not there")
    footer = decode_footer(tail[-wanted:], trailer, sealer, label)
    size = HEADER_BYTES + trailer.body + wanted
    is_whole = size == len(tail) if len(tail) < TAIL_BYTES else read(size - 1, None) == tail[-1:]
    if not is_whole:
        raise IntegrityError(f"{label}: its parts do not add up to its size")
    return footer, size


def _summarize(header: ManifestHeader, footer: Footer, manifest_bytes: int) -> ManifestSummary:
    summary, packs = footer.summary, footer.packs
    if (summary.description.backup_id, summary.description.volume_id, summary.parent_id) != (
        header.backup_id,
        header.volume_id,
        header.parent_id,
    ):
        raise IntegrityError(
            f"the manifest of backup {header.backup_id}: header and description name different backups"
        )
    references = Counter(packs.origin(pack).backup_id for pack in range(len(packs)))
    del references[header.backup_id]
    counts = summary.counts
    return ManifestSummary(
        header=header,
        description=summary.description,
        chunk_bytes=summary.chunk_bytes,
        entries=counts.entries,
        object_count=counts.object_count,
        logical_bytes=counts.logical_bytes,
        transferred_bytes=counts.transferred_bytes,
        stored_bytes=counts.pack_bytes + manifest_bytes,
        manifest_bytes=manifest_bytes,
        references=dict(references),
        pins=pins_of(header, summary.content_digest),
        newest_ctime_ns=summary.newest_ctime_ns,
        comparison=summary.comparison,
        unreadable_files=summary.unreadable.files if summary.unreadable else 0,
        unreadable_examples=tuple(summary.unreadable.examples) if summary.unreadable else (),
        losses=tuple(summary.losses),
    )
