"""Processes identified by number and start time, since the kernel reuses numbers."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of this machine, alive or not."""

    pid: int
    started: int
    """Clock ticks between the machine's start and the process's: field 22 of /proc/<pid>/stat."""

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs. A process that has ended but was not reaped does not."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still the same process."""
        try:
            # The descriptor pins the process: it cannot become another one between the check and the signal.
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)


def find(pid: int) -> Process | None:
    """Return the process that has this number now."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def with_argument(text: str) -> Iterator[Process]:
    """Return the processes with exactly this word in their command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        process = find(int(path.parent.name)) if text.encode() in words else None
        if process:
            yield process


def end(processes: Iterable[Process], timeout: float) -> None:
    """Ask the processes to end, kill those that have not after a while, and return when none is alive."""
    processes = list(processes)
    for process in processes:
        process.signal(signal.SIGTERM)
    _await_end(processes, timeout)
    kill(processes)


def kill(processes: Iterable[Process]) -> None:
    """Kill the processes and return when they are gone, or have not gone for ten seconds."""
    processes = list(processes)
    for process in processes:
        process.signal(signal.SIGKILL)
    _await_end(processes, 10)


def _await_end(processes: list[Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.is_alive for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on.

    The second may contain anything, including blanks and brackets.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
