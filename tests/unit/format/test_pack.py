"""Tests of packs: the index lists the chunks, and changes are detected."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.errors import IntegrityError, UnsupportedFormat
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.sealer import Sealer, Suite
from cinderblock.format.entries import Chunk
from cinderblock.format.hashing import digest_of
from cinderblock.format.pack import (
    CHUNKS_PER_PACK,
    PACK_BYTES,
    Origin,
    PackBuilder,
    PackTable,
    buffer_bytes,
    new_attempt,
    open_chunk,
    pack_name,
    pack_sealer,
    parse_pack_name,
    read_pack,
)

MIB = 1 << 20
KEY = DataKey(b"k" * 32)
NAME = pack_name("0" * 32, 3)
both = pytest.mark.parametrize("data_key", [None, KEY], ids=["unsealed", "sealed"])


def sealer(data_key: DataKey | None) -> Sealer:
    return pack_sealer(data_key, "volume", "backup", NAME, "the pack's key")


def build(data_key: DataKey | None, chunks: list[bytes]) -> tuple[bytes, list[Chunk]]:
    builder = PackBuilder(bytearray(buffer_bytes(MIB)), sealer(data_key))
    made = [builder.add(7, digest_of(chunk), len(chunk), Encoding.RAW, chunk) for chunk in chunks]
    return bytes(builder.finish()), made


def read(body: bytes, data_key: DataKey | None) -> list[Chunk]:
    def get(start: int, length: int | None) -> bytes:
        first = start if start >= 0 else max(len(body) + start, 0)
        return body[first:] if length is None else body[first : first + length]

    def sealer_for(suite: Suite) -> Sealer:
        found = sealer(data_key)
        assert found.suite is suite
        return found

    return read_pack(get, 7, sealer_for, "the pack's key")


@both
@settings(max_examples=40)
@given(chunks=st.lists(st.binary(min_size=1, max_size=400), max_size=40))
def test_index_lists_the_added_chunks(data_key: DataKey | None, chunks: list[bytes]) -> None:
    body, made = build(data_key, chunks)
    assert read(body, data_key) == made
    for chunk, plaintext in zip(made, chunks, strict=True):
        frame = body[chunk.offset : chunk.offset + chunk.stored]
        assert open_chunk(sealer(data_key), chunk, frame) == plaintext


@both
def test_index_longer_than_the_first_read_is_found(data_key: DataKey | None) -> None:
    body, made = build(data_key, [b"%d" % number for number in range(3000)])
    assert read(body, data_key) == made


@both
def test_every_changed_byte_of_index_and_trailer_is_detected(data_key: DataKey | None) -> None:
    body, made = build(data_key, [b"first", b"second"])
    for position in range(made[-1].offset + made[-1].stored, len(body)):
        spoiled = bytearray(body)
        spoiled[position] ^= 0x40
        with pytest.raises(IntegrityError, match="the pack's key"):
            read(bytes(spoiled), data_key)


@both
def test_truncated_pack_is_detected(data_key: DataKey | None) -> None:
    body, _ = build(data_key, [b"first", b"second"])
    for length in range(len(body)):
        with pytest.raises(IntegrityError, match="the pack's key"):
            read(body[:length], data_key)


def test_pack_of_a_later_version_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.format.pack.FORMAT_VERSION", 2)
    body, _ = build(None, [b"first"])
    monkeypatch.undo()
    with pytest.raises(UnsupportedFormat, match="version 2"):
        read(body, None)


def test_pack_is_full_by_size_or_by_number_of_chunks() -> None:
    buffer = bytearray(buffer_bytes(MIB))
    builder, block = PackBuilder(buffer, sealer(None)), b"x" * MIB
    while not builder.is_full:
        builder.add(0, bytes(32), MIB, Encoding.RAW, block)
    assert PACK_BYTES <= len(builder.finish()) <= len(buffer)
    builder = PackBuilder(buffer, sealer(None))
    while not builder.is_full:
        builder.add(0, bytes(32), 1, Encoding.RAW, b"x")
    assert len(read(bytes(builder.finish()), None)) == CHUNKS_PER_PACK


@pytest.mark.parametrize("chunk_bytes", [MIB, 4 * MIB])
def test_buffer_fits_the_largest_pack(chunk_bytes: int) -> None:
    builder = PackBuilder(bytearray(buffer_bytes(chunk_bytes)), sealer(KEY))
    for _ in range(CHUNKS_PER_PACK - 1):
        builder.add(0, bytes(32), 1, Encoding.RAW, b"x" * ((PACK_BYTES - 1) // (CHUNKS_PER_PACK - 1) - 16))
    assert not builder.is_full
    builder.add(0, bytes(32), chunk_bytes, Encoding.RAW, b"x" * chunk_bytes)
    assert builder.is_full
    assert len(builder.finish()) > PACK_BYTES + chunk_bytes


def test_pack_names_are_distinguished_from_other_names() -> None:
    attempt = new_attempt()
    assert parse_pack_name(pack_name(attempt, 1234567)) == (attempt, 1234567)
    for name in ("data-key", "", f"{attempt}-1", f"{attempt}-000000x", attempt, f"x{attempt}-000000"):
        assert parse_pack_name(name) is None


def test_table_distinguishes_packs_by_number() -> None:
    table = PackTable()
    one, two = Origin("one", "a" * 32), Origin("two", "b" * 32)
    assert [table.add(one, 0, 10), table.add(two, 0, 20), table.add(one, 5, 30)] == [0, 1, 2]
    copy = table.copy()
    copy.add(two, 1, 40)
    table.set_size(0, 11)
    assert len(table) == 3
    assert (table.name(2), table.size(0), copy.size(0)) == (pack_name("a" * 32, 5), 11, 10)
    assert list(copy.sizes_of("two")) == [20, 40]
    assert list(copy.sizes_of("three")) == []
