"""Tests of compression: it is used only where it helps, and decodes to the same plaintext."""

from __future__ import annotations

import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.errors import IntegrityError
from cinderblock.format.compression import Encoder, Encoding, decode

KIB = 1 << 10


@pytest.mark.parametrize("level", [1, 3, 7, 19])
@given(data=st.one_of(st.binary(max_size=500), st.binary(min_size=1, max_size=20).map(lambda part: part * 500)))
def test_encoded_data_decodes(level: int, data: bytes) -> None:
    encoded = Encoder(level).encode(memoryview(data))
    if encoded is None:
        assert decode(Encoding.RAW, data, len(data), "label") == data
    else:
        assert len(encoded) < len(data)
        assert decode(Encoding.ZSTD, encoded, len(data), "label") == data


@pytest.mark.parametrize("level", [1, 3, 7, 19])
def test_random_data_is_not_compressed(level: int) -> None:
    assert Encoder(level).encode(memoryview(os.urandom(256 * KIB))) is None


@pytest.mark.parametrize("level", [1, 7])
def test_distant_repetition_is_compressed(level: int) -> None:
    encoded = Encoder(level).encode(memoryview(os.urandom(30 * KIB) * 20))
    assert encoded is not None
    assert len(encoded) < 60 * KIB


def test_encoder_without_a_level_compresses_nothing() -> None:
    assert Encoder(None).encode(memoryview(bytes(1000))) is None


def test_higher_level_compresses_better() -> None:
    data = b" ".join(b"%d" % (number * number) for number in range(20_000))
    small, large = Encoder(19).encode(memoryview(data)), Encoder(1).encode(memoryview(data))
    assert small is not None
    assert large is not None
    assert len(small) < len(large)


def test_unknown_encoding_is_rejected() -> None:
    with pytest.raises(IntegrityError, match="label: unknown encoding 9"):
        decode(9, b"data", 4, "label")


def test_wrong_size_is_rejected_before_decompression() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    assert len(bomb) < 16 * KIB
    with pytest.raises(IntegrityError, match="does not hold 1000 bytes"):
        decode(Encoding.ZSTD, bomb, 1000, "label")
    with pytest.raises(IntegrityError, match="label"):
        decode(Encoding.RAW, b"data", 5, "label")


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-3], lambda data: data + b"x", lambda data: b"", lambda data: b"?" * 50]
)
def test_damaged_frame_is_rejected(spoil: object) -> None:
    assert callable(spoil)
    frame = spoil(zstandard.ZstdCompressor().compress(b"word " * 1000))
    with pytest.raises(IntegrityError, match="label"):
        decode(Encoding.ZSTD, frame, 5000, "label")
