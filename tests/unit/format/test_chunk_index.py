"""Tests of the chunk index: it finds stored chunks by digest, and no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cinderblock.format.chunk_index import ChunkIndex
from cinderblock.format.entries import Chunk
from cinderblock.format.hashing import digest_of


def make_chunk(number: int, digest: bytes | None = None) -> Chunk:
    return Chunk(
        number % 7, number, number * 3, 100 + number, 200 + number, number % 2, digest or digest_of(b"%d" % number)
    )


@given(st.lists(st.integers(0, 50)))
def test_index_finds_what_a_dict_finds(numbers: list[int]) -> None:
    known, model = ChunkIndex(), dict[bytes, Chunk]()
    for number in numbers:
        chunk = make_chunk(number)
        known.add(chunk)
        model.setdefault(chunk.digest, chunk)
        assert len(known) == len(model)
    for number in range(51):
        assert known.find(make_chunk(number).digest) == model.get(make_chunk(number).digest)


def test_index_grows_and_keeps_everything() -> None:
    known = ChunkIndex()
    chunks = [make_chunk(number) for number in range(20_000)]
    for chunk in chunks:
        known.add(chunk)
    assert [known.find(chunk.digest) for chunk in chunks] == chunks


def test_digests_with_a_common_prefix_are_distinguished() -> None:
    known = ChunkIndex()
    chunks = [
        make_chunk(number, b"same beginning of all".ljust(24, b".") + number.to_bytes(8, "big"))
        for number in range(300)
    ]
    for chunk in chunks:
        known.add(chunk)
    assert [known.find(chunk.digest) for chunk in chunks] == chunks
    assert known.find(b"same beginning of all".ljust(32, b".")) is None


def test_first_of_two_equal_chunks_is_kept() -> None:
    known, digest = ChunkIndex(), digest_of(b"")
    known.add(make_chunk(1, digest))
    known.add(make_chunk(2, digest))
    assert known.find(digest) == make_chunk(1, digest)


def test_index_beyond_its_limit_ignores_further_chunks() -> None:
    known = ChunkIndex(limit=10)
    for number in range(20):
        known.add(make_chunk(number))
    assert len(known) == 10
    assert known.find(make_chunk(9).digest) == make_chunk(9)
    assert known.find(make_chunk(10).digest) is None
