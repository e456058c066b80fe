"""Crash-consistent snapshots below real file systems: no change is lost between two backups.

The program is the command line, the S3 server and the file systems are real. A trial counts only if the first snapshot
lacked the data that the live file system had, while it had the timestamps.
"""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cinderblock.api.v1alpha1.store import ChangeDetection
from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover.backups import LATER, Backups
from tests.support.mover.unfrozen import KINDS, UnfrozenVolume, until_seen, why_not
from tests.support.store.command_line import CommandLine

pytestmark = pytest.mark.integration

OLD, NEW = b"OLD!", b"NEW!"
TABLE_BYTES = 256 << 10
PLACE = 8192
"""Offset of the page that is written."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(params=KINDS)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UnfrozenVolume]:
    """Return a file system of which snapshots can be taken below."""
    reason = why_not(request.param)
    if reason is not None:
        pytest.skip(reason)
    with UnfrozenVolume.made(tmp_path / "volume", request.param) as made:
        yield made


def write(path: Path, data: bytes, offset: int, *, is_durable: bool) -> None:
    """Write with write(2). The kernel writes to the disk later, or at once."""
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, data, offset)
    if is_durable:
        os.fsync(fd)
    os.close(fd)


def store(path: Path, data: bytes, offset: int) -> None:
    """Write through a shared mapping."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[offset : offset + len(data)] = data


def by_write(path: Path) -> None:
    write(path, NEW, PLACE, is_durable=False)


def by_mapping(path: Path) -> None:
    store(path, NEW, PLACE)


def by_write_with_mtime_put_back(path: Path) -> None:
    before = path.stat()
    by_write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "detection"),
    [
        (by_write, ChangeDetection.SIZE_MTIME_CTIME_INODE),
        (by_mapping, ChangeDetection.SIZE_MTIME),
        (by_write_with_mtime_put_back, ChangeDetection.SIZE_MTIME_CTIME),
    ],
)
def test_incremental_finds_data_that_the_first_snapshot_lacked(
    volume: UnfrozenVolume,
    server: S3Server,
    tmp_path: Path,
    change: Callable[[Path], None],
    detection: ChangeDetection,
) -> None:
    """A database writes a page, which stays in memory, and syncs its log. This also writes the page's timestamps to
    disk."""
    table, log = volume.live / "table", volume.live / "log"

    def trial() -> bool:
        table.write_bytes(OLD * (TABLE_BYTES // len(OLD)))
        log.write_bytes(bytes(4096))
        volume.sync()
        change(table)
        write(log, b"commit 1", 0, is_durable=True)
        snapshot = volume.take_snapshot()
        timestamps = [(snapshot / "table").stat(), table.stat()]
        has_timestamps = timestamps[0].st_ctime_ns == timestamps[1].st_ctime_ns
        if not has_timestamps or (snapshot / "table").read_bytes()[PLACE : PLACE + len(NEW)] != OLD:
            return False
        program, name = CommandLine(server, "trials"), f"unfrozen-{uuid.uuid4().hex[:12]}"
        program.back_up(snapshot, name)
        volume.sync()
        write(log, b"commit 2", 0, is_durable=True)
        snapshot = volume.take_snapshot()
        wanted = (snapshot / "table").read_bytes()
        assert wanted[PLACE : PLACE + len(NEW)] == NEW
        report = program.back_up(snapshot, name, "--incremental", "--change-detection", detection)
        restored = tmp_path / "restored"
        program.restore(report["backupId"], restored)
        assert (restored / "table").read_bytes() == wanted
        assert (restored / "log").read_bytes() == (snapshot / "log").read_bytes()
        return True

    until_seen(trial)


def test_change_that_an_unfrozen_snapshot_hid_is_found_by_comparing(volume: UnfrozenVolume, tmp_path: Path) -> None:
    """The window ends before the change, as in a chain that was made without the rule."""
    table, log = volume.live / "table", volume.live / "log"

    def trial() -> bool:
        backups = Backups()
        table.write_bytes(OLD * (TABLE_BYTES // len(OLD)))
        log.write_bytes(bytes(4096))
        volume.sync()
        by_write(table)
        write(log, b"commit 1", 0, is_durable=True)
        snapshot = volume.take_snapshot()
        if (snapshot / "table").read_bytes()[PLACE : PLACE + len(NEW)] != OLD:
            return False
        backups.back_up(snapshot, "one", data_instant=LATER)
        stamp = os.stat(snapshot / "table").st_ctime_ns
        volume.sync()
        snapshot = volume.take_snapshot()
        if os.stat(snapshot / "table").st_ctime_ns != stamp:
            # The first snapshot lacked the new timestamps too, and hides nothing.
            return False
        missing = backups.back_up(snapshot, "two", "one", data_instant=LATER)
        assert (missing.reread_files, missing.missed_changes) == (0, 0)
        found = backups.back_up(snapshot, "three", "two", data_instant=LATER, compare_every=1)
        assert found.missed_changes == 1
        contents = {}
        for backup in ("two", "three"):
            target = tmp_path / f"{backup}-{uuid.uuid4().hex}"
            target.mkdir()
            backups.restore(backup, target)
            contents[backup] = (target / "table").read_bytes()[PLACE : PLACE + len(NEW)]
        assert contents == {"two": OLD, "three": NEW}
        return True

    until_seen(trial)


def test_next_incremental_finds_writes_to_a_dirty_mapped_page(volume: UnfrozenVolume, tmp_path: Path) -> None:
    """Back up the live tree. The window ends long after the writes, so only the sync moves their timestamps."""
    data = volume.live / "data.map"
    data.write_bytes(os.urandom(16384))
    volume.sync()
    backups = Backups()
    with data.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:8] = b"first..."
        backups.back_up(volume.live, "one", data_instant=LATER)
        view[:8] = b"SECOND.."
        report = backups.back_up(volume.live, "two", "one", data_instant=LATER)
        target = tmp_path / "restored"
        target.mkdir()
        backups.restore("two", target)
        assert (target / "data.map").read_bytes() == view[:]
        assert report.reread_files == 0
