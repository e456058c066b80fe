"""A key rotation rewraps data keys, and does not change packs."""

from __future__ import annotations

import random

import pytest

from cinderblock.errors import InvalidInput, KeyUnavailable, NotFound
from cinderblock.format.crypto.keyring import DataKey, KeyRing, scope_in, scope_of
from cinderblock.format.crypto.sealer import FORMAT_VERSION
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import KEYS, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

OLD, BOTH, NEW = key_ring("2024"), key_ring("2024", "2025"), key_ring("2025")


@pytest.fixture
def volume() -> MemorySource:
    source = MemorySource()
    source.add(b"file", (0, random.Random(1).randbytes(100_000)))
    return source


@pytest.fixture
def backups(volume: MemorySource) -> Backups:
    """Return backups "one", and "two" that needs its packs, sealed with the old key."""
    made = Backups(keys=OLD)
    made.back_up(volume, "one")
    volume.add(b"more", (0, b"more"), stamp=9)
    made.back_up(volume, "two", "one")
    return made


def test_backup_opens_with_the_new_key_alone(backups: Backups) -> None:
    header = run_rewrap(backups.store, backups.manifest_key("one"), backups.expected("one"), BOTH)
    assert header.key_id == "2025"
    Backups(backups.store, NEW).verify("one")
    with pytest.raises(KeyUnavailable, match="2025"):
        Backups(backups.store, OLD).verify("one")


def test_child_is_not_concerned_by_its_parents_key(backups: Backups) -> None:
    run_rewrap(backups.store, backups.manifest_key("one"), backups.expected("one"), BOTH)
    Backups(backups.store, OLD).verify("two")
    run_rewrap(backups.store, backups.manifest_key("two"), backups.expected("two"), BOTH)
    Backups(backups.store, NEW).verify("two")


def test_one_object_is_replaced_and_its_sealed_part_stays(backups: Backups) -> None:
    before = backups.store.get(backups.manifest_key("one"))
    counted = CountedStore(backups.store)
    run_rewrap(counted, backups.manifest_key("one"), backups.expected("one"), BOTH)
    assert (counted.counts.puts, counted.counts.deletes) == (1, 0)
    after = backups.store.get(backups.manifest_key("one"))
    assert after[HEADER_BYTES:] == before[HEADER_BYTES:]


def test_key_rotation_does_not_disturb_a_running_reader(volume: MemorySource) -> None:
    keys = {"2024": KEYS["2024"], "2025": KEYS["2025"], "a-much-longer-key-id": KEYS["2025"]}
    backups = Backups(keys=KeyRing(keys, "2024"))
    backups.back_up(volume, "one")
    reader = backups.open("one")
    run_rewrap(
        backups.store, backups.manifest_key("one"), backups.expected("one"), KeyRing(keys, "a-much-longer-key-id")
    )
    assert len(list(reader.entries())) == 2


def test_wrapping_with_the_key_that_wraps_it_already_does_nothing(backups: Backups) -> None:
    counted = CountedStore(backups.store)
    run_rewrap(counted, backups.manifest_key("one"), backups.expected("one"), BOTH, "2024")
    assert counted.counts.puts == 0


def test_next_incremental_continues_after_the_rotation(backups: Backups, volume: MemorySource) -> None:
    for backup in ("one", "two"):
        run_rewrap(backups.store, backups.manifest_key(backup), backups.expected(backup), BOTH)
    new = Backups(backups.store, NEW)
    new.back_up(volume, "three", "two")
    assert new.verify("three").entries == 3


def test_new_wrapping_stays_bound_to_its_namespace() -> None:
    data_key = DataKey.random()
    for scope in (scope_of("the UID of a namespace"), b""):
        wrapped = OLD.wrap(data_key, ("volume", "backup"), scope=scope)
        header = ManifestHeader(FORMAT_VERSION, "backup", "volume", None, bytes(16), wrapped)
        again = header.rewrapped(BOTH, "2025").wrapped
        assert again is not None
        assert (scope_in(again), len(again.salt)) == (scope, 32)
        assert again.salt != wrapped.salt
        assert NEW.unwrap(again, ("volume", "backup")).reveal() == data_key.reveal()


def test_no_leftover_keeps_the_data_key_under_the_old_key(backups: Backups) -> None:
    """Packs hold no wrapped key, and a committed backup has no object with a wrapped key."""
    assert [key for key in backups.pack_keys("one") if key.endswith("data-key")] == []


def test_missing_key_is_named(backups: Backups) -> None:
    with pytest.raises(KeyUnavailable, match="2030"):
        run_rewrap(backups.store, backups.manifest_key("one"), backups.expected("one"), BOTH, "2030")
    with pytest.raises(KeyUnavailable, match="2024"):
        run_rewrap(backups.store, backups.manifest_key("one"), backups.expected("one"), NEW)
    Backups(backups.store, OLD).verify("one")


def test_unsealed_backup_has_no_key_to_wrap(volume: MemorySource) -> None:
    plain = Backups()
    plain.back_up(volume, "one")
    with pytest.raises(InvalidInput, match="not sealed"):
        run_rewrap(plain.store, plain.manifest_key("one"), plain.expected("one"), BOTH)


def test_missing_backup_is_not_found() -> None:
    backups = Backups()
    with pytest.raises(NotFound):
        run_rewrap(backups.store, backups.manifest_key("one"), backups.expected("one"), BOTH)
