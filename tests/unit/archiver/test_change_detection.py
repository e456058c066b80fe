"""Change detection on clones of snapshots that have other inodes and ctimes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cinderblock.api.v1alpha1.store import ChangeDetection, ChangeDetectionRules
from cinderblock.format.entries import Entry, EntryKind
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import make_tree
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.golden import change

STRICT, ANY_INODE, ANY_CTIME, ANY_BOTH, READ_ALL = (
    ChangeDetection.SIZE_MTIME_CTIME_INODE,
    ChangeDetection.SIZE_MTIME_CTIME,
    ChangeDetection.SIZE_MTIME_INODE,
    ChangeDetection.SIZE_MTIME,
    ChangeDetection.CONTENT,
)
LATE = 1000
"""Seconds of the newest ctime."""
FILES = 200
FILE_BYTES = 20
ALL_BYTES = FILES * FILE_BYTES


pytestmark = pytest.mark.usefixtures("small_sections")


@pytest.fixture
def volume() -> MemorySource:
    """Return a volume with files, a hard link, and one newest file."""
    source = MemorySource()
    for number in range(FILES):
        source.add(b"file%04d" % number, (0, b"%020d" % number))
    source.add(b"hard link", kind=EntryKind.HARDLINK, target=b"file0000")
    source.add(b"zz-newest", kind=EntryKind.FIFO, stamp=LATE)
    return source


def clone(volume: MemorySource, what: str, generation: int = 1) -> None:
    """Give the volume other inodes, other ctimes, or both, like a clone that was made by copying."""
    for number, path in enumerate(list(volume.files), generation * 1_000_000):
        if what in ("inodes", "both"):
            change(volume, path, inode=number)
        if what in ("ctimes", "both"):
            change(volume, path, ctime_ns=LATE * 2_000_000_000 * generation + number)


@pytest.mark.parametrize(
    ("detection", "what", "is_read"),
    [
        (STRICT, "nothing", False), (STRICT, "inodes", True), (STRICT, "ctimes", True), (STRICT, "both", True),
        (ANY_INODE, "nothing", False), (ANY_INODE, "inodes", False), (ANY_INODE, "ctimes", True),
        (ANY_CTIME, "nothing", False), (ANY_CTIME, "inodes", True), (ANY_CTIME, "ctimes", False),
        (ANY_CTIME, "both", True), (ANY_BOTH, "nothing", False), (ANY_BOTH, "inodes", False),
        (ANY_BOTH, "ctimes", False), (ANY_BOTH, "both", False), (READ_ALL, "nothing", True), (READ_ALL, "both", True),
    ],
)  # fmt: skip
def test_files_are_read_again_unless_the_compared_properties_are_equal(
    volume: MemorySource, detection: ChangeDetection, what: str, is_read: bool
) -> None:
    backups = Backups()
    backups.back_up(volume, "one")
    clone(volume, what)
    volume.bytes_read = 0
    report = backups.back_up(volume, "two", "one", change_detection=detection)
    assert volume.bytes_read == (ALL_BYTES if is_read else 0)
    assert (report.transferred_bytes, report.logical_bytes) == (0, ALL_BYTES)


@pytest.mark.parametrize("detection", ChangeDetection)
@pytest.mark.parametrize("field", ["size", "mtime_ns"])
def test_new_size_or_mtime_is_read_under_every_change_detection(
    volume: MemorySource, detection: ChangeDetection, field: str
) -> None:
    backups = Backups()
    backups.back_up(volume, "one")
    volume.files[b"file0007"].segments = [(0, b"another content, and another stamp")]
    change(volume, b"file0007", **{field: len(b"another content, and another stamp")})
    change(volume, b"file0007", size=len(b"another content, and another stamp"))
    report = backups.back_up(volume, "two", "one", change_detection=detection)
    assert report.transferred_bytes == len(b"another content, and another stamp")


@pytest.mark.parametrize(
    ("detection", "in_place", "replaced", "in_a_clone"),
    [
        (STRICT, True, True, True), (ANY_INODE, True, True, True), (ANY_CTIME, False, True, True),
        (ANY_BOTH, False, False, False), (READ_ALL, True, True, True),
    ],
)  # fmt: skip
def test_change_is_missed_only_if_no_compared_property_shows_it(
    volume: MemorySource, detection: ChangeDetection, in_place: bool, replaced: bool, in_a_clone: bool
) -> None:
    for how, is_noticed in (("in place", in_place), ("replaced", replaced), ("clone", in_a_clone)):
        backups = Backups()
        volume.files[b"file0007"].segments = [(0, b"%020d" % 7)]
        backups.back_up(volume, "one")
        volume.files[b"file0007"].segments = [(0, b"secretly another one")]
        if how == "clone":
            clone(volume, "both", 2)
        else:
            entry = volume.files[b"file0007"].entry
            change(volume, b"file0007", ctime_ns=entry.ctime_ns + 1, inode=entry.inode + (how == "replaced"))
        report = backups.back_up(volume, "two", "one", change_detection=detection)
        assert (report.transferred_bytes == FILE_BYTES) is is_noticed, how


def test_change_that_was_missed_comes_with_the_next_full_backup(volume: MemorySource, tmp_path: Path) -> None:
    backups = Backups()
    backups.back_up(volume, "one")
    volume.files[b"file0007"].segments = [(0, b"secretly another one")]
    backups.back_up(volume, "two", "one", change_detection=ANY_BOTH)
    backups.back_up(volume, "three", change_detection=ANY_BOTH)
    found = {}
    for backup in ("two", "three"):
        target = tmp_path / backup
        target.mkdir()
        backups.restore(backup, target)
        found[backup] = (target / "file0007").read_bytes()
    assert found == {"two": b"%020d" % 7, "three": b"secretly another one"}


def stamps_of(entries: Iterator[Entry]) -> dict[bytes, tuple[int, int]]:
    return {entry.path: (entry.inode, entry.ctime_ns) for entry in entries}


@pytest.mark.parametrize("detection", [STRICT, ANY_BOTH])
def test_timestamps_of_the_clone_decide_the_next_incremental(volume: MemorySource, detection: ChangeDetection) -> None:
    backups = Backups(keys=key_ring())
    backups.back_up(volume, "one")
    clone(volume, "both")
    change(volume, b"zz-newest", ctime_ns=LATE * LATE * 1_000_000_000)
    backups.back_up(volume, "two", "one", change_detection=detection)
    wanted = {path: (file.entry.inode, file.entry.ctime_ns) for path, file in volume.files.items()}
    assert stamps_of(backups.open("two").entries()) == wanted
    volume.bytes_read = 0
    backups.back_up(volume, "three", "two", change_detection=detection)
    assert volume.bytes_read == 0
    assert stamps_of(backups.open("three").entries()) == wanted
    volume.files[b"file0007"].segments = [(0, b"secretly another one")]
    change(volume, b"file0007", ctime_ns=wanted[b"file0007"][1] + 1)
    assert backups.back_up(volume, "four", "three").transferred_bytes == FILE_BYTES


@pytest.mark.parametrize(("what", "detection", "is_told"), [
    ("both", STRICT, True), ("inodes", STRICT, True), ("nothing", STRICT, False), ("both", ANY_BOTH, False),
    ("both", READ_ALL, False),
])  # fmt: skip
def test_hint_is_logged_if_all_files_are_read_without_a_change(
    volume: MemorySource, caplog: pytest.LogCaptureFixture, what: str, detection: ChangeDetection, is_told: bool
) -> None:
    backups = Backups()
    backups.back_up(volume, "one")
    clone(volume, what)
    backups.back_up(volume, "two", "one", change_detection=detection)
    assert ("set changeDetection in the BackupStore" in caplog.text) is is_told
    assert ("200 files of the same size and mtime" in caplog.text) is is_told


def test_backup_records_its_change_detection(volume: MemorySource) -> None:
    backups = Backups()
    backups.back_up(volume, "one", change_detection=ANY_BOTH)
    backups.back_up(volume, "two", "one", change_detection=ANY_BOTH)
    backups.back_up(volume, "three", "two")
    detections = [backups.open(backup).summary.description.change_detection for backup in ("one", "two", "three")]
    assert detections == [None, ANY_BOTH, STRICT]


def test_stamp_of_an_older_ancestor_does_not_hide_a_change(volume: MemorySource) -> None:
    """A file has the inode and ctime of the grandparent again, but the content of the parent."""
    backups = Backups()
    backups.back_up(volume, "one")
    first = volume.files[b"file0007"].entry
    volume.files[b"file0007"].segments = [(0, b"secretly another one")]
    clone(volume, "both")
    backups.back_up(volume, "two", "one", change_detection=ANY_INODE)
    volume.files[b"file0007"].segments = [(0, b"%020d" % 7)]
    volume.files[b"file0007"].entry = first
    volume.bytes_read = 0
    backups.back_up(volume, "three", "two")
    assert volume.bytes_read >= FILE_BYTES


@pytest.mark.parametrize("detection", [ANY_CTIME, ANY_BOTH])
@pytest.mark.parametrize(("seconds", "is_read"), [(-3601, False), (-3600, True), (0, True), (86400 * 365, True)])
def test_recent_or_future_mtime_proves_nothing(
    volume: MemorySource, detection: ChangeDetection, seconds: int, is_read: bool
) -> None:
    mtime = int((NOON + timedelta(seconds=seconds)).timestamp()) * 1_000_000_000
    change(volume, b"file0007", mtime_ns=mtime)
    backups = Backups()
    backups.back_up(volume, "one")
    clone(volume, "ctimes")
    volume.bytes_read = 0
    backups.back_up(volume, "two", "one", change_detection=detection)
    assert volume.bytes_read == (FILE_BYTES if is_read else 0)


def test_snapshot_may_be_older_than_its_request(volume: MemorySource) -> None:
    """For a given snapshot, mtimes are compared with its creation, not with the request of the backup."""
    change(volume, b"file0007", mtime_ns=int((NOON - timedelta(hours=1)).timestamp()) * 1_000_000_000)
    backups = Backups()
    backups.back_up(volume, "one", data_timestamp=NOON - timedelta(hours=1))
    clone(volume, "ctimes")
    volume.bytes_read = 0
    backups.back_up(volume, "two", "one", change_detection=ANY_BOTH)
    assert volume.bytes_read == FILE_BYTES


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a real tree with every kind of entry. Its mtimes precede the request of the backups."""
    path = tmp_path / "tree"
    make_tree(str(path), seed=5, privileged=os.geteuid() == 0)
    for directory, directories, files in os.walk(os.fsencode(path)):
        for name in directories + files:
            place = os.path.join(directory, name)
            if len(place) < 4096 and os.lstat(place).st_mtime > NOON.timestamp() - 100:
                os.utime(place, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return path


def copied(backups: Backups, backup: str, target: Path) -> Path:
    """Clone a tree as some drivers do: every inode and ctime is new, everything else is the same."""
    target.mkdir()
    backups.restore(backup, target)
    return target


@pytest.mark.parametrize("detection", ChangeDetection)
def test_copied_tree_is_backed_up_exactly_by_every_detection(
    tree: Path, tmp_path: Path, detection: ChangeDetection
) -> None:
    backups = Backups(keys=key_ring())
    backups.back_up(tree, "one")
    second = copied(backups, "one", tmp_path / "second")
    assert backups.back_up(second, "two", "one", change_detection=detection).transferred_bytes == 0
    (second / "names" / "added").write_bytes(b"added")
    os.chmod(second / "names" / "plain", 0o711)
    os.setxattr(second / "names" / "upper", "user.new", b"attribute")
    backups.back_up(second, "changed")
    third = copied(backups, "changed", tmp_path / "third")
    assert backups.back_up(third, "three", "two", change_detection=detection).transferred_bytes == len(b"added")
    for backup, wanted in (("two", tree), ("three", third)):
        target = copied(backups, backup, tmp_path / f"target-{backup}")
        assert compare_trees(str(wanted), str(target), holes=True) == []


def test_rules_go_by_the_storage_class_of_the_volume() -> None:
    rules = ChangeDetectionRules(default=READ_ALL, storage_classes={"nfs": ANY_BOTH})
    assert [rules.of(name) for name in ("nfs", "other", None)] == [ANY_BOTH, READ_ALL, READ_ALL]
    assert ChangeDetectionRules().of("nfs") is STRICT
