"""Full comparisons: when an incremental backup reads all files, and how it reports hidden changes."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.store import ChangeDetection
from cinderblock.format.manifest.comparison import Comparison
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.golden import change, load, make_child
from tests.unit.archiver.test_dirty_window import EDGE, INSTANT, content, facts, write_back

STRICT, ANY_INODE, ANY_CTIME, ANY_BOTH, READ_ALL = (
    ChangeDetection.SIZE_MTIME_CTIME_INODE,
    ChangeDetection.SIZE_MTIME_CTIME,
    ChangeDetection.SIZE_MTIME_INODE,
    ChangeDetection.SIZE_MTIME,
    ChangeDetection.CONTENT,
)
MIB = 1 << 20
DATABASE, LARGE = b"database", b"large"
OLD, NEW = b"old content", b"new content"
LARGE_DATA = random.Random(1).randbytes(3 * MIB)
GOLDEN = Path(__file__).parents[2] / "data" / "format" / "v1"


@pytest.fixture
def volume() -> MemorySource:
    """Return a volume with a small and a large file that have old timestamps."""
    source = MemorySource()
    source.add(DATABASE, (0, OLD))
    source.add(LARGE, (0, LARGE_DATA))
    source.add(b"other", (0, b"never changes"))
    return source


@pytest.fixture
def backups(volume: MemorySource) -> Backups:
    """Return the backups of the volume, with a full backup "one"."""
    made = Backups(keys=key_ring())
    made.back_up(volume, "one")
    return made


def in_turn(backups: Backups, volume: MemorySource, backup: str = "two", parent: str = "one") -> MoverReport:
    """Make an incremental backup that is due to compare all files."""
    return backups.back_up(volume, backup, parent, compare_every=1)


def test_full_backup_has_read_everything(backups: Backups) -> None:
    assert facts(backups, "one") == Comparison(instant=NOON, dirty_window_seconds=3600, oldest_ctime_ns=1_000_000_001)


def test_incremental_records_what_it_trusted(volume: MemorySource, backups: Backups) -> None:
    backups.back_up(volume, "two", "one", dirty_window_seconds=300, change_detection=ANY_CTIME)
    assert facts(backups, "two") == Comparison(
        instant=NOON,
        dirty_window_seconds=300,
        smallest_window_seconds=300,
        weakest_detection=ANY_CTIME,
        since_all_read=1,
        oldest_ctime_ns=1_000_000_001,
    )


@pytest.mark.parametrize(("every", "compared"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (30, [])])
def test_every_nth_incremental_backup_compares_all_files(
    volume: MemorySource, backups: Backups, every: int, compared: list[int]
) -> None:
    parent, read = "one", []
    for number in range(1, 6):
        volume.bytes_read = 0
        backups.back_up(volume, str(number), parent, compare_every=every)
        parent = str(number)
        assert (volume.bytes_read > 0) is facts(backups, parent).compared
        if facts(backups, parent).compared:
            read.append(number)
        assert facts(backups, parent).since_all_read == (number % every if every < 30 else number)
    assert read == compared


def test_thirtieth_incremental_compares_by_default(volume: MemorySource, backups: Backups) -> None:
    parent = "one"
    for number in range(1, 31):
        backups.back_up(volume, str(number), parent)
        parent = str(number)
    assert [facts(backups, str(number)).compared for number in range(1, 31)] == [False] * 29 + [True]


def test_full_backup_in_between_begins_to_count_again(volume: MemorySource, backups: Backups) -> None:
    backups.back_up(volume, "two", "one", compare_every=2, change_detection=STRICT)
    backups.back_up(volume, "full")
    backups.back_up(volume, "three", "full", compare_every=2)
    assert not facts(backups, "three").compared


@pytest.mark.parametrize(("before", "now", "compares"), [
    (300, 300, False), (300, 301, True), (3600, 300, False), (120, 3600, True), (0, 120, False),
])  # fmt: skip
def test_larger_window_than_before_has_all_files_compared(
    volume: MemorySource, backups: Backups, before: int, now: int, compares: bool
) -> None:
    backups.back_up(volume, "two", "one", dirty_window_seconds=before)
    backups.back_up(volume, "three", "two", dirty_window_seconds=now)
    assert facts(backups, "three").compared is compares


def test_small_window_is_remembered_over_larger_ones_until_all_was_read(volume: MemorySource, backups: Backups) -> None:
    chain = [("two", 300), ("three", 120), ("four", 120), ("five", 300), ("six", 300)]
    parent = "one"
    for backup, window in chain:
        backups.back_up(volume, backup, parent, dirty_window_seconds=window)
        parent = backup
    assert [facts(backups, backup).compared for backup, _ in chain] == [False, False, False, True, False]
    assert [facts(backups, backup).smallest_window_seconds for backup, _ in chain] == [300, 120, 120, None, 300]


@pytest.mark.parametrize(("before", "now", "compares"), [
    (STRICT, STRICT, False), (STRICT, ANY_BOTH, False), (ANY_BOTH, ANY_BOTH, False), (ANY_BOTH, STRICT, True),
    (ANY_BOTH, ANY_INODE, True), (ANY_BOTH, ANY_CTIME, True), (ANY_INODE, ANY_CTIME, True),
    (ANY_CTIME, ANY_INODE, True), (ANY_CTIME, STRICT, True), (READ_ALL, STRICT, False), (ANY_BOTH, READ_ALL, True),
])  # fmt: skip
def test_stronger_change_detection_than_before_has_all_files_compared(
    volume: MemorySource, backups: Backups, before: ChangeDetection, now: ChangeDetection, compares: bool
) -> None:
    backups.back_up(volume, "two", "one", change_detection=before)
    backups.back_up(volume, "three", "two", change_detection=now)
    assert facts(backups, "three").compared is compares


@pytest.mark.parametrize("unknown", ["one", "two"])
def test_without_an_instant_all_files_are_compared(volume: MemorySource, tmp_path: Path, unknown: str) -> None:
    backups = Backups()
    instants: dict[str, Any] = {name: {"data_instant": None} if name == unknown else {} for name in ("one", "two")}
    backups.back_up(volume, "one", **instants["one"])
    write_back(volume, DATABASE)
    report = backups.back_up(volume, "two", "one", **instants["two"])
    assert facts(backups, "two").compared
    assert (facts(backups, unknown).instant, content(backups, "two", tmp_path, DATABASE)) == (None, NEW)
    assert report.missed_changes == (1 if unknown == "two" else 0)


def test_log_says_why_all_files_are_read(
    volume: MemorySource, backups: Backups, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backups.back_up(volume, "two", "one")
    assert "Reading all files" not in caplog.text
    in_turn(backups, volume, "three", "two")
    assert "a full comparison is due" in caplog.text


@pytest.mark.parametrize("detection", ChangeDetection)
def test_changes_hidden_by_timestamps_are_stored_and_counted(
    volume: MemorySource, backups: Backups, tmp_path: Path, detection: ChangeDetection
) -> None:
    write_back(volume, DATABASE)
    hidden = bytearray(LARGE_DATA)
    hidden[2 * MIB + 7] ^= 1
    write_back(volume, LARGE, bytes(hidden))
    report = backups.back_up(volume, "two", "one", change_detection=detection, compare_every=1)
    assert report.missed_changes == facts(backups, "two").missed_changes == 2
    assert "content of 2 files had changed although size and timestamps had not" in report.message
    assert content(backups, "two", tmp_path, LARGE) == hidden
    assert (tmp_path / "of-two" / "database").read_bytes() == NEW
    again = in_turn(backups, volume, "three", "two")
    assert (again.missed_changes, again.message, again.transferred_bytes) == (0, "", 0)


def test_repeated_report_is_the_same(volume: MemorySource, backups: Backups) -> None:
    """The mover died between its manifest and its report."""
    write_back(volume, DATABASE)
    first = in_turn(backups, volume)
    again = in_turn(backups, volume)
    assert (again.missed_changes, again.message) == (1, first.message)


@pytest.mark.parametrize(
    "stamps", [{"ctime_ns": EDGE}, {"mtime_ns": EDGE}, {"ctime_ns": INSTANT + 5}, {"mtime_ns": INSTANT * 3}]
)
def test_change_within_the_window_was_not_missed(volume: MemorySource, tmp_path: Path, stamps: dict[str, int]) -> None:
    """Every incremental backup finds this change."""
    change(volume, DATABASE, **stamps)
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume, DATABASE)
    report = in_turn(backups, volume)
    assert (report.missed_changes, report.reread_files) == (0, 0)
    assert content(backups, "two", tmp_path, DATABASE) == NEW


def test_change_that_timestamps_show_is_not_missed(volume: MemorySource, backups: Backups) -> None:
    write_back(volume, DATABASE)
    change(volume, DATABASE, ctime_ns=5)
    volume.files[b"other"].segments = [(0, b"other_ changes")]
    change(volume, b"other", size=14)
    assert in_turn(backups, volume).missed_changes == 0


@pytest.mark.parametrize("path", [DATABASE, LARGE])
def test_change_between_walk_and_opening_does_not_count_as_missed(
    volume: MemorySource, backups: Backups, path: bytes
) -> None:
    data = volume.files[path].segments[0][1]

    def write(_: int) -> None:
        write_back(volume, path, b"X" + data[1:])
        change(volume, path, ctime_ns=INSTANT + 1)

    volume.files[path].on_open = write
    assert in_turn(backups, volume).missed_changes == 0


def test_large_file_that_changes_while_read_does_not_count_as_missed(volume: MemorySource, backups: Backups) -> None:
    write_back(volume, LARGE, LARGE_DATA[::-1])
    volume.files[LARGE].unstable = 2
    report = in_turn(backups, volume)
    assert (report.missed_changes, volume.files[LARGE].opened) == (0, 3)


def test_change_missed_with_a_smaller_window_is_counted(volume: MemorySource, tmp_path: Path) -> None:
    change(volume, DATABASE, ctime_ns=EDGE + 1, mtime_ns=EDGE + 1)
    backups = Backups()
    backups.back_up(volume, "one")
    write_back(volume, DATABASE)
    backups.back_up(volume, "two", "one", dirty_window_seconds=120)
    assert backups.back_up(volume, "three", "two").missed_changes == 1
    assert content(backups, "two", tmp_path, DATABASE) == OLD
    assert content(backups, "three", tmp_path, DATABASE) == NEW


def test_change_missed_with_a_weaker_detection_is_counted(
    volume: MemorySource, backups: Backups, tmp_path: Path
) -> None:
    """The file was written within the window, and its mtime was set back."""
    write_back(volume, DATABASE)
    change(volume, DATABASE, ctime_ns=EDGE + 1)
    backups.back_up(volume, "two", "one", change_detection=ANY_BOTH)
    assert backups.back_up(volume, "three", "two").missed_changes == 1
    assert content(backups, "two", tmp_path, DATABASE) == OLD
    assert content(backups, "three", tmp_path, DATABASE) == NEW


@pytest.mark.parametrize(
    ("before", "after", "size", "is_change"),
    [
        # A hole that was filled with zeros, and one that zeros became, in a cell and over several.
        ([(0, OLD), (MIB, OLD)], [(0, OLD + bytes(MIB - len(OLD)) + OLD)], 2 * MIB, False),
        ([(0, OLD + bytes(9000) + OLD)], [(0, OLD), (9000 + len(OLD), OLD)], 2 * MIB, False),
        ([(3 * MIB, OLD)], [(0, bytes(3 * MIB) + OLD)], 5 * MIB, False),
        # Data that became a hole, in a cell that has other data, and in one that has none.
        ([(0, OLD), (9000, OLD)], [(0, OLD)], 2 * MIB, True),
        ([(0, OLD), (3 * MIB, OLD)], [(0, OLD)], 5 * MIB, True),
        ([(0, OLD), (3 * MIB, OLD)], [], 5 * MIB, True),
        # A hole that became data.
        ([(0, OLD)], [(0, OLD), (3 * MIB, OLD)], 5 * MIB, True),
        ([], [(4 * MIB, OLD)], 5 * MIB, True),
        ([(0, OLD), (200_000, OLD)], [(0, OLD), (90_000, NEW), (200_000, OLD)], 2 * MIB, True),
        # Small files.
        ([(0, OLD), (9000, OLD)], [(0, OLD + bytes(9000 - len(OLD)) + OLD)], 20_000, False),
        ([(0, OLD), (9000, OLD)], [(0, OLD)], 20_000, True),
        ([(0, OLD)], [(0, bytes(20_000))], 20_000, True),
        ([], [(70_000, OLD)], 100_000, True),
        ([(70_000, OLD)], [(65_536, bytes(70_000 - 65_536) + OLD)], 100_000, False),
    ],
)
def test_holes_are_compared_as_the_zeros_that_they_read_as(
    tmp_path: Path, before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], size: int, is_change: bool
) -> None:
    volume, backups = MemorySource(), Backups()
    volume.add(b"sparse", *before, size=size)
    backups.back_up(volume, "one")
    volume.files[b"sparse"].segments = after
    assert in_turn(backups, volume).missed_changes == int(is_change)
    wanted = bytearray(size)
    for offset, data in after:
        wanted[offset : offset + len(data)] = data
    assert content(backups, "two", tmp_path, b"sparse") == wanted


def test_large_file_in_several_parts_is_compared_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cinderblock.format.manifest.writer", "cinderblock.archiver.pipeline"):
        monkeypatch.setattr(f"{module}.EXTENTS_PER_PART", 3)
    volume, backups = MemorySource(), Backups()
    segments = [(number * MIB, b"%08d" % number) for number in range(20)]
    volume.add(b"sparse", *segments, size=20 * MIB)
    backups.back_up(volume, "one")
    assert in_turn(backups, volume).missed_changes == 0
    volume.files[b"sparse"].segments = segments[:-1]
    assert in_turn(backups, volume, "three", "two").missed_changes == 1
    assert content(backups, "three", tmp_path, b"sparse")[19 * MIB :] == bytes(MIB)


@pytest.mark.parametrize("case", ["sealed", "unsealed"])
def test_damage_that_an_older_release_left_does_not_live_on(case: str, tmp_path: Path) -> None:
    """Manifests of an earlier release record no comparison. Timestamps never show the change of this old file."""
    store, _ = load(GOLDEN / case)
    backups = Backups(store, None if case == "unsealed" else key_ring())
    assert backups.open("child").summary.comparison is None
    volume = make_child()
    sound = backups.back_up(volume, "sound", "child")
    assert (sound.missed_changes, sound.transferred_bytes, facts(backups, "sound").compared) == (0, 0, True)
    path = b"a-directory.txt"
    write_back(volume, path, volume.files[path].segments[0][1][::-1])
    volume.bytes_read = 0
    report = backups.back_up(volume, "found", "child")
    assert (report.missed_changes, facts(backups, "found").compared) == (1, True)
    assert volume.bytes_read > 2 * MIB
    found = {entry.path: entry for entry in backups.open("found").entries()}
    assert found[path].extents[0].digest != {e.path: e for e in backups.open("child").entries()}[path].extents[0].digest
    backups.verify("found")
    volume.bytes_read = 0
    backups.back_up(volume, "next", "found")
    assert not facts(backups, "next").compared
