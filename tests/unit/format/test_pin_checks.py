"""A reader compares a manifest with what it expects, and never with the manifest itself."""

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


def a_backup(keys: KeyRing | None) -> Backups:
    backups = Backups(keys=keys)
    source = MemorySource()
    source.add(b"file", (0, b"content"))
    backups.back_up(source, "one")
    return backups


def read(backups: Backups, **expected: Any) -> None:
    """Read the manifest of backup "one" and expect of it what is said."""
    key = backups.manifest_key("one")
    wanted = backups.expected("one").model_copy(update=expected)
    read_summary(partial(backups.store.get, key), backups.keys, wanted, key)


def pins(backups: Backups, **other: Any) -> Pins:
    return backups.pins["one"].model_copy(update=other)


both = pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])


@both
def test_what_a_mover_has_reported_is_found_again(keys: KeyRing | None) -> None:
    backups = a_backup(keys)
    read(backups)
    read(backups, content_digest=backups.pins["one"].content_digest)


@both
@pytest.mark.parametrize("name", ["volume_id", "backup_id"])
def test_another_id_is_a_foreign_manifest(keys: KeyRing | None, name: str) -> None:
    backups = a_backup(keys)
    with pytest.raises(ForeignManifest, match=r"one.manifest is the manifest of backup one .* but should be .*other"):
        read(backups, **{name: "other"})


@both
@pytest.mark.parametrize("other", [{"salt": "0" * 32}, {"content_digest": "0" * 64}], ids=str)
def test_another_pin_is_a_replaced_manifest(keys: KeyRing | None, other: dict[str, str]) -> None:
    backups = a_backup(keys)
    with pytest.raises(ManifestReplaced, match="0" * 32):
        read(backups, pins=pins(backups, **other))


@both
def test_another_digest_than_a_person_has_noted_is_a_replaced_manifest(keys: KeyRing | None) -> None:
    with pytest.raises(ManifestReplaced, match="content digest"):
        read(a_backup(keys), content_digest="0" * 64)


def test_a_manifest_that_must_be_sealed_and_is_not_has_a_broken_seal() -> None:
    backups = a_backup(None)
    for expected in ({"sealed": True}, {"pins": pins(backups, suite=1)}):
        with pytest.raises(SealBroken, match="not encrypted"):
            read(backups, **expected)


def test_a_sealed_manifest_in_the_place_of_one_that_is_not_is_a_replaced_manifest() -> None:
    backups = a_backup(key_ring())
    with pytest.raises(ManifestReplaced):
        read(backups, sealed=False, pins=pins(backups, suite=0))


@both
def test_a_header_is_compared_without_a_key(keys: KeyRing | None) -> None:
    backups = a_backup(keys)
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
def test_a_read_only_key_opens_nothing_newer_than_its_mark(
    mark: datetime, created_at: datetime | None, is_found: bool
) -> None:
    backups = a_backup(key_ring("2024"))
    backups.keys = KeyRing(KEYS, "2025", "the Secret", {"2024": mark})
    if not is_found:
        read(backups, created_at=created_at)
        return
    with pytest.raises(SealedTooLate, match=r"one.manifest .*2024"):
        read(backups, created_at=created_at)


def test_marks_of_other_keys_do_not_matter() -> None:
    backups = a_backup(key_ring("2025"))
    backups.keys = KeyRing(KEYS, "2025", "the Secret", {"2024": datetime(2020, 1, 1, tzinfo=UTC)})
    read(backups)
