"""Crashes of a mover before and after each request: the next mover has the same result.

An undisturbed run counts the calls, so none is forgotten. tests/simulation/test_crashes.py covers the operator's own
writes to the API server and deletions in the store, also with movers that die at each object.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from typing_extensions import override

from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore, Operation
from tests.support.store.golden import describe_all
from tests.unit.format.test_stored_format import read_by_page

pytestmark = pytest.mark.usefixtures("burying")

MIB = 1 << 20
LATEST = 1000

Volume = Callable[[], MemorySource]


class Counting(MemoryStore):
    """A store that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Operation] = []

    @override
    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        self.calls.append("put")
        super().put(key, body, lock)

    @override
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.calls.append("get")
        return super().get(key, start, length)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.calls.append("list")
        return super().list(prefix)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        self.calls.append("delete")
        super().delete(keys)


@cache
def first() -> MemorySource:
    """Return a volume with data for two packs, in small and large files."""
    rnd, source = random.Random(1), MemorySource()
    for number in range(50):
        source.add(b"small%03d" % number, (0, rnd.randbytes(rnd.randrange(1, 50000))))
    source.add(b"large", (0, rnd.randbytes(20 * MIB)))
    source.add(b"zz-newest", (0, b"newest"), stamp=LATEST)
    return source


@cache
def second() -> MemorySource:
    """Return the volume with some files changed, removed and new, for another pack."""
    rnd, source = random.Random(2), MemorySource()
    source.files = dict(first().files)
    for number in range(0, 50, 7):
        source.add(b"small%03d" % number, (0, rnd.randbytes(30000)), stamp=LATEST + 1)
    del source.files[b"small049"]
    source.add(b"new", (0, rnd.randbytes(4 * MIB)), stamp=LATEST + 1)
    return source


def parent_in(store: MemoryStore, keys: KeyRing | None, name: str) -> str | None:
    """Make the parent of the backup of this name, if it has one."""
    if name == "full":
        return None
    Backups(store, keys).back_up(first(), "parent")
    return "parent"


VOLUMES: dict[str, Volume] = {"full": first, "incremental": second}


def calls_of(name: str, keys: KeyRing | None) -> list[Operation]:
    """Return the calls of an undisturbed backup, without those for its parent."""
    store = Counting()
    parent = parent_in(store, keys, name)
    store.calls.clear()
    Backups(store, keys).back_up(VOLUMES[name](), "mine", parent)
    return store.calls


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("name", VOLUMES)
def test_backup_ends_the_same_whichever_object_the_mover_dies_at(name: str, keys: KeyRing | None, done: bool) -> None:
    calls = calls_of(name, keys)
    assert calls.count("put") >= 2
    undisturbed = ended(name, keys)
    operations: tuple[Operation, ...] = ("put", "delete") if done else ("put", "delete", "list", "get")
    for operation in operations:
        for number in range(calls.count(operation)):
            assert ended(name, keys, (operation, number, done)) == undisturbed, f"{operation} {number}"


def ended(name: str, keys: KeyRing | None, death: tuple[Operation, int, bool] | None = None) -> tuple[object, ...]:
    """Return the content of the store after a backup, possibly by two movers of which the first died.

    How the data is spread over packs may differ, and their names hold the attempt.
    """
    memory = MemoryStore()
    parent = parent_in(memory, keys, name)
    if death is not None:
        operation, number, done = death
        faulty = FaultyStore(memory)
        faulty.on(operation).crashes(done=done).after(number)
        with pytest.raises(Crash):
            Backups(faulty, keys).back_up(VOLUMES[name](), "mine", parent)
    backups = Backups(memory, keys)
    assert backups.back_up(VOLUMES[name](), "mine", parent).succeeded
    in_use = {backups.manifest_key("mine")} | backups.keys_in_use("mine")
    if parent is not None:
        in_use |= {backups.manifest_key(parent)} | backups.keys_in_use(parent)
        assert backups.verify(parent).entries == len(first().files)
    left_over = {info.key for info in memory.list("")} - in_use
    described = read_by_page(memory, "mine")
    assert described == describe_all(VOLUMES[name]())
    summary = backups.open("mine").summary
    return left_over, summary.entries, summary.logical_bytes, summary.header.parent_id, backups.verify("mine").entries


@pytest.mark.parametrize("target", ["new", "existing"])
def test_restore_that_dies_at_any_object_can_be_repeated(tmp_path: Path, target: str) -> None:
    store = Counting()
    backups = Backups(store, key_ring())
    backups.back_up(first(), "parent")
    backups.back_up(second(), "mine", "parent")
    expected = {path.decode(): file.segments[0][1] for path, file in second().files.items() if path}
    store.calls.clear()
    assert restored(backups, tmp_path / "undisturbed", target) == expected
    assert set(store.calls) == {"get"}
    for number in range(len(store.calls)):
        faulty = FaultyStore(store)
        faulty.on("get").crashes().after(number)
        place = tmp_path / f"died-{number}"
        with pytest.raises(Crash):
            restored(Backups(faulty, key_ring()), place, target)
        assert restored(backups, place, "half") == expected, f"get {number}"


def restored(backups: Backups, place: Path, target: str) -> dict[str, bytes]:
    """Return the content of a directory after a restore. An ``existing`` one holds other files before."""
    place.mkdir(exist_ok=True)
    if target == "existing":
        (place / "large").write_bytes(b"of another time")
        (place / "foreign").mkdir()
        (place / "foreign" / "file").write_bytes(b"to be removed")
    backups.restore("mine", place)
    return {path.name: path.read_bytes() for path in place.iterdir()}
