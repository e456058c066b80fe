"""Tests of manifests: entries come back, in little memory, and the header needs no key."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, UnsupportedFormat
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.entries import Chunk, Entry, EntryKind, Extent
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest import section_decoder, section_encoder
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.format.manifest.columns import join_columns, split_columns
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, new_header, parse_header
from cinderblock.format.manifest.reader import ManifestReader, RangeReader, read_header, read_summary
from cinderblock.format.manifest.writer import EXTENTS_PER_PART, ManifestWriter
from cinderblock.format.pack import Origin, PackTable
from tests.support.mover.backups import NOON, Backups, key_ring

MIB = 1 << 20
KEYS = key_ring()
PACKS = 5
EXPECTED = ExpectedBackup(volume_id="volume", backup_id="backup")


def candidates() -> PackTable:
    """Return packs of the backup itself (even numbers) and of an ancestor (odd)."""
    table = PackTable()
    for number in range(PACKS):
        table.add(Origin("ancestor" if number % 2 else "backup", "a" * 32), number, 100 * MIB)
    return table


def write(entries: list[Entry], keys: KeyRing | None = KEYS, parent: str | None = None) -> bytes:
    """Write a manifest of backup "backup"."""
    data_key = DataKey(b"d" * 32) if keys else None
    header = new_header("volume", "backup", parent, data_key, keys)
    writer = ManifestWriter(header, header.sealer(data_key, "the key"), candidates())
    for entry in entries:
        writer.add(entry)
    description = Backups().task("backup", "backup").backup.model_copy(update={"volume_id": "volume"})  # type: ignore[arg-type]
    assert description.created_at == NOON
    return bytes(
        writer.finish(description, MIB, {"ancestor": DataKey(b"e" * 32), "unused": DataKey(b"f" * 32)} if keys else {})
    )


class Ranges:
    """Reads ranges of an object in memory, and counts the reads."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.calls: list[tuple[int, int | None]] = []

    def __call__(self, start: int, length: int | None) -> bytes:
        self.calls.append((start, length))
        first = start if start >= 0 else max(len(self.body) + start, 0)
        return self.body[first:] if length is None else self.body[first : first + length]


def read(body: bytes, keys: KeyRing | None = KEYS) -> ManifestReader:
    reader: RangeReader = Ranges(body)
    return ManifestReader(reader, keys, EXPECTED, "the key")


def extent(offset: int, number: int = 0, pack: int = 0) -> Extent:
    digest = digest_of(b"%d %d" % (number, pack))
    return Extent(offset, 1000, Chunk(pack, number, number * 1000, 900, 1000, 1, digest), 0, digest)


names = st.binary(min_size=1, max_size=8).filter(lambda name: not {b"/", b"\0"} & {name[i : i + 1] for i in range(8)})
paths = st.lists(names, max_size=4).map(b"/".join)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
times = st.integers(-(2**33) * 10**9, 2**35 * 10**9)
xattrs = st.lists(st.tuples(names, st.binary(max_size=30)), max_size=3).map(tuple)


@st.composite
def extent_lists(draw: st.DrawFn) -> tuple[Extent, ...]:
    found, offset = [], 0
    for _ in range(draw(st.integers(0, 4))):
        offset += draw(st.integers(0, 1 << 40))
        size = draw(st.integers(1, MIB))
        inner = draw(st.integers(0, size - 1))
        length = draw(st.integers(1, size - inner))
        number, pack = draw(st.integers(0, 3)), draw(st.integers(0, PACKS - 1))
        # One chunk has one size and digest, for all extents that point into it.
        place = Chunk(pack, number, number * 7, 16, MIB, 0, digest_of(b"%d %d" % (pack, number)))
        digest = place.digest if length == MIB else digest_of(b"%d" % offset)
        found.append(Extent(offset, length, place, inner, digest))
        offset += length
    return tuple(found)


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    found = []
    for path in sorted(draw(st.sets(paths, min_size=1, max_size=12)), key=lambda path: path.replace(b"/", b"\0")):
        kind = draw(st.sampled_from(EntryKind))
        found.append(
            Entry(
                path,
                kind,
                draw(st.integers(0, 0o7777)),
                draw(u32),
                draw(u32),
                draw(times),
                draw(times),
                draw(u64),
                draw(u64),
                draw(st.binary(max_size=9)).replace(b"\0", b"") if kind in (3, 4) else b"",
                draw(u64) if kind in (6, 7) else 0,
                draw(xattrs),
                draw(extent_lists()),
            )
        )
    return found


@settings(max_examples=60)
@given(entries=entry_lists(), is_sealed=st.booleans())
def test_entries_are_read_back(entries: list[Entry], is_sealed: bool) -> None:
    keys = KEYS if is_sealed else None
    reader = read(write(entries, keys), keys)
    packs = {reader.packs.name(pack): pack for pack in range(len(reader.packs))}
    table = candidates()

    def finally_numbered(entry: Entry) -> Entry:
        moved = (e._replace(chunk=e.chunk._replace(pack=packs[table.name(e.chunk.pack)])) for e in entry.extents)
        return entry._replace(extents=tuple(moved))

    assert list(reader.entries()) == [finally_numbered(entry) for entry in entries]
    assert reader.summary.entries == len(entries)
    assert reader.summary.newest_ctime_ns == max(0, *(entry.ctime_ns for entry in entries))
    assert set(reader.chunks()) == {e.chunk for entry in reader.entries() for e in entry.extents}


def many(count: int) -> Iterator[Entry]:
    """Yield small files with different digests."""
    for number in range(count):
        run = extent(0, number % 50)._replace(length=900, chunk_offset=50, digest=digest_of(b"run %d" % number))
        yield Entry(b"%07d" % number, EntryKind.FILE, size=5000, extents=(run,))


def test_large_manifest_has_many_sections_and_is_read_by_few_requests() -> None:
    entries = list(many(60_000))
    body = write(entries)
    ranges = Ranges(body)
    reader = ManifestReader(ranges, KEYS, EXPECTED, "the key")
    opening = len(ranges.calls)
    assert opening <= 4
    assert list(reader.entries()) == entries
    assert len(reader._footer.sections) > 5
    assert len(ranges.calls) - opening <= len(body) // (3 << 20) + 1
    assert len(body) / len(entries) < 60


def test_entry_with_many_extents_comes_in_parts() -> None:
    extents = tuple(extent(number * 1000, number) for number in range(3 * EXTENTS_PER_PART + 5))
    parts = list(read(write([Entry(b"", EntryKind.DEVICE, size=1 << 40, extents=extents)])).entries())
    assert [part.path for part in parts] == [b""] * 4
    assert tuple(extent for part in parts for extent in part.extents) == extents
    assert read(write([Entry(b"", EntryKind.DEVICE, extents=extents)])).summary.entries == 1


def test_summary_counts_entries_and_bytes() -> None:
    entries = [Entry(b"a", EntryKind.FILE, extents=(extent(0, 0, 0), extent(5000, 1, 1))), Entry(b"b", EntryKind.FILE)]
    body = write(entries, parent="ancestor")
    summary = read_summary(Ranges(body), KEYS, EXPECTED)
    assert (summary.entries, summary.object_count) == (2, 1)
    assert (summary.logical_bytes, summary.transferred_bytes) == (2000, 1000)
    assert summary.stored_bytes == 100 * MIB + len(body)
    assert summary.manifest_bytes == len(body)
    assert summary.references == {"ancestor": 1}
    assert summary.header.parent_id == "ancestor"


def test_header_and_summary_take_few_small_reads() -> None:
    body = write(list(many(60_000)))
    ranges = Ranges(body)
    read_header(ranges, EXPECTED)
    assert ranges.calls == [(0, HEADER_BYTES)]
    read_summary(ranges, KEYS, EXPECTED)
    assert len(ranges.calls) <= 4
    assert len(body) > MIB


def test_header_identifies_the_backup_without_a_key() -> None:
    header = read_header(Ranges(write([Entry(b"", EntryKind.DIRECTORY)], parent="earlier")), EXPECTED)
    assert (header.format_version, header.volume_id, header.backup_id) == (1, "volume", "backup")
    assert (header.parent_id, header.key_id) == ("earlier", "2025")
    plain = read_header(Ranges(write([Entry(b"", EntryKind.DIRECTORY)], None)), EXPECTED)
    assert (plain.parent_id, plain.key_id) == (None, None)


def test_sealed_summary_needs_the_key() -> None:
    body = write([Entry(b"", EntryKind.DIRECTORY)])
    with pytest.raises(KeyUnavailable, match="no encryption Secret"):
        read_summary(Ranges(body), None, EXPECTED)
    with pytest.raises(KeyUnavailable, match="'2025'"):
        read_summary(Ranges(body), key_ring("2024"), EXPECTED)


def test_data_keys_of_unused_ancestors_are_omitted() -> None:
    reader = read(write([Entry(b"a", EntryKind.FILE, extents=(extent(0, 0, 1),))]))
    assert reader.data_keys().keys() == {"backup", "ancestor"}
    assert b"ffff" not in write([Entry(b"a", EntryKind.FILE)])


def test_sealed_manifest_contains_no_readable_names() -> None:
    entry = Entry(
        b"a-secret-name" * 20, EntryKind.SYMLINK, target=b"secret-target", xattrs=((b"user.x", b"secret-value"),)
    )
    body = write([entry])
    assert b"secret" not in body
    assert list(read(body).entries()) == [entry]


@pytest.mark.parametrize("keys", [None, KEYS], ids=["unsealed", "sealed"])
def test_manifest_of_a_later_version_is_rejected(keys: KeyRing | None) -> None:
    body = write([Entry(b"", EntryKind.DIRECTORY)], keys)
    header = parse_header(body, "x")
    later = ManifestHeader(2, header.backup_id, header.volume_id, None, header.salt, header.wrapped).encode()
    with pytest.raises(UnsupportedFormat, match="the key: format version 2"):
        read(later + body[HEADER_BYTES:], keys)


def test_overlong_id_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="too long"):
        new_header("v" * 513, "backup", None, None, None).encode()
    longest = new_header("v" * 512, "b" * 512, "p" * 512, DataKey.random(), KeyRing({"k" * 253: bytes(32)}, "k" * 253))
    assert parse_header(longest.encode(), "x") == longest
    assert len(longest.encode()) == HEADER_BYTES


@settings(max_examples=60)
@given(entries=entry_lists(), cuts=st.sets(st.integers(1, 11)), made_anew=st.sets(st.integers(0, 11)))
def test_section_made_of_parts_is_the_same(entries: list[Entry], cuts: set[int], made_anew: set[int]) -> None:
    section = section_encoder.encode_section([section_encoder.make_part(entries)], int)
    table = section_decoder.SectionTable(section, "label")
    ends = sorted({0, len(entries), *(cut for cut in cuts if cut < len(entries))})
    pieces = [
        section_encoder.make_part(table.entries(start, stop)) if start in made_anew else table.part(start, stop)
        for start, stop in pairwise(ends)
    ]
    assert section_encoder.encode_section(pieces, int) == section
    for start, stop in pairwise(ends):
        assert table.entries(start, stop) == entries[start:stop]
        logical = sum(extent.length for entry in entries[start:stop] for extent in entry.extents)
        assert table.logical_bytes(start, stop) == logical
        assert table.estimate_bytes(start, stop) == sum(map(section_encoder.estimate_bytes, entries[start:stop]))
    targets = [entry.target if entry.kind is EntryKind.HARDLINK else None for entry in entries]
    assert [table.hard_link_target(row) for row in range(table.rows)] == targets


def all_entries(section: bytes, label: str) -> list[Entry]:
    table = section_decoder.SectionTable(section, label)
    return table.entries(0, table.rows)


def malformed(change: dict[int, bytes]) -> bytes:
    """Return a section with some columns replaced."""
    section = section_encoder.encode_section(
        [section_encoder.make_part([Entry(b"a", EntryKind.FILE, extents=(extent(0),))])], int
    )
    columns = [bytes(column) for column in split_columns(section, 30)]
    return join_columns([change.get(number, column) for number, column in enumerate(columns)])


@pytest.mark.parametrize(
    "change",
    [
        {0: b"\0"},
        {6: b"short"},
        {8: b"\x63"},
        {8: b"\1\1"},
        {18: b"", 8: b"\3", 7: b"a\0b"},
        {24: struct.pack("<I", 2)},
        {24: struct.pack("<I", 0)},
        {24: struct.pack("<II", 0xFFFFFFFF, 1)},
        {26: struct.pack("<I", 0)},
        {26: struct.pack("<I", 1001)},
        {27: struct.pack("<I", 1)},
        {28: struct.pack("<I", 1)},
        {29: bytes(32)},
        {9: b""},
        {19: bytes(8)},
        {20: struct.pack("<I", 0), 21: struct.pack("<I", 5), 22: struct.pack("<I", 5), 23: b"short"},
    ],
)
def test_malformed_section_is_an_integrity_error(change: dict[int, bytes]) -> None:
    assert len(all_entries(malformed({}), "label")) == 1
    with pytest.raises(IntegrityError, match="label"):
        all_entries(malformed(change), "label")


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_rejected_as_section(data: bytes) -> None:
    for read_section in (all_entries, section_decoder.decode_chunks):
        try:
            list(read_section(data, "label"))
        except IntegrityError:
            continue


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_rejected_as_header(data: bytes) -> None:
    for body in (data, b"CBLKMANI" + data):
        with pytest.raises(IntegrityError):
            parse_header(body, "label")


def test_chunk_beyond_its_pack_is_rejected() -> None:
    bad = extent(0)._replace(chunk=extent(0).chunk._replace(offset=100 * MIB))
    with pytest.raises(IntegrityError, match="impossible"):
        list(read(write([Entry(b"a", EntryKind.FILE, extents=(bad,))])).entries())


def test_section_ends_at_about_a_mebibyte() -> None:
    reader = read(write(list(many(30_000))))
    sizes = [section.size for section in reader._footer.sections]
    assert all(size < 2 * manifest_writer.SECTION_BYTES for size in sizes)
    assert all(size > manifest_writer.SECTION_BYTES // 3 for size in sizes[:-1])
