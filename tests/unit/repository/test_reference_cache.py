"""The reference cache keeps its limit, and dropped manifests are read again."""

from __future__ import annotations

import sys

import pytest

from cinderblock.errors import TooLarge
from cinderblock.repository.objects import BackupRef
from cinderblock.repository.reference_cache import CACHE_BYTES, BackupIdTable, ReferenceCache, VolumeReferences
from cinderblock.repository.references import References
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import PREFIX, VOLUME
from tests.support.mover.parent_chains import a_line, name


def manifest(backup_id: str) -> BackupRef:
    return BackupRef(f"backups/v/{backup_id}.manifest", "v", backup_id, 5000)


def learn_a_line(known: VolumeReferences, count: int) -> None:
    """Add references of so many incremental backups, each of which lists packs of all earlier ones."""
    ids = [f"{number:08d}-9f0c-4b5e-8a38-2a1f6d9c3e11" for number in range(count)]
    for number, backup_id in enumerate(ids):
        known.add(manifest(backup_id), ids[number - 1] if number else None, ids[:number], None)


def test_set_of_ids_is_one_bit_for_each() -> None:
    table = BackupIdTable()
    ids = [f"id-{number}" for number in range(2000)]
    bits = table.bits(ids[::2])
    assert [table.has(bits, backup_id) for backup_id in ids[:4]] == [True, False, True, False]
    assert not table.has(bits, "never heard of")
    assert sys.getsizeof(bits) < 200


def test_line_of_a_year_of_hourly_backups_fits() -> None:
    volumes = ReferenceCache()
    known = volumes.of("volume")
    learn_a_line(known, 2000)
    volumes.account("volume")
    assert volumes.of("volume") is known
    # The set of bits grows with the line: 8,760 backups take 4.4 times as many sets that are 4.4 times as long.
    sets = 2000 * 2000 // 2 // 7.5
    assert volumes.bytes < 2000 * 700 + sets
    assert 8760 * 700 + 4.38**2 * sets < CACHE_BYTES


def test_estimated_memory_is_the_used_memory() -> None:
    known = VolumeReferences()
    learn_a_line(known, 1000)
    measured = _size(known._lists) + _size(known._ids._ids)
    assert 0.5 < known.bytes / measured < 2


def _size(table: dict[str, object]) -> int:
    """Return the bytes of a dictionary with its keys and values, including the slots of values."""
    values = sum(sys.getsizeof(value) + sys.getsizeof(getattr(value, "packs_of", 0)) for value in table.values())
    return sys.getsizeof(table) + values + sum(sys.getsizeof(key) for key in table)


def test_least_recently_used_volumes_are_dropped() -> None:
    volumes = ReferenceCache(limit=30_000)
    kept = {}
    for number in range(10):
        kept[number] = volumes.of(number)
        learn_a_line(kept[number], 10)
        volumes.account(number)
        volumes.of(0)
        assert volumes.bytes <= 30_000
    assert volumes.of(0) is kept[0]
    assert volumes.of(9) is kept[9]
    assert volumes.of(1) is not kept[1]


def test_volume_above_the_limit_is_read_each_time() -> None:
    line, volumes = a_line(4), ReferenceCache(limit=100)
    answers, gets = [], []
    for _ in range(2):
        store = CountedStore(line.backups.store)
        look = References(store, PREFIX, VOLUME, None, volumes.of(VOLUME))
        look.read_all()
        answers.append(look.needs(name(0)).by)
        gets.append(store.counts.gets)
        volumes.account(VOLUME)
        assert volumes.bytes == 0
    assert answers == [(name(1), name(2), name(3))] * 2
    assert gets[0] == gets[1] > 0


def test_manifests_that_list_more_backups_than_a_volume_has_are_refused() -> None:
    """65,536 ids fit into the footer of one manifest, and anybody with the bucket can write 100,000 manifests."""
    known = VolumeReferences(limit=2_000_000)
    for number in range(7):
        known.add(manifest(f"b-{number}"), None, [f"{number}-{other}" for other in range(1000)], None)
    assert 1_700_000 < known.bytes < 2_000_000
    with pytest.raises(TooLarge, match=r"Find out who writes to the container.*b-7\.manifest"):
        known.add(manifest("b-7"), None, [f"7-{other}" for other in range(1000)], None)
    assert known.is_empty
    known.add(manifest("b-0"), None, ["b-1"], None)
    assert known.bytes < 10_000


def test_volumes_without_backups_take_nothing() -> None:
    volumes = ReferenceCache()
    for number in range(100):
        volumes.of(number)
        volumes.account(number)
    assert (volumes.bytes, len(volumes._volumes)) == (0, 0)


@pytest.mark.parametrize("gone", [1, 3])
def test_manifests_missing_from_the_listing_are_dropped(gone: int) -> None:
    line, known = a_line(4), VolumeReferences()
    line.references(known=known).read_all()
    before = known.bytes
    line.backups.store.delete([line.key(name(gone))])
    look = line.references(known=known)
    assert look.is_complete
    assert known.bytes < before
    assert name(gone) not in look.needs(name(0)).by
