"""Tests of syncs during a restore, whose errors are still reported at its end."""

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
    """Counts syncs, and lets them take as long as a test wants."""

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


def test_few_bytes_are_not_synced_early(disk: Disk, writing: BackgroundSync) -> None:
    writing.add_written(MIB - 1)
    writing.close()
    assert disk.asked == 0


def test_many_bytes_are_synced_early(disk: Disk, writing: BackgroundSync) -> None:
    writing.add_written(MIB // 2)
    writing.add_written(MIB // 2)
    writing.close()
    assert disk.asked == 1


def test_slow_disk_gets_one_sync_and_blocks_no_writer(disk: Disk, writing: BackgroundSync) -> None:
    disk.may_end.clear()
    writing.add_written(MIB)
    assert disk.begun.wait(10)
    for _ in range(100):
        writing.add_written(MIB)
    assert disk.asked == 1
    disk.may_end.set()
    writing.close()


def test_bytes_written_during_a_sync_are_synced_next(disk: Disk, writing: BackgroundSync) -> None:
    disk.may_end.clear()
    writing.add_written(MIB)
    writing.add_written(MIB)
    disk.may_end.set()
    while disk.asked < 2:
        writing.add_written(0)
    writing.close()
    assert disk.asked == 2


def test_error_is_left_to_the_final_sync(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with BackgroundSync(os.open(tmp_path, os.O_RDONLY), fail) as writing:
        writing.add_written(MIB)


def test_device_is_synced_during_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(os, "fdatasync", disk.sync)
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 4 * MIB)
    with BlockTarget(image, 4 * MIB) as target:
        target.write(0, os.urandom(MIB))
        assert disk.begun.wait(10)


def test_tree_is_synced_during_writing(target: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(tree_writer, "sync_file_system", disk.sync)
    with TreeWriter(str(target)) as tree:
        tree.put(Entry(b"", EntryKind.DIRECTORY, mode=0o755))
        tree.add_written(MIB)
        assert disk.begun.wait(10)


def test_error_of_an_early_sync_fails_the_restore(
    mount: Callable[..., Path], loop_device: Callable[..., tuple[str, Path]], tmp_path: Path
) -> None:
    """A thin device without space, written through the cache, fails only in a sync, and the early sync comes first."""
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
