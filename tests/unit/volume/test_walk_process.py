"""Tests that a walk in another process finds the same objects in the same order, and raises the same errors."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinderblock.errors import SourceChanging, SourceError, TransientError
from cinderblock.format.entries import Entry
from cinderblock.volume.tree import reader as tree_reader
from cinderblock.volume.tree import walk as tree_walk
from cinderblock.volume.tree.dirfd import MAX_OPEN_DIRECTORIES
from cinderblock.volume.tree.reader import TreeReader
from cinderblock.volume.workers import process as workers_process
from cinderblock.volume.workers import walk_process, walk_worker
from tests.support.mover.trees import make_tree
from tests.support.mover.unprivileged import run_as_user

PRIVILEGED = os.geteuid() == 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return the list of started processes, and check that all have ended. A single processor suffices for one."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def watched(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        processes.append(start(command, **options))  # type: ignore[call-overload]
        return processes[-1]

    monkeypatch.setattr(tree_reader, "is_worthwhile", lambda: True)
    monkeypatch.setattr(workers_process.subprocess, "Popen", watched)
    yield processes
    assert all(process.returncode is not None for process in processes)


def walk(root: Path, *, by_another: bool) -> tuple[list[Entry], list[str]]:
    with TreeReader(str(root)) as reader:
        if by_another:
            reader.begin_walk()
        return list(reader.walk()), reader.skipped.summaries()


def fill_the_pipe(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make more names than the process can send before somebody reads."""
    monkeypatch.setattr(walk_process, "PIPE_BYTES", 4096)
    monkeypatch.setattr(walk_process, "AHEAD_BYTES", 0)
    for number in range(2 * tree_walk.MAX_ROWS + 1):
        (directory / f"a-name-that-fills-the-pipe-{number}").touch()


@pytest.mark.parametrize("seed", range(3))
def test_another_process_finds_the_same_entries(
    source: Path, seed: int, started: list[subprocess.Popen[bytes]]
) -> None:
    make_tree(os.fsencode(source), seed=seed, files=300, privileged=PRIVILEGED)
    assert walk(source, by_another=True) == walk(source, by_another=False)
    assert len(started) == 1


def test_walk_process_is_used_once(source: Path, started: list[subprocess.Popen[bytes]]) -> None:
    (source / "file").touch()
    with TreeReader(str(source)) as reader:
        reader.begin_walk()
        reader.begin_walk()
        assert list(reader.walk()) == list(reader.walk())
    assert len(started) == 1


@pytest.mark.parametrize("ahead", [0, 100_000, 8 << 20], ids=["nothing", "a part", "all"])
def test_buffered_messages_come_in_order(source: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(walk_process, "PIPE_BYTES", 4096)
    monkeypatch.setattr(walk_process, "AHEAD_BYTES", ahead)
    for number in range(6 * tree_walk.MAX_ROWS):
        (source / f"{number % 7}-a-name-of-some-length-{number}").touch()
    assert walk(source, by_another=True) == walk(source, by_another=False)


def test_worker_buffers_a_bounded_amount(source: Path) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    kept = bytearray(10_000)
    walk_worker.send(writing, kept, 6_000)
    assert len(kept) == 10_000 - 4096
    kept += bytes(1_000)
    emptying = threading.Timer(0.2, os.read, (reading, 4096))
    emptying.start()
    walk_worker.send(writing, kept, 6_000)
    emptying.join()
    assert len(kept) == 11_000 - 2 * 4096
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        walk_worker.send(writing, kept, 6_000)
    os.close(writing)


def test_unreadable_directory_gives_the_same_error(source: Path) -> None:
    if not PRIVILEGED:
        pytest.skip("needs root to change the user")
    (source / "secret").mkdir(mode=0o700)

    def attempt() -> list[str]:
        words = []
        for by_another in (True, False):
            with pytest.raises(SourceError) as caught:
                walk(Path(), by_another=by_another)
            words.append(f"{caught.value.reason}: {caught.value.message}")
        return words

    one, other = run_as_user(attempt, cwd=source)
    assert one == other
    assert "access denied" in one
    assert "cannot open secret" in one


def test_directories_moved_meanwhile_end_the_walk(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = source.joinpath(*["l"] * (MAX_OPEN_DIRECTORIES + 10))
    deep.mkdir(parents=True)
    fill_the_pipe(deep, monkeypatch)
    with TreeReader(str(source)) as reader:
        reader.begin_walk()
        entries = reader.walk()
        next(entries)
        (source / "l" / "l").joinpath("l").rename(source / "moved")
        with pytest.raises(SourceChanging):
            list(entries)


def test_killed_process_is_a_transient_error(
    source: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_pipe(source, monkeypatch)
    with TreeReader(str(source)) as reader:
        reader.begin_walk()
        entries = reader.walk()
        next(entries)
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        with pytest.raises(TransientError, match="Cannot walk through the volume: a process ended with -9"):
            list(entries)


def test_abandoned_walk_ends_its_process(
    source: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_pipe(source, monkeypatch)
    with TreeReader(str(source)) as reader:
        reader.begin_walk()
        next(reader.walk())
    with TreeReader(str(source)) as reader:
        reader.begin_walk()
    assert len(started) == 2


def test_walk_stays_in_this_process_if_none_can_start(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").touch()

    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers_process.subprocess, "Popen", fail)
    before = len(os.listdir("/proc/self/fd"))
    assert [entry.path for entry in walk(source, by_another=True)[0]] == [b"", b"file"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_messages_are_tagged(source: Path) -> None:
    (source / "file").touch()
    root = os.open(source, os.O_RDONLY)
    found = list(walk_worker.messages(root))
    os.close(root)
    assert [tag for tag, _ in found] == [walk_worker.ROWS, walk_worker.END]


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (SourceError("cannot read it", reason="Damaged"), ("SourceError", "cannot read it", "Damaged")),
        (SourceChanging("it was moved"), ("SourceChanging", "it was moved", "SourceChanging")),
        (OSError(errno.ENOLCK, ""), ("SourceError", "No locks available (ENOLCK: cannot begin to walk through .)")),
    ],
    ids=["permanent", "changing", "of the root"],
)
def test_error_is_a_tagged_message(monkeypatch: pytest.MonkeyPatch, error: Exception, content: tuple[str, ...]) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(walk_worker, "TreeWalk", fail)
    ((tag, found),) = walk_worker.messages(-1)
    assert (tag, found[: len(content)]) == (walk_worker.ERROR, content)
