"""Tests of sealing: a frame opens only in its place and with its key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.errors import IntegrityError
from cinderblock.format.crypto.keyring import DataKey, object_sealer
from cinderblock.format.crypto.sealer import TAG_BYTES, FrameKind, Sealer, identity
from cinderblock.format.pack import new_attempt, pack_name, pack_sealer

KEY = DataKey(b"k" * 32)
both = pytest.mark.parametrize("data_key", [None, KEY], ids=["unsealed", "sealed"])


def sealer(data_key: DataKey | None, *names: str) -> Sealer:
    return object_sealer(data_key, identity("pack", *names), "label")


@both
@given(plaintext=st.binary(max_size=300), number=st.integers(0, 2**64 - 1), slot=st.sampled_from(FrameKind))
def test_sealed_frame_opens(data_key: DataKey | None, plaintext: bytes, number: int, slot: FrameKind) -> None:
    one = sealer(data_key, "volume", "backup", "name")
    frame = one.seal(slot, number, plaintext)
    assert len(frame) == len(plaintext) + TAG_BYTES
    assert one.open(slot, number, frame) == plaintext


@both
def test_frame_does_not_open_in_another_place(data_key: DataKey | None) -> None:
    here = sealer(data_key, "volume", "backup", "name")
    frame = here.seal(FrameKind.CONTENT, 5, b"plaintext")
    elsewhere = [
        (here, FrameKind.CONTENT, 6),
        (here, FrameKind.INDEX, 5),
        (sealer(data_key, "volume", "backup", "other"), FrameKind.CONTENT, 5),
        (sealer(data_key, "volume", "other", "name"), FrameKind.CONTENT, 5),
        (sealer(data_key, "other", "backup", "name"), FrameKind.CONTENT, 5),
        (object_sealer(data_key, identity("manifest", "volume", "backup", "name"), "label"), FrameKind.CONTENT, 5),
    ]
    for other, slot, number in elsewhere:
        with pytest.raises(IntegrityError, match="label"):
            other.open(slot, number, frame)


@both
def test_every_changed_or_missing_byte_is_detected(data_key: DataKey | None) -> None:
    one = sealer(data_key, "volume")
    frame = one.seal(FrameKind.CONTENT, 0, b"some plaintext")
    for position in range(len(frame)):
        for spoiled in (
            frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :],
            frame[:position],
            frame[:position] + b"!" + frame[position:],
        ):
            with pytest.raises(IntegrityError):
                one.open(FrameKind.CONTENT, 0, spoiled)


def test_another_data_key_does_not_open_a_frame() -> None:
    frame = sealer(KEY, "volume").seal(FrameKind.CONTENT, 0, b"plaintext")
    with pytest.raises(IntegrityError):
        sealer(DataKey(b"l" * 32), "volume").open(FrameKind.CONTENT, 0, frame)


def test_sealed_and_unsealed_frames_are_distinguished() -> None:
    for written, read in ((KEY, None), (None, KEY)):
        frame = sealer(written, "volume").seal(FrameKind.CONTENT, 0, b"plaintext")
        with pytest.raises(IntegrityError):
            sealer(read, "volume").open(FrameKind.CONTENT, 0, frame)


def test_equal_plaintext_of_two_attempts_gives_different_frames() -> None:
    """With the same key, the equal nonce would reveal at least that the plaintexts are equal."""
    frames = {
        pack_sealer(KEY, "volume", "backup", pack_name(new_attempt(), 0), "label").seal(FrameKind.CONTENT, 0, bytes(64))
        for _ in range(50)
    }
    assert len(frames) == 50
    assert len({frame[:16] for frame in frames}) == 50


def test_identities_of_different_names_never_coincide() -> None:
    assert identity("pack", "ab", "c") != identity("pack", "a", "bc")
    assert identity("pack", "a") != identity("pack", "a", "")


@both
def test_sealing_into_a_buffer_changes_nothing_behind_the_frame(data_key: DataKey | None) -> None:
    buffer = bytearray(b"\xaa" * 100)
    length = sealer(data_key, "volume").seal_into(FrameKind.CONTENT, 0, b"plaintext", memoryview(buffer)[10:])
    assert buffer[:10] == b"\xaa" * 10
    assert buffer[10 + length :] == b"\xaa" * (90 - length)
