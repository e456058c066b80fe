"""Tests of read-only keys: they open what they have sealed, and seal nothing more."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from cinderblock.errors import InvalidInput, KeyUnavailable
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.crypto.read_only_keys import parse_read_only_keys
from tests.support.mover.backups import KEYS

MARK = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECRET = {key_id: base64.b64encode(key) for key_id, key in KEYS.items()}


def test_ids_and_times_are_parsed() -> None:
    assert parse_read_only_keys(" 2024=2026-01-31T12:00:00Z, b.key=2026-01-31T13:00:00+01:00 ,", "it") == {
        "2024": MARK,
        "b.key": MARK,
    }
    assert parse_read_only_keys("", "it") == {}


@pytest.mark.parametrize(
    "text",
    [
        *("2024", "2024=", "=2026-01-31T12:00:00Z", "2024=2026-01-31", "2024=2026-01-31T12:00:00", "2024=soon"),
        "2024=0001-01-01T00:00:00+14:00",
    ],
)
def test_malformed_annotation_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="Cannot read annotation a of Secret s") as caught:
        parse_read_only_keys(f"ok=2026-01-31T12:00:00Z,{text}", "annotation a of Secret s")
    assert repr(text) in caught.value.message


def test_key_named_twice_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        parse_read_only_keys("a=2026-01-31T12:00:00Z,a=2026-02-01T12:00:00Z", "it")


def test_greatest_key_id_that_is_not_read_only_is_active() -> None:
    assert KeyRing.from_secret(SECRET, None).active == "2025"
    assert KeyRing.from_secret(SECRET, None, read_only={"2025": MARK}).active == "2024"


def test_read_only_active_key_is_rejected() -> None:
    with pytest.raises(KeyUnavailable, match="2025") as caught:
        KeyRing.from_secret(SECRET, "2025", read_only={"2025": MARK})
    assert caught.value.reason == "ReadOnlyKey"


def test_ring_of_read_only_keys_opens_but_seals_nothing() -> None:
    owner, data_key = ("volume", "backup"), DataKey.random()
    wrapped = KeyRing.from_secret(SECRET, "2024").wrap(data_key, owner)
    ring = KeyRing.from_secret(SECRET, None, read_only=dict.fromkeys(SECRET, MARK))
    assert ring.unwrap(wrapped, owner).reveal() == data_key.reveal()
    with pytest.raises(KeyUnavailable, match="all keys") as caught:
        ring.wrap(data_key, owner)
    assert caught.value.reason == "ReadOnlyKey"


def test_read_only_key_wraps_nothing() -> None:
    ring = KeyRing.from_secret(SECRET, None, read_only={"2024": MARK})
    with pytest.raises(KeyUnavailable, match="2024"):
        ring.wrap(DataKey.random(), ("volume", "backup"), "2024")


def test_mark_of_a_missing_key_is_rejected() -> None:
    """A mark with a typing error would silently protect nothing."""
    with pytest.raises(InvalidInput, match="2042"):
        KeyRing.from_secret(SECRET, None, read_only={"2042": MARK})
