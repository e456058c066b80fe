"""The disk begins while a restore goes on; what goes wrong meanwhile is told in the end all the same."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cinderblock.errors import TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.block.target import BlockTarget
from cinderblock.volume.kernel import writeback
from cinderblock.volume.kernel.writeback import BackgroundSync
from cinderblock.volume.tree import writer as tree_writer
from cinderblock.volume.tree.writer import TreeWriter

MIB = 1 << 20


class Disk:
    """Counts how often it is asked to store, and lets it take as long as a test wants."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def sync(self, _: int) -> None:
        self.asked += 1
        self.begun.set()
        assert self.may_end.wait(10)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "SYNC_INTERVAL_BYTES", MIB)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def writing(disk: Disk, tmp_path: Path) -> Iterator[BackgroundSync]:
    with BackgroundSync(os.open(tmp_path, os.O_RDONLY), disk.sync) as writing:
        yield writing


def test_nothing_is_stored_early_of_little(disk: Disk, writing: BackgroundSync) -> None:
    writing.add_written(MIB - 1)
    writing.close()
    assert disk.asked == 0


def test_much_is_stored_early_whoever_wrote_it(disk: Disk, writing: BackgroundSync) -> None:
    writing.add_written(MIB // 2)
    writing.add_written(MIB // 2)
    writing.close()
    assert disk.asked == 1


def test_a_slow_disk_is_asked_once_at_a_time_and_keeps_nobody_waiting(disk: Disk, writing: BackgroundSync) -> None:
    disk.may_end.clear()
    writing.add_written(MIB)
    assert disk.begun.wait(10)
    for _ in range(100):
        writing.add_written(MIB)
    assert disk.asked == 1
    disk.may_end.set()
    writing.close()


def test_what_came_meanwhile_is_asked_for_next(disk: Disk, writing: BackgroundSync) -> None:
    disk.may_end.clear()
    writing.add_written(MIB)
    writing.add_written(MIB)
    disk.may_end.set()
    while disk.asked < 2:
        writing.add_written(0)
    writing.close()
    assert disk.asked == 2


def test_a_refusal_is_left_to_who_syncs_in_the_end(tmp_path: Path) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with BackgroundSync(os.open(tmp_path, os.O_RDONLY), refuse) as writing:
        writing.add_written(MIB)


def test_a_device_is_stored_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(os, "fdatasync", disk.sync)
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 4 * MIB)
    with BlockTarget(image, 4 * MIB) as target:
        target.write(0, os.urandom(MIB))
        assert disk.begun.wait(10)


def test_a_tree_is_stored_while_it_is_written(target: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(tree_writer, "sync_file_system", disk.sync)
    with TreeWriter(str(target)) as tree:
        tree.put(Entry(b"", EntryKind.DIRECTORY, mode=0o755))
        tree.add_written(MIB)
        assert disk.begun.wait(10)


def test_an_error_that_an_early_sync_has_seen_is_an_error_in_the_end(
    mount: Callable[..., Path], loop_device: Callable[..., tuple[str, Path]], tmp_path: Path
) -> None:
    """A thin device without space, written by way of the cache: only who stores it notices, the early one first."""
    pool = tmp_path / "pool"
    pool.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", at=pool)
    device, _ = loop_device("pool/device")
    with BlockTarget(device, 16 * MIB) as target:
        target.write(1, b"x" * 4 * MIB)
        wait_for_early_writing()
        with pytest.raises(TargetError, match="I/O error"):
            target.finish()


def wait_for_early_writing() -> None:
    for thread in threading.enumerate():
        if thread.name == writeback.THREAD_NAME:
            thread.join()
