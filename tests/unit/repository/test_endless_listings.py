"""Code that lists a store limits the objects and the time, and holds few objects."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

from cinderblock.api.layout import backup_prefix, manifest_key, pack_prefix
from cinderblock.api.mover import MoverOperation
from cinderblock.archiver import commit
from cinderblock.errors import CinderblockError, StoreTooSlow, StoreUnreachable, TooLarge
from cinderblock.format.pack import PackTable, pack_name
from cinderblock.repository import catalog as catalog_module
from cinderblock.repository import objects
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.resume import UnfinishedBackup
from cinderblock.store.base import ObjectInfo
from cinderblock.store.deadline import limit_seconds, remaining_seconds
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import RetryClock, RetryingStore
from tests.support.mover.backups import PREFIX, VOLUME, Backups

BACKUP = "b0"
LISTED = 8000
MEMORY_BYTES = 1 << 20
"""Half of what these keys and sizes take together."""
PACKS = pack_prefix(PREFIX, VOLUME, BACKUP)


def _pack(number: int) -> str:
    return PACKS + pack_name("0" * 32, number)


def _manifest(number: int) -> str:
    return manifest_key(PREFIX, VOLUME, f"0f8fad5b-d9cb-469f-a165-{number:012}")


@dataclass
class EndlessStore(MemoryStore):
    """A store that lists objects without end below one prefix, and does not hold them.

    Attributes:
        name: returns the key of each by its number.
        below: prefix of the endless listing.
        seconds: how long the listings might take.
        keys: number of keys that were listed.
    """

    name: Callable[[int], str]
    below: str
    seconds: list[float] = field(default_factory=list)
    keys: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if not prefix.startswith(self.below):
            yield from super().list(prefix)
            return
        self.seconds.append(remaining_seconds())
        for number in itertools.count():
            self.keys += 1
            yield ObjectInfo(self.name(number), 1)


@pytest.fixture(autouse=True)
def _few_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_LISTED", LISTED)


def _resume(store: MemoryStore) -> None:
    unfinished = UnfinishedBackup(store, PREFIX, VOLUME, BACKUP)
    for _ in unfinished.chunks(None, PackTable()):
        pass


PACK_LISTS: dict[str, Callable[[MemoryStore, Path], object]] = {
    "resume": lambda store, _: _resume(store),
    "commit": lambda store, path: commit._compare(
        Backups(store).task(MoverOperation.BACKUP, BACKUP, path=path), store, BACKUP, {}
    ),
}
MANIFEST_LISTS: dict[str, Callable[[Catalog], object]] = {
    "find": lambda catalog: catalog.find("0f8f"),
    "namesakes": lambda catalog: catalog.namesakes(BACKUP),
    "read entries": lambda catalog: catalog.read_entries(catalog.list_backups()),
    "newest": lambda catalog: catalog.find_newest(VOLUME),
}


def _peak(call: Callable[[], object], error: type[CinderblockError]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(error):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", PACK_LISTS)
def test_endless_list_of_packs_ends_with_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    store = EndlessStore(_pack, PACKS)
    assert _peak(partial(PACK_LISTS[name], store, tmp_path), TooLarge) < MEMORY_BYTES
    assert store.keys <= LISTED + 1
    assert all(seconds <= objects.LISTING_SECONDS for seconds in store.seconds)


@pytest.mark.parametrize("name", MANIFEST_LISTS)
def test_endless_list_of_manifests_ends_with_an_error(name: str) -> None:
    store = EndlessStore(_manifest, backup_prefix(PREFIX))
    catalog = Catalog(store, PREFIX)
    peak = _peak(partial(MANIFEST_LISTS[name], catalog), TooLarge)
    assert store.keys <= LISTED + 1
    if name in {"find", "namesakes"}:
        assert peak < MEMORY_BYTES


@pytest.mark.parametrize("name", ["find", "read entries", "newest"])
def test_list_of_manifests_has_limited_time(name: str) -> None:
    store = EndlessStore(_manifest, backup_prefix(PREFIX))
    with pytest.raises(TooLarge):
        MANIFEST_LISTS[name](Catalog(store, PREFIX))
    assert store.seconds
    assert all(seconds <= objects.LISTING_SECONDS for seconds in store.seconds)


def test_entries_that_are_read_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_ENTRIES", 10)
    store = EndlessStore(_manifest, backup_prefix(PREFIX))
    with pytest.raises(TooLarge, match="more than 10"):
        Catalog(store, PREFIX).read_entries(Catalog(store, PREFIX).list_backups())
    assert store.keys <= 11


def test_exact_id_is_found_among_many_that_begin_with_it() -> None:
    store = MemoryStore()
    for backup in ("b", "b1", "b2"):
        store.put(manifest_key(PREFIX, VOLUME, backup), b"")
    assert Catalog(store, PREFIX).find("b").backup_id == "b"


def test_more_surplus_than_is_collected_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cinderblock.archiver.commit._COLLECTED_KEYS", 3)
    (tmp_path / "file").write_bytes(b"content")
    backups = Backups()
    for number in range(10):
        backups.store.put(PACKS + pack_name("f" * 32, number), b"damaged")
    backups.back_up(tmp_path, BACKUP)
    assert len(list(backups.store.list(PACKS))) == 1
    assert backups.verify(BACKUP).packs == 1


def test_listing_that_fails_after_every_key_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "LISTING_SECONDS", 0.05)

    class Failing(EndlessStore):
        """A store that breaks off after each key that the caller does not have yet."""

        @override
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            self.keys += 1
            for number in range(self.keys):
                yield ObjectInfo(_manifest(number), 1)
            raise StoreUnreachable("away")

    inside = Failing(_manifest, "")
    clock = RetryClock(sleep=lambda _: None, uniform=lambda *_: 0.01)
    with pytest.raises(StoreUnreachable):
        Catalog(RetryingStore(inside, clock=clock), PREFIX).find("0f8f")


def test_reading_of_manifests_ends_with_the_deadline_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    backups = Backups()
    backups.back_up(tmp_path, BACKUP)
    catalog = Catalog(backups.store, PREFIX)
    found = next(catalog.list_backups())
    with limit_seconds(0):
        with pytest.raises(StoreTooSlow):
            catalog.read_summary(found)
        with pytest.raises(StoreTooSlow):
            catalog.references(VOLUME).read_batch()
