"""The reader of manifests. A manifest locates every byte of a volume.

header    plain: ids of the backup, and the wrapped data key (`header`)
sections  sealed: entries and their extents, sorted by path, about 1 MiB each (`section_decoder`)
footer    sealed: description, counts, table of packs, index of sections (`footer`)
trailer   plain: where the footer begins
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import IntegrityError
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import TAG_BYTES, FrameKind, Sealer
from cinderblock.format.entries import Chunk, Entry
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.columns import split_columns, unpack_numbers
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import (
    MAX_FOOTER_BYTES,
    MAX_SUMMARY_BYTES,
    PACK_ROW_BYTES,
    TAIL_BYTES,
    TRAILER_BYTES,
    Footer,
    FooterSummary,
    Section,
    decode_data_keys,
    decode_footer,
    expand_frame,
    parse_trailer,
)
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.format.manifest.pin_checks import check_content, check_header, pins_of
from cinderblock.format.manifest.section_decoder import EntryStats, SectionTable, decode_chunks, decode_stats
from cinderblock.format.manifest.summary_reader import read_footer_facts
from cinderblock.format.pack import MAX_CHUNKS, PackTable
from cinderblock.format.range_reader import Buffer, RangeReader, read_exactly

__all__ = [
    "ManifestHeader",
    "ManifestReader",
    "ManifestSummary",
    "PackList",
    "RangeReader",
    "SectionContent",
    "SectionRun",
    "read_header",
    "read_pack_list",
    "read_packs",
    "read_summary",
]

MIN_COPIED_SECTION_BYTES = 256 << 10
"""Bytes of the smallest section that is copied. Smaller ones are merged; otherwise each backup would add more of
them."""
READ_BYTES = 4 << 20
"""Approximate bytes of one ranged read of sections."""


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """The contents of a manifest without its entries.

    Attributes:
        header: the plain part.
        description: volume and request.
        chunk_bytes: largest chunk.
        entries: names in the tree; 1 for a device.
        object_count: packs of this backup itself.
        logical_bytes: bytes of data in the volume, without holes and zeros.
        transferred_bytes: bytes of data that lie in packs of this backup itself.
        renewed_bytes: those of them that have not changed since the parent.
        stored_bytes: bytes of this backup's objects in the store, including the manifest.
        manifest_bytes: bytes of the manifest alone.
        references: number of packs that the backup needs of each ancestor, by backup id; empty for a full backup.
        pins: values that identify the stored content.
        newest_ctime_ns: the newest ctime of all entries, nanoseconds since 1970.
        comparison: how the backup found changed files; None: a device, or not recorded.
        unreadable_files: number of objects that could not be read when the backup was made, and are missing from it.
        unreadable_examples: some of their paths, printable.
        losses: metadata that the backup could not keep of its files, each kind once.
    """

    header: ManifestHeader
    description: BackupMetadata
    chunk_bytes: int
    entries: int
    object_count: int
    logical_bytes: int
    transferred_bytes: int
    renewed_bytes: int
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
    """Read the plain header of a manifest, in one request and without a key.

    Args:
        read: reads the object.
        expected: the backup that it must belong to. A header does not show the content digest.
        label: name of the object in messages, normally its key in the store.

    Raises IntegrityError, UnsupportedFormat, and what ``read`` raises (NotFound: no such backup).
    """
    header = parse_header(read(0, HEADER_BYTES), label)
    check_header(header, expected, label)
    return header


def _unlimited() -> None:
    """Limit nothing."""


def read_summary(
    read: RangeReader,
    keys: Keys | None,
    expected: ExpectedBackup,
    label: str = "the manifest",
    *,
    max_summary_bytes: int = MAX_SUMMARY_BYTES,
    check_time: Callable[[], None] = _unlimited,
) -> ManifestSummary:
    """Read and verify header and footer of a manifest in bounded memory, in two or three requests for most manifests.

    This verifies:

    - the identity of the backup;
    - the header's checksum, and the footer's tag and checksum;
    - that the parts add up to the size of the object;
    - that the header and the sealed description name the same backup, volume and parent;
    - the total digest over the index of sections.

    The entries themselves are not read.

    Args:
        read: reads the object.
        keys: the store's key ring; None if it has no encryption Secret.
        expected: the backup that it must belong to.
        label: name of the object in messages, normally its key in the store.
        max_summary_bytes: most bytes of the JSON document in the footer.
        check_time: called before each piece of work; raises if the time of the caller is up.

    Raises IntegrityError, UnsupportedFormat, KeyUnavailable, TooLarge, and what ``read`` and ``check_time``
    raise.
    """
    header = read_header(read, expected, label)
    sealer = header.sealer(header.data_key(keys), label)
    facts = read_footer_facts(read, sealer, label, max_summary_bytes, check_time)
    summary = _summarize(header, facts.summary, facts.references, facts.manifest_bytes)
    _check_summary(summary, keys, expected, label)
    return summary


def read_packs(
    read: RangeReader,
    keys: Keys | None,
    expected: ExpectedBackup,
    label: str = "the manifest",
    *,
    max_summary_bytes: int = MAX_SUMMARY_BYTES,
    check_time: Callable[[], None] = _unlimited,
) -> PackSet:
    """Read and verify which packs a manifest lists, its own and those of other backups, as `read_summary` does.

    Raises what `read_summary` raises, and TooLarge for a list that fits into no `PackSet`.
    """
    header = read_header(read, expected, label)
    sealer = header.sealer(header.data_key(keys), label)
    facts = read_footer_facts(read, sealer, label, max_summary_bytes, check_time, with_packs=True)
    _check_summary(_summarize(header, facts.summary, {}, facts.manifest_bytes), keys, expected, label)
    return facts.packs or PackSet()


class PackList(NamedTuple):
    """The packs that a manifest lists, with what it takes to open them.

    Attributes:
        header: of the manifest.
        data_timestamp: time of the data of the backup.
        packs: the packs.
        data_keys: the data keys of the backups that made them, by backup id. Unsealed backups have none.
    """

    header: ManifestHeader
    data_timestamp: datetime
    packs: PackTable
    data_keys: Mapping[str, DataKey]


def read_pack_list(
    read: RangeReader,
    keys: Keys | None,
    expected: ExpectedBackup,
    label: str = "the manifest",
    *,
    max_summary_bytes: int = MAX_SUMMARY_BYTES,
    max_packs: int = MAX_FOOTER_BYTES // PACK_ROW_BYTES,
) -> PackList:
    """Read and verify which packs a manifest lists, with their sizes and data keys, as `read_summary` does.

    This takes 28 bytes for each pack while it reads, and 14 afterwards. Raises what `read_summary` raises, and TooLarge
    if the manifest lists more than ``max_packs``.
    """
    header = read_header(read, expected, label)
    data_key = header.data_key(keys)
    sealer = header.sealer(data_key, label)
    facts = read_footer_facts(read, sealer, label, max_summary_bytes, _unlimited, table_rows=max_packs)
    _check_summary(_summarize(header, facts.summary, {}, facts.manifest_bytes), keys, expected, label)
    assert facts.table is not None
    own = {} if data_key is None else {header.backup_id: data_key}
    timestamp = facts.summary.description.data_timestamp
    return PackList(header, timestamp, facts.table.packs, {**facts.table.data_keys, **own})


class SectionContent:
    """A verified section of a manifest, whose entries are decoded on demand.

    Attributes:
        plaintext: the opened and decompressed section.
        compressed: the same before decompression.
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
        """The entries, decoded once. Raises IntegrityError."""
        if self._table is None:
            self._table = SectionTable(self.plaintext, self._label)
        return self._table

    def lies_in(self, packs: frozenset[int]) -> bool:
        """Return whether any chunk lies in one of these packs. This decodes one column."""
        return bool(packs) and not packs.isdisjoint(unpack_numbers("I", split_columns(self.plaintext, 1)[0]))

    def entries(self) -> list[Entry]:
        """Return all entries. Raises IntegrityError."""
        return self.table.entries(0, self.table.rows)

    def stats(self) -> EntryStats:
        """Return the fields that show changes of objects, decoded on each call. Raises IntegrityError."""
        return decode_stats(self.plaintext, self._label)


@dataclass(frozen=True, slots=True)
class SectionRun:
    """Rows of a section that another manifest reuses without decoding them into entries.

    Attributes:
        section: the section of the rows.
        start, stop: the range of rows.
        is_whole: whether these are all rows of the section.
        first_path, last_path: of the first and the last row.
        names: number of different paths; parts of an entry have the same path.
        newest_ctime_ns: of all rows, nanoseconds since 1970.
        oldest_ctime_ns: of all rows except hard links, which have none; None: there are only hard links.
        size: total bytes of the files.
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
        """Number of rows."""
        return self.stop - self.start

    @property
    def is_copied(self) -> bool:
        """Whether these rows are copied as a section of their own."""
        return self.is_whole and self.section.size >= MIN_COPIED_SECTION_BYTES

    def link_targets(self) -> list[bytes]:
        """Return the targets of the hard and symbolic links among the rows. Raises IntegrityError."""
        return self.section.table.link_targets(self.start, self.stop)

    def entries(self) -> list[Entry]:
        """Decode the rows into entries. Raises IntegrityError."""
        return self.section.table.entries(self.start, self.stop)


class ManifestReader:
    """An open manifest. Header and footer are read at once, sections as a stream.

    Args:
        read: reads the object.
        keys: the store's key ring; None if it has no encryption Secret.
        expected: the backup that it must belong to. Without this check, anybody who can write to the store could
            replace it by another manifest: an unsealed manifest needs no key.
        label: name of the object in messages, normally its key in the store.

    Raises IntegrityError, UnsupportedFormat, KeyUnavailable, and what ``read`` raises; here and while streaming.
    """

    def __init__(self, read: RangeReader, keys: Keys | None, expected: ExpectedBackup, label: str) -> None:
        self._read = read
        self._label = label
        self.header = read_header(read, expected, label)
        self._data_key = self.header.data_key(keys)
        self._sealer = self.header.sealer(self._data_key, label)
        self._footer, manifest_bytes = _read_footer(read, self._sealer, label)
        packs = self._footer.packs
        references = Counter(packs.origin(pack).backup_id for pack in range(len(packs)))
        self.summary = _summarize(self.header, self._footer.summary, references, manifest_bytes)
        _check_summary(self.summary, keys, expected, label)

    @property
    def packs(self) -> PackTable:
        """The packs that chunks name by number."""
        return self._footer.packs

    @property
    def used(self) -> Sequence[int]:
        """For each pack, at most how many of its bytes are in use; empty if the writer did not record it."""
        return self._footer.used

    def pack_list(self) -> PackList:
        """Return the packs with the data keys that open them."""
        return PackList(self.header, self.summary.description.data_timestamp, self.packs, self.data_keys())

    def data_keys(self) -> dict[str, DataKey]:
        """Return the data keys of this backup and its ancestors in use, by backup id. Unsealed backups have none."""
        keys = decode_data_keys(self._footer.summary.data_keys, self._label)
        if self._data_key is not None:
            keys[self.header.backup_id] = self._data_key
        return keys

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in order of path, verified section by section. Entries with many extents come in parts."""
        for content in self.contents():
            yield from content.entries()

    def contents(self) -> Iterator[SectionContent]:
        """Yield all sections in order, verified one by one."""
        for section, compressed, plaintext in self._open_sections():
            label = f"{self._label}, section {section.number}"
            for chunk in decode_chunks(plaintext, label):
                self._check_chunk(chunk)
            yield SectionContent(plaintext, compressed, label)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks of all extents, section by section. A chunk of several sections comes several times."""
        for section, _, plaintext in self._open_sections():
            for chunk in decode_chunks(plaintext, f"{self._label}, section {section.number}"):
                self._check_chunk(chunk)
                yield chunk

    def _check_chunk(self, chunk: Chunk) -> None:
        """Check that a chunk lies within a known pack, and is no larger than the largest chunk of this backup."""
        is_possible = (
            chunk.pack < len(self.packs)
            and chunk.number < MAX_CHUNKS
            and chunk.size <= self.summary.chunk_bytes
            and TAG_BYTES <= chunk.stored <= chunk.size + TAG_BYTES
            and chunk.offset + chunk.stored <= self.packs.size(chunk.pack)
        )
        if not is_possible:
            raise IntegrityError(f"{self._label}: chunk {chunk.number} of pack {chunk.pack} is impossible")

    def _open_sections(self) -> Iterator[tuple[Section, Buffer, Buffer]]:
        """Yield each section with its compressed and decompressed bytes."""
        for group in _group_sections(self._footer.sections):
            start, length = group[0].offset, sum(section.stored for section in group)
            data = memoryview(read_exactly(self._read, HEADER_BYTES + start, length, self._label))
            for section in group:
                begin = section.offset - start
                yield section, *self._open_section(section, data[begin : begin + section.stored])

    def _open_section(self, section: Section, frame: Buffer) -> tuple[Buffer, Buffer]:
        opened = self._sealer.open(FrameKind.CONTENT, section.number, frame)
        plaintext = expand_frame(opened, section.size, self._label)
        if digest_of(plaintext) != section.digest:
            raise IntegrityError(f"{self._label}: section {section.number} was changed")
        return opened, plaintext


def _group_sections(sections: list[Section]) -> Iterator[list[Section]]:
    """Yield sections in groups of about READ_BYTES."""
    group: list[Section] = []
    size = 0
    for section in sections:
        if group and size + section.stored > READ_BYTES:
            yield group
            group, size = [], 0
        group.append(section)
        size += section.stored
    if group:
        yield group


def _read_footer(read: RangeReader, sealer: Sealer, label: str) -> tuple[Footer, int]:
    """Return the footer and the size of the whole object in bytes."""
    tail = read(-TAIL_BYTES, TAIL_BYTES)
    trailer = parse_trailer(tail, label)
    needed = trailer.stored + TRAILER_BYTES
    if needed > len(tail):
        tail = read(-needed, needed)
    if needed > len(tail):
        raise IntegrityError(f"{label}: cut short, its footer is missing")
    # Slices of bytes would be copies, and a footer may have 128 MiB.
    footer = decode_footer(memoryview(tail)[-needed:], trailer, sealer, label)
    size = HEADER_BYTES + trailer.body + needed
    is_whole = size == len(tail) if len(tail) < TAIL_BYTES else read(size - 1, 2) == tail[-1:]
    if not is_whole:
        raise IntegrityError(f"{label}: its parts do not add up to its size")
    return footer, size


def _check_summary(summary: ManifestSummary, keys: Keys | None, expected: ExpectedBackup, label: str) -> None:
    """Check that a manifest is the expected one, and that its key could seal it."""
    check_content(summary.pins, expected, label)
    header, created_at = summary.header, expected.created_at or summary.description.created_at
    if keys is not None and header.wrapped is not None:
        keys.check_age(header.wrapped, header.owner, created_at, label)


def _summarize(
    header: ManifestHeader, summary: FooterSummary, packs_by_backup: Mapping[str, int], manifest_bytes: int
) -> ManifestSummary:
    if (summary.description.backup_id, summary.description.volume_id, summary.parent_id) != (
        header.backup_id,
        header.volume_id,
        header.parent_id,
    ):
        raise IntegrityError(
            f"the manifest of backup {header.backup_id}: header and description name different backups"
        )
    references = {other: count for other, count in packs_by_backup.items() if other != header.backup_id}
    counts = summary.counts
    return ManifestSummary(
        header=header,
        description=summary.description,
        chunk_bytes=summary.chunk_bytes,
        entries=counts.entries,
        object_count=counts.object_count,
        logical_bytes=counts.logical_bytes,
        transferred_bytes=counts.transferred_bytes,
        renewed_bytes=counts.renewed_bytes,
        stored_bytes=counts.pack_bytes + manifest_bytes,
        manifest_bytes=manifest_bytes,
        references=references,
        pins=pins_of(header, summary.content_digest),
        newest_ctime_ns=summary.newest_ctime_ns,
        comparison=summary.comparison,
        unreadable_files=summary.unreadable.files if summary.unreadable else 0,
        unreadable_examples=tuple(summary.unreadable.examples) if summary.unreadable else (),
        losses=tuple(summary.losses),
    )
