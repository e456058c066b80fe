"""Tests of the key ring: keys are parsed strictly, wrapped with fresh salts, and never shown."""

from __future__ import annotations

import base64

import pytest

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.manifest.header import new_header

OWNER = ("volume", "backup")
SECRET = b"0123456789abcdefghijklmnopqrstuv"


def encoded(key: bytes) -> bytes:
    return base64.b64encode(key)


@pytest.mark.parametrize("around", [b"%s", b"%s\n", b"  %s\r\n"])
def test_secret_gives_its_keys(around: bytes) -> None:
    ring = KeyRing.from_secret({"one": around % encoded(SECRET)}, None)
    assert ring.active == "one"
    data_key = DataKey.random()
    assert ring.unwrap(ring.wrap(data_key, OWNER), OWNER).reveal() == data_key.reveal()


def test_greatest_key_id_is_active_by_default() -> None:
    data = {key_id: encoded(SECRET) for key_id in ("2024", "2026", "2025")}
    assert KeyRing.from_secret(data, None).active == "2026"
    assert KeyRing.from_secret(data, "2024").active == "2024"
    assert sorted(KeyRing.from_secret(data, None).key_ids) == ["2024", "2025", "2026"]


@pytest.mark.parametrize(
    "value",
    [b"", b"!" * 44, SECRET, encoded(SECRET[:31]), encoded(SECRET + b"x"), encoded(SECRET)[:-1], b"\xff" * 44],
)
def test_malformed_key_is_named_but_not_shown(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="'bad'") as caught:
        KeyRing.from_secret({"good": encoded(SECRET), "bad": value}, None)
    shown = repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__ or "")
    assert not value or value.decode("latin-1") not in shown


def test_empty_secret_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        KeyRing.from_secret({}, None)


def test_missing_active_key_is_named() -> None:
    with pytest.raises(KeyUnavailable, match="'2030'"):
        KeyRing.from_secret({"2024": encoded(SECRET)}, "2030")


def test_each_wrapping_differs_and_opens_only_for_its_owner() -> None:
    ring = KeyRing({"one": SECRET}, "one")
    data_key = DataKey.random()
    first, second = ring.wrap(data_key, OWNER), ring.wrap(data_key, OWNER)
    assert first.sealed != second.sealed
    assert first.salt != second.salt
    for owner in (("volume", "other"), ("other", "backup")):
        with pytest.raises(IntegrityError):
            ring.unwrap(first, owner)


def test_changed_wrapping_does_not_open() -> None:
    ring = KeyRing({"one": SECRET, "two": SECRET}, "one")
    wrapped = ring.wrap(DataKey.random(), OWNER)
    for spoiled in (
        wrapped._replace(key_id="two"),
        wrapped._replace(salt=bytes(32)),
        wrapped._replace(salt=wrapped.salt[:-1]),
        wrapped._replace(sealed=bytes(48)),
        wrapped._replace(sealed=wrapped.sealed[:-1]),
    ):
        with pytest.raises(IntegrityError):
            ring.unwrap(spoiled, OWNER)


def test_missing_key_is_named() -> None:
    wrapped = KeyRing({"old": SECRET}, "old").wrap(DataKey.random(), OWNER)
    with pytest.raises(KeyUnavailable, match="'old'"):
        KeyRing({"new": SECRET}, "new").unwrap(wrapped, OWNER)


def test_no_object_shows_its_key() -> None:
    ring, data_key = KeyRing({"one": SECRET}, "one"), DataKey(SECRET)
    header = new_header(*OWNER, None, data_key, ring)
    for thing in (ring, data_key, header, data_key.sealer(b"", "label")):
        shown = repr(thing) + str(thing)
        assert SECRET.decode() not in shown
        assert SECRET.hex() not in shown
        assert header.salt.hex() not in shown


def test_data_key_of_a_wrong_length_is_rejected_without_showing_it() -> None:
    with pytest.raises(IntegrityError) as caught:
        DataKey(b"short secret")
    assert "secret" not in caught.value.message
