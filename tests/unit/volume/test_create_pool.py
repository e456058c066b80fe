"""Tests of new small files that other processes create: the tree and the errors are the same."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.mover import MoverReport
from cinderblock.errors import TargetError, TransientError
from cinderblock.restorer import batch_writer
from cinderblock.volume.workers import create_pool
from cinderblock.volume.workers import process as workers_process
from cinderblock.volume.workers.create_worker import CreateOrder
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import edit_tree, make_tree
from tests.support.mover.unprivileged import IGNORED, Call, run_with_answers
from tests.support.mover.volumes_in_memory import MemorySource

PRIVILEGED = os.geteuid() == 0


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Return the list of started processes: two for every restore, however small it is."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def watched(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = start(command, **options)  # type: ignore[call-overload]
        if "cinderblock.volume.workers.create_worker" in command:
            processes.append(process)
        return process

    monkeypatch.setattr(batch_writer, "MIN_POOLED_FILES", 0)
    monkeypatch.setattr(batch_writer, "usable_processes", lambda: 2)
    monkeypatch.setattr(workers_process.subprocess, "Popen", watched)
    return processes


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def many_small_files() -> Backups:
    volume = MemorySource()
    for number in range(2000):
        volume.add(b"small%04d" % number, (0, random.Random(number).randbytes(3000)))
    made = Backups(keys=key_ring())
    made.back_up(volume, "one")
    return made


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_entry_is_restored(
    source: Path, target: Path, seed: int, started: list[subprocess.Popen[bytes]]
) -> None:
    make_tree(str(source), seed=seed, files=600, privileged=PRIVILEGED)
    backups = Backups(keys=key_ring())
    backups.back_up(source, "full")
    backups.restore("full", target)
    assert compare_trees(str(source), str(target), holes=True) == []
    assert [process.returncode for process in started] == [0, 0]


def test_existing_files_are_updated_and_missing_files_are_created(source: Path, target: Path) -> None:
    make_tree(str(source), seed=3, files=300, privileged=PRIVILEGED)
    backups = Backups(keys=key_ring())
    backups.back_up(source, "full")
    backups.restore("full", target)
    edit_tree(str(target), seed=8, edits=80)
    backups.restore("full", target)
    assert compare_trees(str(source), str(target)) == []


def test_read_only_directory_gets_its_files_before_its_mode(source: Path, target: Path) -> None:
    for number in range(300):
        directory = source / f"d{number:03}"
        directory.mkdir()
        (directory / "file").write_bytes(b"%d" % number)
        os.link(directory / "file", directory / "same")
        directory.chmod(0o500)
        os.utime(directory, ns=(0, number))
    backups = Backups(keys=key_ring())
    backups.back_up(source, "full")
    backups.restore("full", target)
    assert compare_trees(str(source), str(target)) == []
    assert (target / "d299").stat().st_mtime_ns == 299
    assert (target / "d299" / "file").stat().st_nlink == 2


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    if not PRIVILEGED:
        pytest.skip("mounting needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_volume_ends_the_restore_with_its_processes(
    many_small_files: Backups, small_volume: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetError, match="full: restore to a larger volume"):
        many_small_files.restore("one", small_volume)
    assert [process.returncode for process in started] == [0, 0]
    assert len(os.listdir("/proc/self/fd")) == before


def test_killed_process_ends_the_restore_and_a_retry_completes_it(
    many_small_files: Backups, target: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    order = create_pool.CreatePool.make

    def order_and_kill(self: create_pool.CreatePool, orders: list[CreateOrder]) -> create_pool.CreateTask:
        for process in started:
            process.send_signal(signal.SIGKILL)
        return order(self, orders)

    monkeypatch.setattr(create_pool.CreatePool, "make", order_and_kill)
    with pytest.raises(TransientError, match="raise the mover's memory limit") as lost:
        many_small_files.restore("one", target)
    assert lost.value.reason == "MoverFailed"
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    monkeypatch.setattr(create_pool.CreatePool, "make", order)
    many_small_files.restore("one", target)
    assert len(os.listdir(target)) == 2000
    assert (target / "small1999").read_bytes() == random.Random(1999).randbytes(3000)


def test_restore_continues_if_no_process_can_be_started(
    many_small_files: Backups, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers_process.subprocess, "Popen", fail)
    many_small_files.restore("one", target)
    assert len(os.listdir(target)) == 2000


@pytest.fixture(scope="module")
def files_of_another() -> Backups:
    volume = MemorySource()
    for number in range(2000):
        file = volume.add(b"small%04d" % number, (0, b"%d" % number))
        file.entry = file.entry._replace(uid=7, gid=8)
    made = Backups(keys=key_ring())
    made.back_up(volume, "one")
    return made


@pytest.mark.skipif(not PRIVILEGED, reason="needs root")
@pytest.mark.parametrize("answer", [IGNORED, errno.EPERM])
def test_losses_in_other_processes_are_reported_with_examples(
    files_of_another: Backups, target: Path, answer: int
) -> None:
    def work() -> MoverReport:
        return files_of_another.restore("one", target, fidelity=Fidelity.BEST_EFFORT)

    report = run_with_answers(work, {Call.CHOWN: answer})
    (owners,) = report.losses
    assert (owners.what, owners.objects, len(owners.examples)) == ("owners of files", 2000, 3)
    assert set(owners.examples) <= {f"small{number:04}" for number in range(2000)}


@pytest.mark.skipif(not PRIVILEGED, reason="needs root")
def test_loss_in_another_process_ends_a_strict_restore(files_of_another: Backups, target: Path) -> None:
    def work() -> str:
        with pytest.raises(TargetError) as caught:
            files_of_another.restore("one", target)
        return caught.value.message

    message = run_with_answers(work, {Call.CHOWN: IGNORED})
    assert message.startswith("the target only pretends to set owners of files")
    assert "--best-effort" in message
