"""Resources of processes and their children, as the kernel reports them (proc(5))."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Final, Self

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SECONDS: Final = 0.1
"""Between two looks. Each costs a program of one process some 0.2 ms."""


def descendants(pid: int) -> Iterator[int]:
    """Return the direct and indirect child processes of a process."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        for child in map(int, _read(f"/proc/{pid}/task/{thread}/children").split()):
            yield child
            yield from descendants(child)


def name(pid: int) -> str:
    """Name of a process's program, at most 15 characters; empty if it has ended."""
    return _read(f"/proc/{pid}/comm").strip()


def cpu_seconds(pid: int) -> float:
    """Return the seconds of user and system time of a running process."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Together:
    """Measure the memory of a program of several processes until the block ends.

    ``ru_maxrss`` covers only the largest of a program's processes, not their sum. Here, a page that several processes
    share counts once. For a program of one process, the kernel's own peak is more exact.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS):
            others = list(descendants(self._pid))
            if others:
                self.peak = max(self.peak, sum(map(_proportional_bytes, (self._pid, *others))))


def _proportional_bytes(pid: int) -> int:
    """Return the resident bytes. A page that n processes share counts as one n-th (proc(5), smaps_rollup: Pss)."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path: str) -> str:
    """Return the content of a file of a process, or nothing if the process has ended."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
