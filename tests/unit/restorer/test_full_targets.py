"""A target that cannot be written ends the restore with an error that names a remedy."""

from __future__ import annotations

import gc
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinderblock.api.mover import EXIT_PERMANENT
from cinderblock.errors import TargetError
from cinderblock.mover.report import exit_code, failure
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def backups() -> Backups:
    """Return a backup of 200 small files and a large one, together 12 MiB."""
    volume = MemorySource()
    for number in range(200):
        volume.add(b"small%03d" % number, (0, random.Random(number).randbytes(10_000)))
    volume.add(b"large", (0, random.Random(1).randbytes(10 * MIB)))
    made = Backups(keys=key_ring())
    made.back_up(volume, "one")
    return made


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_full_volume_ends_the_restore_and_leaves_nothing_open(backups: Backups, small_volume: Path) -> None:
    before = open_descriptors()
    with pytest.raises(TargetError, match="full: restore to a larger volume") as caught:
        backups.restore("one", small_volume)
    assert exit_code(failure(caught.value)) == EXIT_PERMANENT
    # Its traceback may hold bytes that were being written, and with them the memory in which they are.
    caught.value.with_traceback(None)
    del caught
    gc.collect()
    assert open_descriptors() == before


def test_read_only_volume_ends_the_restore(backups: Backups, small_volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_volume], check=True)
    with pytest.raises(TargetError, match="read-only"):
        backups.restore("one", small_volume)


def test_missing_target_ends_the_restore(backups: Backups, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        backups.restore("one", tmp_path / "nowhere")


def test_restore_that_failed_is_completed_by_another(backups: Backups, small_volume: Path) -> None:
    with pytest.raises(TargetError):
        backups.restore("one", small_volume)
    subprocess.run(["mount", "-o", "remount,size=40m", small_volume], check=True)
    backups.restore("one", small_volume)
    assert (small_volume / "large").read_bytes() == random.Random(1).randbytes(10 * MIB)
    assert len(os.listdir(small_volume)) == 201
