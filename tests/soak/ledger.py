"""A program that writes to a volume such that any later copy of it can be judged. Runs in pods: standard library only.

Every step rewrites one page, makes it durable, and then appends a durable record of it to the ledger. So in whatever
instant a volume is copied, its ledger says which version each page must have: a page that is older is a lost write, a
page that belongs to no version is a torn one. Only the page of the step after the last record may be in between.

    ledger.py write PATH SEED      go on for ever; prints the number of steps that are durable
    ledger.py verify PATH SEED     print the number of steps that the copy holds, or what is wrong with it

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
"""Of a directory's pages, so many are files of their own, replaced by renaming; the others are in one file."""
RECORD = struct.Struct(">QI20s")
LEDGER_BYTES = 8 << 20
PAUSE = 0.03
"""Seconds between two steps."""


def page_of(seed: str, step: int) -> int:
    """Which page a step rewrites."""
    return random.Random(f"{seed}/{step}").randrange(PAGES)


def content_of(seed: str, step: int) -> bytes:
    """What a step writes: half of it can be compressed, half cannot."""
    head = f"{seed}/{page_of(seed, step)}/{step}/".encode()
    return (head * (PAGE // 2 // len(head) + 1))[: PAGE // 2] + random.Random(head).randbytes(PAGE // 2)


def record_of(seed: str, step: int) -> bytes:
    """What the ledger says about a step."""
    text = f"{seed}/{step}/{page_of(seed, step)}".encode()
    return RECORD.pack(step, page_of(seed, step), hashlib.sha1(text, usedforsecurity=False).digest())


class Device:
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
        """A page as it is."""
        return os.pread(self._file, PAGE, LEDGER_BYTES + number * PAGE)

    def rewrite(self, number: int, content: bytes) -> None:
        """Write a page, durably."""
        os.pwrite(self._file, content, LEDGER_BYTES + number * PAGE)
        os.fsync(self._file)


class Tree:
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
        """A page as it is."""
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


def opened(path: str, *, writes: bool) -> Device | Tree:
    """The volume at ``path``."""
    return (Device if stat.S_ISBLK(os.stat(path).st_mode) else Tree)(path, writes=writes)


def steps_in(volume: Device | Tree, seed: str) -> int:
    """How many steps the ledger holds."""
    records, step = volume.records(), 0
    while records[step * RECORD.size : (step + 1) * RECORD.size] == record_of(seed, step):
        step += 1
    return step


def write(path: str, seed: str, goes_on: Callable[[int], bool] = lambda step: True) -> None:
    """Take one step after the other, from where the volume is."""
    volume = opened(path, writes=True)
    step = steps_in(volume, seed)
    while goes_on(step) and (step + 1) * RECORD.size <= LEDGER_BYTES:
        volume.rewrite(page_of(seed, step), content_of(seed, step))
        volume.record(step * RECORD.size, record_of(seed, step))
        step += 1
        print(step, flush=True)
        time.sleep(PAUSE)


def troubles(path: str, seed: str) -> tuple[int, list[str]]:
    """How many steps a copy holds, and which pages are not as those steps left them."""
    volume = opened(path, writes=False)
    steps = steps_in(volume, seed)
    latest = {page_of(seed, step): step for step in range(steps)}
    between = page_of(seed, steps)
    wrong = [
        f"page {page} is not that of step {step}: {volume.page(page)[:40]!r}"
        for page, step in latest.items()
        if page != between and volume.page(page) != content_of(seed, step)
    ]
    return steps, wrong


def main() -> int:
    """Write or verify; exit code 1 if something is wrong."""
    command, path, seed = sys.argv[1:4]
    if command == "write":
        write(path, seed)
        return 0
    steps, wrong = troubles(path, seed)
    print("\n".join([str(steps), *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
