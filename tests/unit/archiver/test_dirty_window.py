"""Timestamps prove a file unchanged only if they are older than the dirty window of the parent's snapshot."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.mover import VolumeMode
from cinderblock.api.v1alpha1.store import ChangeDetection
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.volume.tree import reader as tree_reader
from tests.support.mover.backups import NOON, Backups
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.golden import change

STRICT, ANY_INODE, ANY_CTIME, ANY_BOTH, READ_ALL = (
    ChangeDetection.SIZE_MTIME_CTIME_INODE,
    ChangeDetection.SIZE_MTIME_CTIME,
    ChangeDetection.SIZE_MTIME_INODE,
    ChangeDetection.SIZE_MTIME,
    ChangeDetection.CONTENT,
)
SECOND = 1_000_000_000
MIB = 1 << 20
INSTANT = (NOON - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
EDGE = INSTANT - 3600 * SECOND
"""The first timestamp within the default window before NOON."""
FILES = 60
OLD, NEW = b"old content", b"new content"
DATABASE = b"file0007"


pytestmark = pytest.mark.usefixtures("small_sections")


@pytest.fixture
def volume() -> MemorySource:
    """Return a volume whose files have old timestamps."""
    source = MemorySource()
    for number in range(FILES):
        source.add(b"file%04d" % number, (0, b"%011d" % number))
    source.add(DATABASE, (0, OLD))
    return source


def write_back(volume: MemorySource, path: bytes = DATABASE, data: bytes = NEW) -> None:
    """Change data without timestamps, like data that reaches the disk after its timestamps."""
    volume.files[path].segments = [(0, data)]


def facts(backups: Backups, backup: str) -> Comparison:
    found = backups.open(backup).summary.comparison
    assert found is not None
    return found


def content(backups: Backups, backup: str, tmp_path: Path, path: bytes = DATABASE) -> bytes:
    target = tmp_path / f"of-{backup}"
    target.mkdir()
    # Some timestamps are later than the file system of the tests can store.
    backups.restore(backup, target, fidelity=Fidelity.BEST_EFFORT)
    return (target / path.decode()).read_bytes()


@pytest.mark.parametrize("detection", [STRICT, ANY_INODE, ANY_CTIME, ANY_BOTH])
@pytest.mark.parametrize(
    ("stamps", "is_read"),
    [
        ((EDGE - 1, EDGE - 1), False), ((EDGE, EDGE), True), ((EDGE, EDGE - 1), True), ((EDGE - 1, EDGE), True),
        ((INSTANT, 0), True), ((0, INSTANT), True), ((INSTANT + 1, 0), True), ((0, INSTANT + 1), True),
        ((INSTANT * 2, INSTANT * 2), True), ((0, INSTANT * 10), True), ((-SECOND, -SECOND), False),
    ],
)  # fmt: skip
def test_file_is_reused_only_if_both_timestamps_precede_the_window(
    volume: MemorySource, tmp_path: Path, detection: ChangeDetection, stamps: tuple[int, int], is_read: bool
) -> None:
    change(volume, DATABASE, ctime_ns=stamps[0], mtime_ns=stamps[1])
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume)
    volume.bytes_read = 0
    report = backups.back_up(volume, "two", "one", change_detection=detection)
    assert volume.bytes_read == (len(NEW) if is_read else 0)
    assert report.reread_files == int(is_read)
    assert content(backups, "two", tmp_path) == (NEW if is_read else OLD)
    assert facts(backups, "two").reread_files == int(is_read)


@pytest.mark.parametrize(("window", "is_read"), [(0, False), (60, False), (120, False), (121, True), (86400, True)])
def test_window_has_two_minutes_at_least(volume: MemorySource, window: int, is_read: bool) -> None:
    """The timestamp precedes the window of two minutes by one nanosecond."""
    change(volume, DATABASE, ctime_ns=INSTANT - 120 * SECOND - 1)
    backups = Backups()
    backups.back_up(volume, "one")
    report = backups.back_up(volume, "two", "one", dirty_window_seconds=window)
    assert report.reread_files == int(is_read)
    recorded = facts(backups, "two")
    assert recorded.dirty_window_seconds == recorded.smallest_window_seconds == max(window, 120)


def test_section_is_copied_only_if_all_its_rows_are_old(volume: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[bytes, bytes]] = []
    copy = manifest_writer.ManifestWriter._copy
    monkeypatch.setattr(
        manifest_writer.ManifestWriter,
        "_copy",
        lambda self, run: (copied.append((run.first_path, run.last_path)), copy(self, run)),
    )
    backups = Backups()
    backups.back_up(volume, "one")
    backups.back_up(volume, "settled", "one")
    sections = list(copied)
    assert sum(first <= DATABASE <= last for first, last in sections) == 1
    copied.clear()
    change(volume, DATABASE, mtime_ns=INSTANT + SECOND)
    backups.back_up(volume, "again")
    volume.bytes_read = 0
    report = backups.back_up(volume, "two", "again")
    assert (volume.bytes_read, report.reread_files) == (len(OLD), 1)
    assert not any(first <= DATABASE <= last for first, last in copied)
    assert len(copied) == len(sections) - 1


def test_other_names_of_a_file_do_not_speak_for_it(volume: MemorySource, tmp_path: Path) -> None:
    volume.add(b"zz-name", kind=EntryKind.HARDLINK, target=DATABASE)
    volume.files[b"zz-name"].entry = Entry(b"zz-name", EntryKind.HARDLINK, target=DATABASE, inode=7)
    change(volume, DATABASE, ctime_ns=EDGE, inode=7)
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume)
    assert backups.back_up(volume, "two", "one").reread_files == 1
    assert content(backups, "two", tmp_path, b"zz-name") == NEW


def test_files_without_data_are_not_counted(volume: MemorySource) -> None:
    volume.add(b"empty")
    volume.add(b"fifo", kind=EntryKind.FIFO)
    for path in (b"empty", b"fifo"):
        change(volume, path, ctime_ns=EDGE)
    backups = Backups()
    backups.back_up(volume, "one")
    assert backups.back_up(volume, "two", "one").reread_files == 0


def test_large_file_within_the_window_is_read_again(volume: MemorySource, tmp_path: Path) -> None:
    volume.add(b"large", (0, OLD * MIB))
    change(volume, b"large", ctime_ns=EDGE)
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume, b"large", OLD * (MIB - 1) + NEW)
    report = backups.back_up(volume, "two", "one")
    assert (report.reread_files, report.transferred_bytes) == (1, MIB)
    assert content(backups, "two", tmp_path, b"large")[-len(NEW) :] == NEW


def test_late_data_is_found_by_every_later_backup_of_a_chain(volume: MemorySource, tmp_path: Path) -> None:
    """The second backup reuses a row of the first only if its timestamps precede the window."""
    change(volume, DATABASE, ctime_ns=EDGE, mtime_ns=EDGE)
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume)
    hour = timedelta(hours=1)
    second = backups.back_up(volume, "two", "one", created_at=NOON + hour, data_timestamp=NOON + hour)
    volume.bytes_read = 0
    third = backups.back_up(volume, "three", "two", created_at=NOON + 2 * hour, data_timestamp=NOON + 2 * hour)
    assert (second.reread_files, third.reread_files, volume.bytes_read) == (1, 0, 0)
    assert content(backups, "three", tmp_path) == NEW


@pytest.mark.parametrize(("created", "data", "is_read"), [(0, 0, False), (-2, 0, True), (0, -2, True), (0, 5, False)])
def test_earlier_one_of_request_and_snapshot_counts(
    volume: MemorySource, created: int, data: int, is_read: bool
) -> None:
    change(volume, DATABASE, ctime_ns=EDGE - SECOND)
    backups = Backups()
    moments = [NOON + timedelta(seconds=seconds) for seconds in (created, data)]
    backups.back_up(volume, "one", created_at=moments[0], data_timestamp=moments[1])
    assert backups.back_up(volume, "two", "one").reread_files == int(is_read)


def test_snapshot_older_than_the_parents_needs_older_timestamps(volume: MemorySource, tmp_path: Path) -> None:
    """The parent has data that was not on disk when this snapshot was taken."""
    change(volume, DATABASE, ctime_ns=EDGE - 600 * SECOND)
    backups = Backups()
    write_back(volume)
    backups.back_up(volume, "one")
    write_back(volume, data=OLD)
    older = NOON - timedelta(hours=1)
    assert backups.back_up(volume, "two", "one", data_timestamp=older).reread_files == 1
    assert content(backups, "two", tmp_path) == OLD


@pytest.mark.parametrize("detection", [ANY_CTIME, ANY_BOTH])
def test_mtime_alone_decides_if_a_driver_copied_all_files(volume: MemorySource, detection: ChangeDetection) -> None:
    """All ctimes are those of the copy, which was made after the snapshot was requested."""
    for number, path in enumerate(volume.files):
        change(volume, path, ctime_ns=INSTANT + number)
    change(volume, b"file0010", mtime_ns=EDGE - 1)
    change(volume, b"file0011", mtime_ns=EDGE)
    backups = Backups()
    backups.back_up(volume, "one")
    assert facts(backups, "one").oldest_ctime_ns == INSTANT
    for number, path in enumerate(volume.files):
        change(volume, path, ctime_ns=2 * INSTANT + number)
    report = backups.back_up(volume, "two", "one", change_detection=detection)
    assert report.reread_files == 1


@pytest.mark.parametrize("detection", [ANY_CTIME, ANY_BOTH])
def test_single_old_ctime_shows_that_ctimes_are_those_of_the_volume(
    volume: MemorySource, detection: ChangeDetection
) -> None:
    for path in volume.files:
        change(volume, path, ctime_ns=INSTANT)
    change(volume, b"file0011", ctime_ns=EDGE - 1)
    backups = Backups()
    backups.back_up(volume, "one")
    assert backups.back_up(volume, "two", "one", change_detection=detection).reread_files == FILES - 1


def test_oldest_ctime_includes_reused_rows(volume: MemorySource) -> None:
    volume.add(b"zz-name", kind=EntryKind.HARDLINK, target=DATABASE)
    volume.files[b"zz-name"].entry = Entry(b"zz-name", EntryKind.HARDLINK, target=DATABASE)
    for path in (path for path in volume.files if path != b"zz-name"):
        change(volume, path, ctime_ns=77)
    backups = Backups()
    backups.back_up(volume, "one")
    backups.back_up(volume, "two", "one")
    assert [facts(backups, name).oldest_ctime_ns for name in ("one", "two")] == [77, 77]


def test_device_records_nothing_about_timestamps() -> None:
    device = MemorySource()
    device.make_device(MIB, (0, b"boot"))
    backups = Backups()
    backups.back_up(device, "one", mode=VolumeMode.BLOCK)
    report = backups.back_up(device, "two", "one", mode=VolumeMode.BLOCK)
    assert backups.open("two").summary.comparison is None
    assert (report.transferred_bytes, report.reread_files, report.missed_changes) == (0, 0, 0)


def test_next_backup_of_an_unsynced_tree_reads_every_file(volume: MemorySource, tmp_path: Path) -> None:
    backups = Backups()
    volume.is_synced = False
    backups.back_up(volume, "one")
    volume.is_synced = True
    write_back(volume)
    backups.back_up(volume, "two", "one")
    assert content(backups, "two", tmp_path) == NEW


def test_failed_sync_is_reported_and_makes_the_instant_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(tree_reader, "sync_file_system", fail)
    (tmp_path / "file").write_bytes(OLD)
    backups = Backups()
    report = backups.back_up(tmp_path, "one")
    assert report.warnings[0].startswith("Cannot sync the file system before it is read: Input/output error.")
    assert facts(backups, "one").instant is None


@pytest.mark.parametrize("parent", [None, "one"])
def test_tree_is_synced_before_anybody_walks_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str | None
) -> None:
    order: list[str] = []
    backups = Backups()
    backups.back_up(tmp_path, "one")
    rows, begin = tree_reader.TreeReader._rows, tree_reader.TreeReader.begin_walk
    monkeypatch.setattr(tree_reader, "sync_file_system", lambda _: order.append("sync"))
    monkeypatch.setattr(tree_reader.TreeReader, "begin_walk", lambda self: (order.append("begin"), begin(self))[1])
    monkeypatch.setattr(tree_reader.TreeReader, "_rows", lambda self: (order.append("rows"), rows(self))[1])
    backups.back_up(tmp_path, "two", parent)
    assert order == ["sync", *["begin"] * (parent is not None), "rows"]
