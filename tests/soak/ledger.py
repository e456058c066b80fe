"""Write to a volume in such a way that any later copy can be verified. Runs in pods: standard library only.

Every step rewrites one page, makes it durable, and then appends a durable record of it to the ledger. At any
instant, the ledger of a copy shows which version each page must have. An older page is a lost write, and a page of no
version is a torn one. Only the page of the step after the last record may be in between.

A database makes the record durable first, and its page only at the next checkpoint. A copy must contain the pages of
steps before the checkpoint. It rewrites the others from the ledger, as databases do.

    ledger.py write PATH SEED [database]      write until killed; prints the number of durable steps
    ledger.py verify PATH SEED [database]     print the number of steps in the copy, or its errors

PATH is a directory, or a block device.
"""

import hashlib
import os
import random
import stat
import struct
import sys
import time
from collections.abc import Callable

PAGES = 96
PAGE = 64 << 10
FILES = 64
"""Number of a directory's pages that are separate files, replaced by renaming. The others are in one file."""
RECORD = struct.Struct(">QI20s")
LEDGER_BYTES = 8 << 20
DATABASE = "database"
SEGMENTS = 48
SEGMENT_PAGES = PAGES // SEGMENTS
"""A database's pages are in files of so many. All steps change one file for a while, then it rests for minutes."""
STAY = 100
"""Steps that a database stays in one segment."""
CHECKPOINT = 250
"""Steps between two checkpoints."""
PAUSE = 0.03
"""Seconds between two steps."""


def page_of(seed: str, step: int) -> int:
    """Return the page that a step rewrites."""
    return random.Random(f"{seed}/{step}").randrange(PAGES)


def content_of(seed: str, step: int) -> bytes:
    """Return the content that a step writes. Half of it is compressible."""
    head = f"{seed}/{page_of(seed, step)}/{step}/".encode()
    return (head * (PAGE // 2 // len(head) + 1))[: PAGE // 2] + random.Random(head).randbytes(PAGE // 2)


def record_of(seed: str, step: int) -> bytes:
    """Return the ledger's record of a step."""
    text = f"{seed}/{step}/{page_of(seed, step)}".encode()
    return RECORD.pack(step, page_of(seed, step), hashlib.sha1(text, usedforsecurity=False).digest())


class Volume:
    """The common part of all ways of writing: a step makes its page durable, and then its record."""

    def place(self, seed: str, step: int) -> int:
        """Return the page that a step rewrites."""
        return page_of(seed, step)

    def begin(self, seed: str, steps: int) -> None:
        """Get ready for the next step. There is nothing to do where every page is durable before its record."""

    def take(self, seed: str, step: int) -> None:
        """Take a step."""
        self.rewrite(self.place(seed, step), content_of(seed, step))
        self.record(step * RECORD.size, record_of(seed, step))

    def due(self, seed: str, steps: int) -> int:
        """Return how many of the steps must have their pages in place."""
        return steps

    def records(self) -> bytes:
        """Return the whole ledger."""
        raise NotImplementedError

    def record(self, at: int, record: bytes) -> None:
        """Write a record, durably."""
        raise NotImplementedError

    def page(self, number: int) -> bytes:
        """Return a page."""
        raise NotImplementedError

    def rewrite(self, number: int, content: bytes) -> None:
        """Write a page."""
        raise NotImplementedError


class Device(Volume):
    """A block device: the ledger, then the pages."""

    def __init__(self, path: str, *, writes: bool) -> None:
        self._file = os.open(path, os.O_RDWR if writes else os.O_RDONLY)

    def records(self) -> bytes:
        """The whole ledger."""
        return os.pread(self._file, LEDGER_BYTES, 0)

    def record(self, at: int, record: bytes) -> None:
        """Write a record, durably."""
        os.pwrite(self._file, record, at)
        os.fsync(self._file)

    def page(self, number: int) -> bytes:
        """Return a page, unchanged."""
        return os.pread(self._file, PAGE, LEDGER_BYTES + number * PAGE)

    def rewrite(self, number: int, content: bytes) -> None:
        """Write a page, durably."""
        os.pwrite(self._file, content, LEDGER_BYTES + number * PAGE)
        os.fsync(self._file)


class Tree(Volume):
    """A directory: the ledger, a file of pages, and pages that are files."""

    def __init__(self, path: str, *, writes: bool) -> None:
        self._path = path
        if writes:
            os.makedirs(f"{path}/pages", exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY
        self._ledger = os.open(f"{path}/ledger", flags, 0o644)
        self._shared = os.open(f"{path}/shared", flags, 0o644)

    def records(self) -> bytes:
        """The whole ledger."""
        return os.pread(self._ledger, LEDGER_BYTES, 0)

    def record(self, at: int, record: bytes) -> None:
        """Append a record, durably."""
        os.pwrite(self._ledger, record, at)
        os.fsync(self._ledger)

    def page(self, number: int) -> bytes:
        """Return a page, unchanged."""
        if number >= FILES:
            return os.pread(self._shared, PAGE, (number - FILES) * PAGE)
        try:
            with open(f"{self._path}/pages/{number}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def rewrite(self, number: int, content: bytes) -> None:
        """Write a page, durably."""
        if number >= FILES:
            os.pwrite(self._shared, content, (number - FILES) * PAGE)
            os.fsync(self._shared)
            return
        with open(f"{self._path}/pages/.next", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{self._path}/pages/.next", f"{self._path}/pages/{number}")
        directory = os.open(f"{self._path}/pages", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


class Database(Volume):
    """A directory like a database's: each step makes the log durable, and the pages become durable later."""

    def __init__(self, path: str, *, writes: bool) -> None:
        self._segments = f"{path}/segments"
        flags = os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY
        self._log = os.open(f"{path}/log", flags, 0o644)
        self._mark = os.open(f"{path}/checkpoint", flags, 0o644)

    def place(self, seed: str, step: int) -> int:
        return step // STAY % SEGMENTS * SEGMENT_PAGES + page_of(seed, step) % SEGMENT_PAGES

    def begin(self, seed: str, steps: int) -> None:
        """Write again, from the log, the pages that a crash may have lost."""
        os.makedirs(self._segments, exist_ok=True)
        for number in range(PAGES):
            if not self.page(number):
                self.rewrite(number, bytes(PAGE))
        for step in range(self.due(seed, steps), steps):
            self.rewrite(self.place(seed, step), content_of(seed, step))
        self._checkpoint(seed, steps)

    def take(self, seed: str, step: int) -> None:
        self.record(step * RECORD.size, record_of(seed, step))
        self.rewrite(self.place(seed, step), content_of(seed, step))
        if (step + 1) % CHECKPOINT == 0:
            self._checkpoint(seed, step + 1)

    def due(self, seed: str, steps: int) -> int:
        """Return the steps before the last checkpoint. A log that lacks one of them is found as well."""
        mark = os.pread(self._mark, RECORD.size, 0)
        done: int = RECORD.unpack(mark)[0] if mark else 0
        return done if not mark or mark == record_of(seed, done) else PAGES * LEDGER_BYTES

    def records(self) -> bytes:
        return os.pread(self._log, LEDGER_BYTES, 0)

    def record(self, at: int, record: bytes) -> None:
        os.pwrite(self._log, record, at)
        os.fsync(self._log)

    def page(self, number: int) -> bytes:
        segment, page = divmod(number, SEGMENT_PAGES)
        try:
            with open(f"{self._segments}/{segment}", "rb") as file:
                return os.pread(file.fileno(), PAGE, page * PAGE)
        except FileNotFoundError:
            return b""

    def rewrite(self, number: int, content: bytes) -> None:
        segment, page = divmod(number, SEGMENT_PAGES)
        file = os.open(f"{self._segments}/{segment}", os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(file, content, page * PAGE)
        os.close(file)

    def _checkpoint(self, seed: str, steps: int) -> None:
        for name in (*(f"{self._segments}/{segment}" for segment in range(SEGMENTS)), self._segments):
            file = os.open(name, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        os.pwrite(self._mark, record_of(seed, steps), 0)
        os.fsync(self._mark)


def opened(path: str, kind: str = "", *, writes: bool) -> Volume:
    """Return the volume at ``path``."""
    if kind == DATABASE:
        return Database(path, writes=writes)
    return (Device if stat.S_ISBLK(os.stat(path).st_mode) else Tree)(path, writes=writes)


def steps_in(volume: Volume, seed: str) -> int:
    """Return the number of steps in the ledger."""
    records, step = volume.records(), 0
    while records[step * RECORD.size : (step + 1) * RECORD.size] == record_of(seed, step):
        step += 1
    return step


def write(path: str, seed: str, goes_on: Callable[[int], bool] = lambda step: True, kind: str = "") -> None:
    """Take one step after the other, from where the volume is."""
    volume = opened(path, kind, writes=True)
    step = steps_in(volume, seed)
    volume.begin(seed, step)
    while goes_on(step) and (step + 1) * RECORD.size <= LEDGER_BYTES:
        volume.take(seed, step)
        step += 1
        print(step, flush=True)
        time.sleep(PAUSE)


def find_errors(path: str, seed: str, kind: str = "") -> tuple[int, list[str]]:
    """Return the number of steps in a copy, and the pages that do not match these steps."""
    volume = opened(path, kind, writes=False)
    steps = steps_in(volume, seed)
    due = volume.due(seed, steps)
    latest = {volume.place(seed, step): step for step in range(steps)}
    between = volume.place(seed, steps)
    wrong = [
        f"page {page} is not that of step {step}: {volume.page(page)[:40]!r}"
        for page, step in latest.items()
        if step < due and page != between and volume.page(page) != content_of(seed, step)
    ]
    if due > steps:
        wrong.append(f"a checkpoint is newer than step {steps}, the last one of the log")
    return steps, wrong


def main() -> int:
    """Write or verify; exit code 1 if something is wrong."""
    command, path, seed, *kind = sys.argv[1:]
    if command == "write":
        write(path, seed, kind="".join(kind))
        return 0
    steps, wrong = find_errors(path, seed, *kind)
    print("\n".join([str(steps), *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
