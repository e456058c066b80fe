"""Measure the memory of a mover for a directory with very many files, with a real S3 server. Takes some minutes.

python -m tests.memory [FILES [NAME_BYTES]]

It works below /var/tmp, which must have room for twice as many inodes. The program ends with 1 if a run has more than
LIMIT resident.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Final

from tests.bench.contenders import Cinderblock
from tests.bench.running import Processors, Usage, aside
from tests.bench.server import serving

FILES: Final = 1_000_000
NAME_BYTES: Final = 64
"""Bytes of a file's name. All names of a directory are in memory while it is listed, so they count."""
LIMIT: Final = 256 << 20
"""Bytes that a mover may have resident at most (`ru_maxrss`, code and libraries included)."""
_CHANGED: Final = 1000
"""One of this many files is rewritten for the incremental."""


def make_files(directory: str, files: int, name_bytes: int) -> None:
    """Create one directory with ``files`` distinct files of a few bytes."""
    os.mkdir(directory)
    for number in range(files):
        _write(directory, number, name_bytes, b"content of %d\n" % number)


def change_files(directory: str, files: int, name_bytes: int) -> None:
    """Rewrite some of them."""
    for number in range(0, files, _CHANGED):
        _write(directory, number, name_bytes, b"other content of %d\n" % number)


def measure(files: int, name_bytes: int, scratch: str) -> bool:
    """Run a full backup, an unchanged and a changed incremental backup, a restore, and a restore in place.

    Return whether all keep to LIMIT.
    """
    processors = Processors.divide(2, 0)
    source, target = os.path.join(scratch, "source"), os.path.join(scratch, "target")
    aside("tests.memory", "make", source, str(files), str(name_bytes))
    keeps = True
    with serving(scratch, processors) as server:
        ours = Cinderblock(server, "memory", scratch, processors)
        keeps &= _show("full backup", ours.backup(source, first=True))
        keeps &= _show("unchanged incremental", ours.backup(source, first=False))
        aside("tests.memory", "change", source, str(files), str(name_bytes))
        keeps &= _show(f"incremental, 1 of {_CHANGED} changed", ours.backup(source, first=False))
        os.mkdir(target)
        keeps &= _show("restore", ours.restore(source, target))
        keeps &= _show("restore in place", ours.restore(source, target))
    return keeps


def main(arguments: list[str]) -> int:
    """Measure, or do a part of it as a child. Returns the exit code."""
    if arguments[:1] in (["make"], ["change"]):
        work = make_files if arguments[0] == "make" else change_files
        work(arguments[1], int(arguments[2]), int(arguments[3]))
        return 0
    files = int(arguments[0]) if arguments else FILES
    name_bytes = int(arguments[1]) if arguments[1:] else NAME_BYTES
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        print(f"{files} files with names of {name_bytes} bytes in one directory; limit {LIMIT >> 20} MiB", flush=True)
        return int(not measure(files, name_bytes, scratch))


def _write(directory: str, number: int, name_bytes: int, content: bytes) -> None:
    with open(os.path.join(directory, f"file-{number:07d}".ljust(name_bytes, "x")), "wb") as file:
        file.write(content)


def _show(step: str, used: Usage) -> bool:
    print(f"{step}: {used.memory >> 20} MiB, {used.cpu:.1f} s of processor time, {used.wall:.1f} s", flush=True)
    return used.memory <= LIMIT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
