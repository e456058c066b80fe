"""Removals of thousands of backups of one volume take few requests for each, and no footer is read twice."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil
from typing import Final

import pytest
from typing_extensions import override

from cinderblock.api.layout import manifest_key, pack_prefix
from cinderblock.format.manifest.header import new_header
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import Origin, PackTable, pack_name
from cinderblock.lifecycle.backup.expiry import MAX_BATCH
from cinderblock.repository.expiry import Expiry
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.references import References
from cinderblock.store.base import DELETE_BATCH_KEYS
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retention import NoRetention, ObjectState
from tests.support.mover.backups import NOON, PREFIX, VOLUME, Backups

YEAR: Final = 8760
"""Hourly backups of a year."""
DEPTH: Final = 24
"""Backups whose packs a backup lists, itself included. Each also lists the packs of the first one."""
ATTEMPT: Final = "0" * 32
SIZES = (200, pytest.param(YEAR, marks=[pytest.mark.long, pytest.mark.timeout(1800)]))


class CountedLooks(NoRetention):
    """A retention that counts how often objects are inspected, each time with a request."""

    def __init__(self) -> None:
        self.looks = 0

    @override
    def inspect(self, _key: str, /) -> ObjectState:
        self.looks += 1
        return ObjectState(exists=True)


class Hours:
    """A volume with an hourly incremental backup, in a store that counts requests."""

    def __init__(self, count: int) -> None:
        self.memory = MemoryStore()
        self.kept = CountedLooks()
        self.store = CountedStore(self.memory)
        self.known = VolumeReferences()
        self.count = count
        for number in range(count):
            self._make(number)

    def _make(self, number: int) -> None:
        backup, parent = name(number), name(number - 1) if number else None
        packs = PackTable()
        for listed in sorted({0, *range(max(0, number - DEPTH + 1), number + 1)}):
            packs.add(Origin(name(listed), ATTEMPT), 0, 4)
        key = manifest_key(PREFIX, VOLUME, backup)
        header = new_header(VOLUME, backup, parent, None, None)
        writer = ManifestWriter(header, header.sealer(None, key), packs)
        for pack in range(len(packs)):
            # An entry with data in each of the packs would do the same.
            writer._used.final(pack)
        task = Backups().task("backup", backup, created_at=NOON)  # type: ignore[arg-type]
        self.memory.put(pack_prefix(PREFIX, VOLUME, backup) + pack_name(ATTEMPT, 0), b"pack")
        self.memory.put(key, bytes(writer.finish(task.backup, 1 << 20, {})))

    def expire(self, numbers: Collection[int]) -> int:
        """Remove backups as the operator does, a batch at a time. Return how many requests that takes on S3."""
        before, looks = self.store.counts, self.kept.looks
        waiting = [name(number) for number in numbers]
        pages = 0
        for start in range(0, len(waiting), MAX_BATCH):
            batch = waiting[start : start + MAX_BATCH]
            run = Expiry(self, PREFIX, VOLUME, batch, self._begin, clock=lambda: NOON)  # type: ignore[arg-type]
            for _ in run.steps():
                pass
            assert run.removed.keys() == set(batch)
            pages += 3
        now = self.store.counts
        listed = now.keys_listed - before.keys_listed
        deleted = now.keys_deleted - before.keys_deleted
        requests = now.gets + now.puts - before.gets - before.puts + self.kept.looks - looks
        return requests + ceil(listed / 1000) + ceil(deleted / DELETE_BATCH_KEYS) + 3 * pages

    def _begin(self) -> References:
        return References(self.store, PREFIX, VOLUME, None, self.known)

    @property
    def retention(self) -> CountedLooks:
        return self.kept

    def __getattr__(self, attribute: str) -> object:
        return getattr(self.store, attribute)


def name(number: int) -> str:
    return f"h-{number:05d}"


@pytest.mark.parametrize("count", SIZES)
def test_half_of_a_year_that_expires_at_once(count: int) -> None:
    hours = Hours(count)
    assert hours.expire(range(count // 2)) <= 3 * count + 50
    assert hours.expire(range(count // 2, count)) <= 3 * count // 2 + 50, "nothing is read again"
    assert list(hours.memory.list("")) == []


@pytest.mark.parametrize("count", SIZES)
def test_thinning_a_year_to_days(count: int) -> None:
    hours = Hours(count)
    kept = set(range(0, count, DEPTH))
    gone = [number for number in range(count) if number not in kept]
    assert hours.expire(gone) <= 3.2 * count + 50, "a manifest, a search for locks and a mark for each"
    assert len(list(hours.memory.list(f"{PREFIX}/backups/"))) == len(kept)
    assert hours.expire(sorted(kept)) <= 4 * len(kept) + 50
    assert list(hours.memory.list("")) == []


@pytest.mark.parametrize("count", SIZES)
def test_every_second_one(count: int) -> None:
    hours = Hours(count)
    assert hours.expire(range(0, count, 2)) <= 3.6 * count + 50, "each one that stays lists packs that others do not"


@pytest.mark.parametrize("count", SIZES)
def test_one_each_hour_takes_few_requests(count: int) -> None:
    hours = Hours(count)
    hours.expire([0])
    pages = 4 * ceil(count / 1000)
    for number in range(1, 20):
        assert hours.expire([number]) <= 12 + 3 * pages, "a footer that is known is not read again, except the heir's"
