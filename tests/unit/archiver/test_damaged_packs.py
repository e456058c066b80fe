"""An incremental backup takes nothing from damaged packs, and heals what it can read from the volume."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.mover import MoverReport, VolumeMode
from cinderblock.archiver import pipeline
from cinderblock.errors import IntegrityError, SourceError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.entries import EntryKind
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import LATER, VOLUME, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.verifications import CHUNK, data, short_key, small_units, structure
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore
from tests.support.store.golden import describe_all
from tests.unit.format.test_stored_format import read_by_page

Harm = Callable[[MemoryStore, str], None]


def flip(store: MemoryStore, key: str) -> None:
    body = store.get(key)
    store.put(key, body[:40] + bytes([body[40] ^ 1]) + body[41:])


def truncate(store: MemoryStore, key: str) -> None:
    store.put(key, store.get(key)[:-1])


def delete(store: MemoryStore, key: str) -> None:
    store.delete([key])


HARMS = pytest.mark.parametrize("harm", [flip, truncate, delete])


@pytest.fixture(autouse=True)
def _small_units() -> Iterator[None]:
    with small_units():
        yield


def tree() -> MemorySource:
    """Return a volume with small files, a large one, a sparse one, and hard links to each kind."""
    source = MemorySource()
    rnd = random.Random(5)
    for number in range(40):
        source.add(b"small/%02d" % number, (0, rnd.randbytes(4000)))
    source.add(b"large", (0, rnd.randbytes(9 * CHUNK + 17)))
    source.add(b"sparse", (5 * CHUNK, rnd.randbytes(CHUNK)), (99 * CHUNK, rnd.randbytes(300)), size=200 * CHUNK)
    source.add(b"empty")
    source.add(b"zz-link", kind=EntryKind.HARDLINK, target=b"large")
    source.add(b"zz-other", kind=EntryKind.HARDLINK, target=b"small/03")
    return source


def device() -> MemorySource:
    source = MemorySource()
    rnd = random.Random(6)
    source.make_device(64 * CHUNK, (0, rnd.randbytes(9 * CHUNK)), (40 * CHUNK, rnd.randbytes(3 * CHUNK)))
    return source


VOLUMES = pytest.mark.parametrize(
    ("volume", "mode"), [(tree, VolumeMode.FILESYSTEM), (device, VolumeMode.BLOCK)], ids=["tree", "device"]
)


def heal(backups: Backups, source: MemorySource, damaged: list[str], mode: VolumeMode, **more: object) -> MoverReport:
    """Make the backup "healed" on "one" with the keys that a verification has named."""
    return backups.back_up(source, "healed", "one", mode, avoid_packs=damaged, **more)


def is_in(backups: Backups, backup: str, damaged: list[str]) -> bool:
    """Return whether a backup lists any of these packs."""
    return bool({short_key(key) for key in backups.keys_in_use(backup)} & set(damaged))


@HARMS
@VOLUMES
@pytest.mark.parametrize("keys", [None, key_ring()], ids=["plain", "sealed"])
def test_every_pack_heals(
    harm: Harm, volume: Callable[[], MemorySource], mode: VolumeMode, keys: KeyRing | None
) -> None:
    count = len(list(_made(volume(), mode, keys).pack_keys("one")))
    assert count > 2
    for number in range(count):
        source = volume()
        backups = _made(source, mode, keys)
        assert isinstance(backups.store, MemoryStore)
        harm(backups.store, backups.pack_keys("one")[number])
        found = data(backups, "one")
        assert (found.damaged_count, found.affected) == (1, ("one",))
        report = heal(backups, source, list(found.damaged), mode)
        assert not is_in(backups, "healed", list(found.damaged))
        assert 0 < report.transferred_bytes < report.logical_bytes, "the rest is reused"
        assert report.missed_changes == 0
        assert structure(backups, "healed").damaged_count == 0
        assert data(backups, "healed").affected == ("one",)
        backups.verify("healed")
        assert read_by_page(backups.store, "healed") == [*describe_all(source)]


def _made(source: MemorySource, mode: VolumeMode, keys: KeyRing | None) -> Backups:
    backups = Backups(MemoryStore(), keys)
    backups.back_up(source, "one", mode=mode)
    return backups


def test_all_packs_at_once_heal() -> None:
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    damaged = [short_key(key) for key in backups.pack_keys("one")]
    backups.store.delete(backups.pack_keys("one"))
    report = heal(backups, source, damaged, VolumeMode.FILESYSTEM)
    assert report.transferred_bytes == report.logical_bytes
    assert read_by_page(backups.store, "healed") == [*describe_all(source)]


def test_further_parts_of_a_large_file_heal() -> None:
    """The first part, which alone shows whether a file has changed, may lie in a sound pack."""
    source = MemorySource()
    source.add(b"large", (0, random.Random(7).randbytes(40 * CHUNK)))
    source.add(b"z", (0, b"z" * 500))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_writer, "EXTENTS_PER_PART", 4)
        patch.setattr(pipeline, "EXTENTS_PER_PART", 4)
        for number in (0, 3, 9):
            backups = _made(source, VolumeMode.FILESYSTEM, None)
            key = backups.pack_keys("one")[number]
            backups.store.delete([key])
            report = heal(backups, source, [short_key(key)], VolumeMode.FILESYSTEM)
            assert report.transferred_bytes == 4 * CHUNK
            assert not is_in(backups, "healed", [short_key(key)])
            assert read_by_page(backups.store, "healed") == [*describe_all(source)]


def test_hidden_change_in_a_damaged_pack_is_stored_and_reported() -> None:
    """Renewal would keep the content of the parent, which is damaged here."""
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    damaged = [short_key(key) for key in backups.pack_keys("one")]
    file = source.files[b"large"]
    file.segments = [(0, b"!" * file.entry.size)]
    report = heal(backups, source, damaged, VolumeMode.FILESYSTEM)
    assert report.missed_changes == 1
    assert not is_in(backups, "healed", damaged)
    assert read_by_page(backups.store, "healed") == [*describe_all(source)]


@pytest.mark.parametrize("path", [b"large", b"small/03"])
def test_unreadable_file_in_a_damaged_pack_is_no_silent_loss(path: bytes) -> None:
    def fail() -> None:
        raise SourceError("Input/output error")

    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    damaged = [short_key(key) for key in backups.pack_keys("one")]
    source.files[path].on_read = fail
    with pytest.raises(SourceError):
        heal(backups, source, damaged, VolumeMode.FILESYSTEM)
    skipping = MemorySource(Unreadable.SKIP)
    skipping.files = source.files

    def fail_alone() -> None:
        error = SourceError("Input/output error")
        error.concerns_one_object = True
        raise error

    source.files[path].on_read = fail_alone
    report = heal(backups, skipping, damaged, VolumeMode.FILESYSTEM, unreadable=Unreadable.SKIP)
    assert report.unreadable_files == 2, "the file and its link"
    assert not is_in(backups, "healed", damaged)


def test_changed_and_deleted_files_heal_as_well() -> None:
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    damaged = [short_key(key) for key in backups.pack_keys("one")[:2]]
    backups.store.delete(backups.pack_keys("one")[:2])
    source.add(b"large", (0, random.Random(8).randbytes(9 * CHUNK + 17)), stamp=9)
    del source.files[b"small/07"]
    heal(backups, source, damaged, VolumeMode.FILESYSTEM, compare_every=1)
    assert read_by_page(backups.store, "healed") == [*describe_all(source)]


@pytest.mark.parametrize("call", range(6))
def test_healing_resumes_after_the_mover_died(call: int) -> None:
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, key_ring())
    lost = backups.pack_keys("one")[:3]
    backups.store.delete(lost)
    memory, faulty = backups.store, FaultyStore(backups.store)
    faulty.on("put").crashes(done=bool(call % 2)).after(call // 2)
    backups.store = faulty
    damaged = [short_key(key) for key in lost]
    with pytest.raises(Crash):
        heal(backups, source, damaged, VolumeMode.FILESYSTEM)
    backups.store = memory
    heal(backups, source, damaged, VolumeMode.FILESYSTEM)
    assert not is_in(backups, "healed", damaged)
    assert structure(backups, "healed").damaged_count == 0
    assert read_by_page(backups.store, "healed") == [*describe_all(source)]


def test_without_the_keys_a_missing_pack_prevents_the_backup() -> None:
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    backups.store.delete(backups.pack_keys("one")[:1])
    with pytest.raises(IntegrityError, match="missing or has another size"):
        backups.back_up(source, "healed", "one")


def test_unknown_and_foreign_keys_change_nothing() -> None:
    source = tree()
    backups = _made(source, VolumeMode.FILESYSTEM, None)
    own = short_key(backups.pack_keys("one")[0])
    keys = ["", "no key", own.replace(VOLUME, "another-volume"), own + "0", f"/{own}"]
    assert heal(backups, source, keys, VolumeMode.FILESYSTEM).transferred_bytes == 0


@HARMS
def test_real_tree_heals_and_restores(harm: Harm, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(30):
        (source / f"small-{number}").write_bytes(os.urandom(3000))
    (source / "large").write_bytes(os.urandom(9 * CHUNK))
    os.link(source / "large", source / "link")
    with (source / "sparse").open("wb") as file:
        file.seek(50 * CHUNK)
        file.write(os.urandom(CHUNK))
        file.truncate(90 * CHUNK)
    backups = Backups(MemoryStore(), key_ring())
    backups.back_up(source, "one", data_timestamp=LATER, created_at=LATER)
    assert isinstance(backups.store, MemoryStore)
    harm(backups.store, backups.pack_keys("one")[1])
    found = data(backups, "one")
    report = backups.back_up(
        source, "healed", "one", data_timestamp=LATER, created_at=LATER, avoid_packs=list(found.damaged)
    )
    assert 0 < report.transferred_bytes < report.logical_bytes
    assert data(backups, "healed").affected == ("one",)
    backups.restore("healed", target)
    assert compare_trees(os.fsencode(source), os.fsencode(target)) == []
