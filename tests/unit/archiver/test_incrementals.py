"""Incremental backups read and send only changes, and are complete."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cinderblock.api.mover import VolumeMode
from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, NotFound
from cinderblock.restorer.pipeline import SLOT_BYTES
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.golden import change

MIB = 1 << 20
LATE = 1000
"""Seconds of a timestamp that is newer than those of most files."""
WITHIN = int(NOON.timestamp()) - 60
"""Seconds of a timestamp within the dirty window before NOON."""


@pytest.fixture
def volume() -> MemorySource:
    """Return a volume with forty small files, a large one, and a newest one."""
    source = MemorySource()
    for number in range(40):
        source.add(b"small%02d" % number, (0, random.Random(number).randbytes(2000)))
    source.add(b"large", (0, random.Random(99).randbytes(3 * MIB)))
    source.add(b"zz-newest", (0, b"newest"), stamp=WITHIN)
    return source


@pytest.fixture
def backups(volume: MemorySource) -> Backups:
    """Return the backups of the volume, with one backup "one"."""
    made = Backups(keys=key_ring())
    made.back_up(volume, "one")
    volume.bytes_read = 0
    return made


def content_of(backups: Backups, backup: str, tmp_path: Path) -> dict[str, bytes]:
    target = tmp_path / backup
    target.mkdir()
    backups.restore(backup, target)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def expected(volume: MemorySource) -> dict[str, bytes]:
    files = {path.decode(): file for path, file in volume.files.items() if path}
    return {
        path: b"".join(data for _, data in file.segments).ljust(file.entry.size, b"\0") for path, file in files.items()
    }


def test_files_that_have_settled_are_not_read(volume: MemorySource, backups: Backups) -> None:
    report = backups.back_up(volume, "two", "one")
    assert volume.bytes_read == len(b"newest")
    assert (report.transferred_bytes, report.object_count, report.reread_files) == (0, 0, 1)


def test_nothing_is_read_where_all_has_settled(volume: MemorySource, backups: Backups) -> None:
    volume.add(b"zz-newest", (0, b"newest"), stamp=LATE)
    backups.back_up(volume, "settled")
    volume.bytes_read = 0
    report = backups.back_up(volume, "two", "settled")
    assert (volume.bytes_read, report.reread_files) == (0, 0)


def test_file_with_a_timestamp_just_before_the_snapshot_is_read_again(
    volume: MemorySource, backups: Backups, tmp_path: Path
) -> None:
    stamps = volume.files[b"zz-newest"].entry
    volume.files[b"zz-newest"].segments = [(0, b"oldest")]
    assert volume.files[b"zz-newest"].entry == stamps
    backups.back_up(volume, "two", "one")
    assert content_of(backups, "two", tmp_path)["zz-newest"] == b"oldest"


def test_file_with_a_timestamp_after_the_request_is_read_again(
    volume: MemorySource, backups: Backups, tmp_path: Path
) -> None:
    """Without a snapshot, the file was read, and then written again in the same tick."""
    after = int(NOON.timestamp()) * 1_000_000_000 + 5_000_000_000
    change(volume, b"small07", ctime_ns=after)
    change(volume, b"zz-newest", ctime_ns=2 * after)
    backups.back_up(volume, "direct")
    volume.files[b"small07"].segments = [(0, b"again" * 400)]
    backups.back_up(volume, "two", "direct")
    assert content_of(backups, "two", tmp_path)["small07"] == b"again" * 400


def test_touched_file_is_read_and_not_sent(volume: MemorySource, backups: Backups) -> None:
    for path in (b"small07", b"large"):
        change(volume, path, mtime_ns=5, ctime_ns=5)
    report = backups.back_up(volume, "two", "one")
    assert volume.bytes_read == 2000 + 3 * MIB + len(b"newest")
    assert (report.transferred_bytes, report.object_count) == (0, 0)
    assert {entry.path: entry.mtime_ns for entry in backups.open("two").entries()}[b"small07"] == 5


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns", "inode"])
def test_each_sign_of_a_change_has_the_file_read(volume: MemorySource, backups: Backups, field: str) -> None:
    change(volume, b"small07", **{field: 77})
    backups.back_up(volume, "two", "one")
    assert volume.bytes_read == 2000 + len(b"newest")


def test_only_changed_files_are_sent(volume: MemorySource, backups: Backups, tmp_path: Path) -> None:
    volume.add(b"small07", (0, b"changed"), stamp=LATE)
    volume.add(b"an addition", (0, b"added"), stamp=LATE)
    del volume.files[b"small08"]
    report = backups.back_up(volume, "two", "one")
    assert report.transferred_bytes == len(b"changed") + len(b"added")
    assert content_of(backups, "two", tmp_path) == expected(volume)


def test_file_that_moved_is_not_sent_again(volume: MemorySource, backups: Backups, tmp_path: Path) -> None:
    data = volume.files.pop(b"large").segments
    volume.add(b"a new name", *data, stamp=LATE)
    report = backups.back_up(volume, "two", "one")
    assert report.transferred_bytes == 0
    assert content_of(backups, "two", tmp_path) == expected(volume)


def test_one_changed_chunk_of_a_large_file_is_sent(volume: MemorySource, backups: Backups, tmp_path: Path) -> None:
    data = bytearray(volume.files[b"large"].segments[0][1])
    data[MIB + 5] ^= 1
    volume.add(b"large", (0, bytes(data)), stamp=LATE)
    report = backups.back_up(volume, "two", "one")
    assert report.transferred_bytes == MIB
    assert content_of(backups, "two", tmp_path) == expected(volume)


def test_backup_needs_nothing_of_an_ancestor_whose_data_is_all_replaced(
    volume: MemorySource, backups: Backups, tmp_path: Path
) -> None:
    for path in list(volume.files)[1:]:
        volume.add(path, (0, b"new" + path), stamp=LATE)
    backups.back_up(volume, "two", "one")
    assert backups.open("two").summary.references == {}
    backups.store.delete([backups.manifest_key("one"), *backups.pack_keys("one")])
    assert content_of(backups, "two", tmp_path) == expected(volume)


def test_backup_needs_the_packs_of_its_parent_but_not_its_manifest(
    volume: MemorySource, backups: Backups, tmp_path: Path
) -> None:
    backups.back_up(volume, "two", "one")
    backups.store.delete([backups.manifest_key("one")])
    assert content_of(backups, "two", tmp_path) == expected(volume)


def test_backup_refers_to_the_ancestor_that_holds_the_data(volume: MemorySource, backups: Backups) -> None:
    backups.back_up(volume, "two", "one")
    volume.add(b"small07", (0, b"changed"), stamp=LATE)
    backups.back_up(volume, "three", "two")
    assert backups.open("three").summary.references == {"one": 1}
    assert backups.open("three").header.parent_id == "two"


def test_pack_of_the_parent_that_is_missing_stops_the_backup(volume: MemorySource, backups: Backups) -> None:
    pack = next(key for key in backups.pack_keys("one"))
    backups.store.delete([pack])
    with pytest.raises(IntegrityError, match=pack):
        backups.back_up(volume, "two", "one")
    assert [info.key for info in backups.store.list("some/where/backups/")] == [backups.manifest_key("one")]


def test_parent_of_the_other_volume_mode_is_refused(backups: Backups) -> None:
    device = MemorySource()
    device.make_device(MIB, (0, os.urandom(MIB)))
    with pytest.raises(InvalidInput, match="full backup"):
        backups.back_up(device, "two", "one", mode=VolumeMode.BLOCK)


def test_lost_parent_manifest_requires_a_full_backup(volume: MemorySource, backups: Backups, tmp_path: Path) -> None:
    backups.store.delete([backups.manifest_key("one")])
    with pytest.raises(NotFound, match="Make a full backup") as caught:
        backups.back_up(volume, "two", "one")
    assert caught.value.reason == "ParentGone"
    assert backups.pack_keys("two") == []
    backups.back_up(volume, "three")
    assert content_of(backups, "three", tmp_path) == expected(volume)


def test_lost_parent_key_requires_a_full_backup(volume: MemorySource, tmp_path: Path) -> None:
    old = Backups(keys=key_ring("2024"))
    old.back_up(volume, "one")
    new = Backups(old.store, key_ring("2025"))
    with pytest.raises(KeyUnavailable, match="2024"):
        new.back_up(volume, "two", "one")
    assert new.pack_keys("two") == []
    new.back_up(volume, "three")
    assert content_of(new, "three", tmp_path) == expected(volume)


def test_sealed_parent_is_not_continued_unsealed(volume: MemorySource, backups: Backups) -> None:
    unsealed = Backups(backups.store)
    with pytest.raises(KeyUnavailable):
        unsealed.back_up(volume, "two", "one")


def test_unsealed_parent_is_continued_sealed(volume: MemorySource, tmp_path: Path) -> None:
    plain = Backups()
    plain.back_up(volume, "one")
    sealed = Backups(plain.store, key_ring())
    sealed.pins.update(plain.pins)
    volume.add(b"small07", (0, b"changed"), stamp=LATE)
    sealed.back_up(volume, "two", "one")
    assert content_of(sealed, "two", tmp_path) == expected(volume)


def test_parent_sealed_with_an_older_key_is_continued(volume: MemorySource, tmp_path: Path) -> None:
    old = Backups(keys=key_ring("2024"))
    old.back_up(volume, "one")
    both = Backups(old.store, key_ring("2024", "2025"))
    volume.add(b"small07", (0, b"changed"), stamp=LATE)
    both.back_up(volume, "two", "one")
    new = Backups(old.store, key_ring("2025"))
    assert new.open("two").header.key_id == "2025"
    assert content_of(new, "two", tmp_path) == expected(volume)


def test_small_files_that_each_lie_in_another_old_chunk_are_restored(tmp_path: Path) -> None:
    """A long chain of incremental backups needs a little of many chunks at once."""
    volume, made, parent = MemorySource(), Backups(keys=key_ring()), None
    for generation in range(14):
        kept = b"kept%02d" % generation
        volume.add(kept, (0, random.Random(generation).randbytes(9_000)), stamp=generation)
        volume.add(kept + b"-beside", (0, random.Random(-generation - 1).randbytes(MIB - 9_000)), stamp=generation)
        volume.add(b"zz-newest", (0, b"%d" % generation), stamp=LATE + generation)
        made.back_up(volume, str(generation), parent)
        del volume.files[kept + b"-beside"]
        parent = str(generation)
    made.back_up(volume, "last", parent)
    wanted = {extent.chunk for entry in made.open("last").entries() for extent in entry.extents}
    assert sum(chunk.size for chunk in wanted) > SLOT_BYTES
    assert content_of(made, "last", tmp_path) == expected(volume)
