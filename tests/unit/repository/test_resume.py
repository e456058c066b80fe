"""A mover may die at any moment. The next one completes the backup, and nothing is left over."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from cinderblock.api.layout import pack_prefix
from cinderblock.errors import Conflict, StoreUnreachable, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.store.base import ObjectInfo
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore, Operation

pytestmark = pytest.mark.usefixtures("burying")

MIB = 1 << 20


def make_volume(seed: int = 0) -> MemorySource:
    """Return a volume with data for four packs, in small and large files."""
    rnd = random.Random(seed)
    source = MemorySource()
    for number in range(200):
        source.add(b"small%03d" % number, (0, rnd.randbytes(rnd.randrange(1, 100000))))
    source.add(b"large", (0, rnd.randbytes(66 * MIB)))
    return source


def keys_of(store: MemoryStore) -> list[str]:
    return [info.key for info in store.list("")]


def assert_nothing_is_left_over(backups: Backups, *backup_ids: str) -> None:
    wanted = {backups.manifest_key(backup) for backup in backup_ids}
    for backup in backup_ids:
        wanted |= backups.keys_in_use(backup)
    assert {info.key for info in backups.store.list("")} == wanted


def restored(backups: Backups, backup: str, target: Path) -> dict[bytes, bytes]:
    target.mkdir(exist_ok=True)
    backups.restore(backup, target)
    return {path.name.encode(): path.read_bytes() for path in target.iterdir()}


def expected(volume: MemorySource) -> dict[bytes, bytes]:
    return {path: file.segments[0][1] for path, file in volume.files.items() if path}


CALLS: list[tuple[Operation, int, bool]] = [
    ("get", 0, False),
    ("list", 0, False),
    *[("put", number, done) for number in range(6) for done in (False, True)],
    ("list", 1, False),
    ("get", 2, False),
    ("delete", 0, False),
    ("delete", 0, True),
]


def happens(operation: Operation, calls: int, *, is_sealed: bool) -> bool:
    """Return whether a backup makes this call: only a sealed one stores and deletes a wrapped data key."""
    return is_sealed or (operation != "delete" and (operation, calls) != ("put", 5))


@pytest.mark.parametrize(("operation", "calls", "done"), CALLS)
@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_next_mover_completes_a_backup_after_a_crash(
    tmp_path: Path, operation: Operation, calls: int, done: bool, keys: KeyRing | None
) -> None:
    volume, memory = make_volume(), MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on(operation).crashes(done=done).after(calls)
    try:
        Backups(faulty, keys).back_up(volume, "one")
    except Crash:
        died = True
    else:
        died = False
    assert died or not happens(operation, calls, is_sealed=keys is not None)
    assert volume.open_files == 0
    after = Backups(memory, keys)
    assert after.back_up(volume, "one").succeeded
    assert_nothing_is_left_over(after, "one")
    assert restored(after, "one", tmp_path / "target") == expected(volume)


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_resumed_run_sends_only_missing_packs(keys: KeyRing | None) -> None:
    volume, memory = make_volume(), MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on("list").crashes().after(1)
    with pytest.raises(Crash):
        Backups(faulty, keys).back_up(volume, "one")
    before = {info.key for info in memory.list("") if not info.key.endswith("data-key")}
    counted = CountedStore(memory)
    report = Backups(counted, keys).back_up(volume, "one")
    assert counted.counts.puts == 1
    assert report.transferred_bytes == sum(len(content) for content in expected(volume).values())
    assert {info.key for info in memory.list("") if "/packs/" in info.key} == before


def test_files_that_change_between_runs_waste_few_packs() -> None:
    volume, memory = make_volume(), MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on("list").crashes().after(1)
    with pytest.raises(Crash):
        Backups(faulty).back_up(volume, "one")
    volume.add(b"small000a", (0, random.Random(5).randbytes(50000)))
    del volume.files[b"small100"]
    counted = CountedStore(memory)
    Backups(counted).back_up(volume, "one")
    assert counted.counts.bytes_put < 10 * MIB
    assert_nothing_is_left_over(Backups(memory), "one")


def test_unused_packs_of_an_earlier_run_are_deleted(tmp_path: Path) -> None:
    memory = MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on("list").crashes().after(1)
    with pytest.raises(Crash):
        Backups(faulty, key_ring()).back_up(make_volume(1), "one")
    volume, backups = make_volume(2), Backups(memory, key_ring())
    backups.back_up(volume, "one")
    assert_nothing_is_left_over(backups, "one")
    assert restored(backups, "one", tmp_path / "target") == expected(volume)


@pytest.mark.parametrize("what", ["key ring changed", "key object damaged", "pack damaged", "sealing turned off"])
def test_leftovers_that_cannot_be_read_are_replaced(tmp_path: Path, what: str) -> None:
    volume, memory = make_volume(), MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on("list").crashes().after(1)
    with pytest.raises(Crash):
        Backups(faulty, key_ring("2024")).back_up(volume, "one")
    keys: KeyRing | None = key_ring("2024")
    if what == "key ring changed":
        keys = key_ring("2025")
    elif what == "sealing turned off":
        keys = None
    else:
        marker = "data-key" if "key" in what else "-000000"
        key = next(info.key for info in memory.list("") if info.key.endswith(marker))
        memory.put(key, memory.get(key)[:-1] + b"?")
    backups = Backups(memory, keys)
    backups.back_up(volume, "one")
    assert_nothing_is_left_over(backups, "one")
    assert restored(backups, "one", tmp_path / "target") == expected(volume)


def test_committed_backup_reports_success_without_work() -> None:
    volume, backups = make_volume(), Backups(keys=key_ring())
    report = backups.back_up(volume, "one")
    volume.files.clear()
    counted = CountedStore(backups.store)
    again = Backups(counted, key_ring())
    assert again.back_up(Path("/nowhere at all"), "one") == report
    assert (counted.counts.puts, counted.counts.deletes) == (0, 0)


def test_manifest_of_another_backup_is_not_replaced() -> None:
    volume, backups = make_volume(), Backups()
    backups.back_up(volume, "one")
    body = backups.store.get(backups.manifest_key("one"))
    backups.store.put(backups.manifest_key("two"), body)
    with pytest.raises(Conflict, match="backup one"):
        backups.back_up(volume, "two")
    assert backups.store.get(backups.manifest_key("two")) == body


def test_second_mover_does_not_damage_the_backup(tmp_path: Path) -> None:
    """The first mover seems dead but continues. It must not commit packs that its successor has deleted."""
    volume, memory = make_volume(), MemoryStore()
    slow = _Interrupted(memory, lambda: Backups(memory, key_ring()).back_up(make_volume(3), "one"))
    with pytest.raises(TransientError, match="another mover") as overtaken:
        Backups(slow, key_ring()).back_up(volume, "one")
    assert overtaken.value.reason == "Overtaken"
    backups = Backups(memory, key_ring())
    assert restored(backups, "one", tmp_path / "target") == expected(make_volume(3))


class _Interrupted(FaultyStore):
    """Call a function before the last listing of a backup."""

    def __init__(self, inner: MemoryStore, interruption: Callable[[], object]) -> None:
        super().__init__(inner)
        self._interruption = interruption
        self._listings = 0

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._listings += 1
        if self._listings == 2:
            self._interruption()
        return super().list(prefix)


def test_store_that_is_away_ends_the_run_without_a_manifest() -> None:
    volume, memory = make_volume(), MemoryStore()
    faulty = FaultyStore(memory)
    faulty.on("put", "/packs/").raises(StoreUnreachable("away")).after(2)
    with pytest.raises(StoreUnreachable):
        Backups(faulty).back_up(volume, "one")
    assert not any(key.endswith(".manifest") for key in keys_of(memory))
    assert volume.open_files == 0


def test_unreadable_volume_ends_the_run_with_everything_closed() -> None:
    volume, memory = make_volume(), MemoryStore()

    def fail(_: int) -> None:
        raise StoreUnreachable("stands for any error")

    volume.files[b"small150"].on_open = fail
    with pytest.raises(StoreUnreachable):
        Backups(memory).back_up(volume, "one")
    assert volume.open_files == 0
    assert not any(key.startswith(f"{PREFIX}/backups/") for key in keys_of(memory))


def test_folders_next_to_the_packs_do_no_harm_and_stay() -> None:
    backups = Backups()
    key = pack_prefix(PREFIX, VOLUME, "b-1")
    planted = [key, f"{key}notes.txt"]
    for name in planted:
        backups.store._objects[name] = b""  # type: ignore[attr-defined]
    source = MemorySource()
    source.add(b"file", (0, b"content"))
    backups.back_up(source, "b-1")
    assert backups.verify("b-1").entries == 2
    assert set(planted) < {found.key for found in backups.store.list(key)}
