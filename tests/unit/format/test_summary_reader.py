"""The summary of a manifest is read in bounded memory, whatever its writer claims, and is that of the whole reader."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from blake3 import blake3

from cinderblock.errors import CinderblockError, IntegrityError, StoreTooSlow, TooLarge
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.columns import join_columns, pack_numbers
from cinderblock.format.manifest.footer import (
    FRAME_BYTES,
    MAX_FOOTER_BYTES,
    MAX_SECTIONS,
    MAX_SUMMARY_BYTES,
    Footer,
    FooterSummary,
    encode_footer,
)
from cinderblock.format.manifest.header import MAX_ID_BYTES, new_header
from cinderblock.format.manifest.reader import ManifestReader, read_summary
from cinderblock.format.pack import Origin, PackTable
from tests.support.mover.backups import key_ring
from tests.support.store import forged_manifests
from tests.support.store.forged_manifests import (
    BACKUP_ID,
    EXPECTED,
    VOLUME_ID,
    SparseObject,
    columns,
    document,
    footer_of,
)

MIB = 1 << 20
MEMORY_BYTES = 64 * MIB
"""Most bytes that one read may hold, without what its own input has."""
PARSING_BYTES = 160 * MIB
"""The same for the largest document, of which only one at a time becomes objects."""


def sections_digest(sections: int) -> str:
    return blake3(forged_manifests.digests(sections)).hexdigest()


def peak_of(stored: SparseObject, error: type[CinderblockError] | None = None) -> int:
    """Return the most bytes that a read holds."""
    tracemalloc.start()
    try:
        if error is None:
            read_summary(stored.read, None, EXPECTED, "forged")
        else:
            with pytest.raises(error):
                read_summary(stored.read, None, EXPECTED, "forged")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["plain", "sealed"])
@pytest.mark.parametrize(("packs", "sections"), [(0, 0), (3, 2), (20_000, 3000)])
def test_summary_is_that_of_the_whole_reader(keys: KeyRing | None, packs: int, sections: int) -> None:
    text = document(origins=7, data_keys=6, digest=sections_digest(sections))
    body = sections * MIB
    stored = SparseObject(*footer_of(columns(text, packs, 7, sections), keys, body=body), body)
    assert read_summary(stored.read, keys, EXPECTED) == ManifestReader(stored.read, keys, EXPECTED, "").summary


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["plain", "sealed"])
def test_manifest_of_64_tib_is_read(keys: KeyRing | None) -> None:
    packs, sections, size = (64 << 40) // (24 * MIB), 20_000, 1 << 20
    text = document(origins=5, digest=sections_digest(sections))
    stored = SparseObject(*footer_of(columns(text, packs, 5, sections), keys, body=sections * size), sections * size)
    summary = read_summary(stored.read, keys, EXPECTED)
    assert sum(summary.references.values()) == packs - (packs + 4) // 5
    assert stored.largest_read <= MIB


def test_chain_of_65536_backups_is_read() -> None:
    text = document(origins=65_536, data_keys=65_535, metadata={})
    stored = SparseObject(*footer_of(columns(text, 65_536, 65_536)))
    peak = peak_of(stored)
    assert peak < PARSING_BYTES
    assert len(read_summary(stored.read, None, EXPECTED).references) == 65_535


def test_largest_footer_takes_little_memory() -> None:
    header, footer = forged_manifests.bomb(MAX_FOOTER_BYTES)
    assert len(footer) < 64 << 10
    assert peak_of(SparseObject(header, footer)) < MEMORY_BYTES


@pytest.mark.parametrize("read", [read_summary, ManifestReader])
def test_larger_footer_is_rejected_before_it_is_unpacked(read: Any) -> None:
    stored = SparseObject(*forged_manifests.bomb(MAX_FOOTER_BYTES + 1))
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="claims"):
            read(stored.read, None, EXPECTED, "forged")
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def table_of(lengths: list[int]) -> bytes:
    """Return the table of a footer with columns of zeros of these lengths behind its document."""
    return join_columns([document(), *(bytes(length) for length in lengths)])


@pytest.mark.parametrize(
    "lengths",
    [[8 * MIB], [8 * MIB, 0, 0, 0, 0, 0, 0], [0, 0, 0, 8 * MIB], [2 * MIB, 4 * MIB, MIB, 0, 0, 0, 0]],
    ids=["packs without rows", "packs with empty rows", "sections without rows", "half of the sizes"],
)
def test_numbers_without_rows_are_not_counted(lengths: list[int]) -> None:
    stored = SparseObject(*footer_of([], plaintext=table_of(lengths)))
    pieces: list[None] = []
    with pytest.raises(IntegrityError, match="malformed"):
        read_summary(stored.read, None, EXPECTED, "forged", check_time=lambda: pieces.append(None))
    assert len(pieces) < 10, "a piece has 64 KiB"
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="malformed"):
            ManifestReader(stored.read, None, EXPECTED, "forged")
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB, "the table itself, and no numbers"
    finally:
        tracemalloc.stop()


def test_whole_reader_unpacks_few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.format.manifest.footer._ROWS_AT_ONCE", 1000)
    table = columns(document(), 50_000)
    stored = SparseObject(*footer_of(table))
    tracemalloc.start()
    try:
        assert len(ManifestReader(stored.read, None, EXPECTED, "forged").packs) == 50_000
        # Its bytes, the table of packs, and no objects for all numbers, which take 4 MB.
        assert tracemalloc.get_traced_memory()[1] < 4 * len(b"".join(table))
    finally:
        tracemalloc.stop()


def test_time_of_the_caller_ends_a_read() -> None:
    stored = SparseObject(*forged_manifests.bomb(8 * MIB))
    left = iter(range(20))

    def check_time() -> None:
        if next(left, None) is None:
            raise StoreTooSlow("the time is up")

    with pytest.raises(StoreTooSlow):
        read_summary(stored.read, None, EXPECTED, "forged", check_time=check_time)


@pytest.mark.parametrize(
    ("size", "length"), [(2**32 - 1, 2**32 - 1), (MIB, 200 * MIB), (300 * MIB, 10), (10, 10 + FRAME_BYTES + 1)]
)
def test_impossible_section_is_rejected_before_a_request(size: int, length: int) -> None:
    digest = sections_digest(1)
    table = columns(document(digest=digest), sections=1, size=size)
    table[4] = pack_numbers("I", [length])
    stored = SparseObject(*footer_of(table, body=length), length)
    with pytest.raises(IntegrityError, match="section 0 claims"):
        ManifestReader(stored.read, None, EXPECTED, "forged")
    assert stored.largest_read <= 64 << 10


def test_more_sections_than_any_backup_has_are_rejected() -> None:
    count = MAX_SECTIONS + 1
    plaintext = table_of([0, 0, 0, 4 * count, 4 * count, 4 * count, 32 * count])
    stored = SparseObject(*footer_of([], plaintext=plaintext))
    for read in (read_summary, ManifestReader):
        with pytest.raises(IntegrityError, match=f"lists {count} sections"):
            read(stored.read, None, EXPECTED, "forged")


@pytest.mark.parametrize("read", [read_summary, ManifestReader])
def test_document_with_too_many_values_is_rejected_by_every_reader(read: Any) -> None:
    stored = SparseObject(*footer_of(columns(a_document_with('"x":[' + "[]," * 300_000 + "0]"))))
    with pytest.raises(IntegrityError, match="more values"):
        read(stored.read, None, EXPECTED, "forged")


def test_footer_that_no_reader_accepts_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.format.manifest.footer.MAX_FOOTER_BYTES", 1000)
    table = PackTable()
    for number in range(100):
        table.add(Origin(BACKUP_ID, "0" * 32), number, 1)
    summary = FooterSummary.model_validate_json(document())
    sealer = new_header(VOLUME_ID, BACKUP_ID, None, None, None).sealer(None, "manifest")
    with pytest.raises(TooLarge, match="100 packs"):
        encode_footer(Footer(summary, table, []), sealer)


@pytest.mark.parametrize(
    ("stored", "size", "body"),
    [(1 << 40, 100, 0), (100, 1 << 40, 0), (100, 100, 1 << 60), (2**64 - 1, 2**64 - 1, 2**64 - 1)],
)
def test_claims_of_a_trailer_are_bounded_before_a_request(stored: int, size: int, body: int) -> None:
    header, _ = footer_of(columns(document()))
    manifest = SparseObject(header, bytes(100) + forged_manifests.trailer(bytes(100), size, body, stored))
    for read in (read_summary, ManifestReader):
        with pytest.raises(IntegrityError, match="claims"):
            read(manifest.read, None, EXPECTED, "forged")
    assert manifest.largest_read <= 64 << 10


def a_document_with(field: str) -> bytes:
    """Return a document that is valid except for one more field."""
    return document()[:-1] + b"," + field.encode() + b"}"


@pytest.mark.parametrize(
    "text",
    [
        a_document_with('"x":[' + "[]," * 1_300_000 + "0]"),
        a_document_with('"x":[' + "0," * 4_000_000 + "0]"),
        a_document_with('"losses":[' + "{}," * 1_300_000 + "{}]"),
        a_document_with('"x":{' + ",".join(f'"{number:x}":""' for number in range(400_000)) + "}"),
        a_document_with('"origins":[' + "{}," * 5_000_000 + "{}]"),
        b" " * (MAX_SUMMARY_BYTES + 1),
    ],
    ids=["arrays", "numbers", "losses", "keys", "origins", "bytes"],
)
def test_document_with_too_many_values_is_rejected_before_it_is_parsed(text: bytes) -> None:
    stored = SparseObject(*footer_of(columns(text)))
    assert peak_of(stored, IntegrityError) < MEMORY_BYTES + len(text)


@pytest.mark.parametrize(
    "text",
    [
        a_document_with('"losses":[' + "{}," * 19_000 + "{}]"),
        a_document_with('"comparison":"' + "a" * 15_000_000 + '😀"'),
        a_document_with('"x":' + "[" * 19_000 + "]" * 19_000),
        a_document_with('"x":' + "9" * 1_000_000),
        document(description={"backupId": 5}),
        document(origins=1, dataKeys="none").replace(b'"origins":[', b'"origins":[null,'),
        b"[]",
        b"null",
        b"\xff" * 100,
        b"",
    ],
)
def test_malformed_document_is_an_integrity_error_in_little_memory(text: bytes) -> None:
    assert peak_of(SparseObject(*footer_of(columns(text))), IntegrityError) < PARSING_BYTES


def changed(table: list[bytes], column: int, content: bytes) -> list[bytes]:
    return [content if number == column else old for number, old in enumerate(table)]


@pytest.mark.parametrize(("column", "content"), [(1, b"\1"), (1, b"\5\0"), (2, b""), (3, b"1"), (4, b"1234"), (7, b"")])
def test_columns_that_do_not_fit_each_other_are_rejected(column: int, content: bytes) -> None:
    table = changed(columns(document(digest=sections_digest(1)), 1, 1, 1), column, content)
    with pytest.raises(IntegrityError):
        read_summary(SparseObject(*footer_of(table, body=MIB), MIB).read, None, EXPECTED)


@pytest.mark.parametrize("plaintext", [b"", b"\xff\xff\xff\xff", join_columns(columns(document())[:5])])
def test_table_that_ends_early_is_rejected(plaintext: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_summary(SparseObject(*footer_of([], plaintext=plaintext)).read, None, EXPECTED)


def test_columns_of_a_later_release_are_ignored() -> None:
    table = [*columns(document()), b"later" * 1000]
    assert read_summary(SparseObject(*footer_of(table)).read, None, EXPECTED).header.backup_id == BACKUP_ID


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["plain", "sealed"])
def test_every_changed_byte_of_a_footer_is_found(keys: KeyRing | None) -> None:
    header, footer = footer_of(columns(document(origins=2), 3, 2), keys)
    for position in range(len(footer)):
        damaged = bytearray(footer)
        damaged[position] ^= 0x20
        with pytest.raises(IntegrityError):
            read_summary(SparseObject(header, bytes(damaged)).read, keys, EXPECTED)


def test_longer_document_than_asked_for_is_rejected() -> None:
    stored = SparseObject(*footer_of(columns(document())))
    with pytest.raises(TooLarge, match="at most 100 are read"):
        read_summary(stored.read, None, EXPECTED, "forged", max_summary_bytes=100)


def test_ids_of_origins_are_no_longer_than_ids() -> None:
    """The operator keeps them: with 16 MiB each, a few manifests would exhaust its memory."""
    fields = json.loads(document(origins=2))
    fields["origins"][1]["backupId"] = "x" * (MAX_ID_BYTES + 1)
    stored = SparseObject(*footer_of(columns(json.dumps(fields).encode(), packs=2, origins=2)))
    with pytest.raises(IntegrityError, match="its footer is malformed"):
        read_summary(stored.read, None, EXPECTED, "forged")
