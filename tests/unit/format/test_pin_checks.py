"""Tests that a reader compares a manifest with its expectation, and never with the manifest itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from cinderblock.api.pins import Pins
from cinderblock.errors import ForeignManifest, IntegrityError, ManifestReplaced, SealBroken, SealedTooLate
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import read_header, read_summary
from tests.support.mover.backups import KEYS, NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource


def make_backup(keys: KeyRing | None) -> Backups:
    backups = Backups(keys=keys)
    source = MemorySource()
    source.add(b"file", (0, b"content"))
    backups.back_up(source, "one")
    return backups


def read(backups: Backups, **expected: Any) -> None:
    """Read the manifest of backup "one" with changed expectations."""
    key = backups.manifest_key("one")
    changed = backups.expected("one").model_copy(update=expected)
    read_summary(partial(backups.store.get, key), backups.keys, changed, key)


def pins(backups: Backups, **other: Any) -> Pins:
    return backups.pins["one"].model_copy(update=other)


sealed_and_unsealed = pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])


@sealed_and_unsealed
def test_reported_pins_match_the_manifest(keys: KeyRing | None) -> None:
    backups = make_backup(keys)
    read(backups)
    read(backups, content_digest=backups.pins["one"].content_digest)


@sealed_and_unsealed
@pytest.mark.parametrize("name", ["volume_id", "backup_id"])
def test_manifest_with_another_id_is_foreign(keys: KeyRing | None, name: str) -> None:
    backups = make_backup(keys)
    with pytest.raises(ForeignManifest, match=r"one.manifest is the manifest of backup one .* but should be .*other"):
        read(backups, **{name: "other"})


@sealed_and_unsealed
@pytest.mark.parametrize("other", [{"salt": "0" * 32}, {"content_digest": "0" * 64}], ids=str)
def test_manifest_with_another_pin_is_replaced(keys: KeyRing | None, other: dict[str, str]) -> None:
    backups = make_backup(keys)
    with pytest.raises(ManifestReplaced, match="0" * 32):
        read(backups, pins=pins(backups, **other))


@sealed_and_unsealed
def test_manifest_with_another_expected_digest_is_replaced(keys: KeyRing | None) -> None:
    with pytest.raises(ManifestReplaced, match="content digest"):
        read(make_backup(keys), content_digest="0" * 64)


def test_unsealed_manifest_of_a_sealed_backup_has_a_broken_seal() -> None:
    backups = make_backup(None)
    for expected in ({"sealed": True}, {"pins": pins(backups, suite=1)}):
        with pytest.raises(SealBroken, match="not encrypted"):
            read(backups, **expected)


def test_sealed_manifest_of_an_unsealed_backup_is_replaced() -> None:
    backups = make_backup(key_ring())
    with pytest.raises(ManifestReplaced):
        read(backups, sealed=False, pins=pins(backups, suite=0))


@sealed_and_unsealed
def test_header_is_checked_without_a_key(keys: KeyRing | None) -> None:
    backups = make_backup(keys)
    key = backups.manifest_key("one")
    for other in ({"backup_id": "other"}, {"pins": pins(backups, salt="0" * 32)}):
        with pytest.raises(IntegrityError):
            read_header(partial(backups.store.get, key), backups.expected("one").model_copy(update=other), key)


@pytest.mark.parametrize(
    ("mark", "created_at", "is_found"),
    [
        (NOON, None, False),
        (NOON - timedelta(seconds=1), None, True),
        (NOON, NOON + timedelta(seconds=1), True),
        (NOON - timedelta(seconds=1), NOON - timedelta(days=1), False),
        (datetime(2020, 1, 1, tzinfo=UTC), None, True),
    ],
)
def test_read_only_key_opens_nothing_newer_than_its_mark(
    mark: datetime, created_at: datetime | None, is_found: bool
) -> None:
    backups = make_backup(key_ring("2024"))
    backups.keys = KeyRing(KEYS, "2025", "the Secret", {"2024": mark})
    if not is_found:
        read(backups, created_at=created_at)
        return
    with pytest.raises(SealedTooLate, match=r"one.manifest .*2024"):
        read(backups, created_at=created_at)


def test_marks_of_other_keys_do_not_matter() -> None:
    backups = make_backup(key_ring("2025"))
    backups.keys = KeyRing(KEYS, "2025", "the Secret", {"2024": datetime(2020, 1, 1, tzinfo=UTC)})
    read(backups)
