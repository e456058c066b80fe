"""Timestamps of files: whether they will show a future change."""

from __future__ import annotations

import os
import time

_SECOND = 1_000_000_000
_COARSE_CLOCK = 5
"""CLOCK_REALTIME_COARSE (linux/time.h), the clock of file timestamps: it ticks every 1, 4 or 10 ms."""
_TICK_NS = 20_000_000
"""Longer than any tick."""
_MAX_GRANULARITY_NS = 3 * _SECOND
"""Longer than any granularity. Nearly all files are older than this, and need no further check."""
_MAX_TICK_WAITS = 3
"""Most waits for the next tick. A file that is written 100 times a second is unchanged after one of them; a file that
is written all the time never is."""


def granularity_ns(stamp_ns: int) -> int:
    """Return the longest time between two changes with the same timestamp.

    Whole seconds indicate a file system without finer timestamps: ext4 with inodes of 128 bytes, or FAT, which counts
    in steps of two seconds.
    """
    return 2 * _SECOND if stamp_ns % _SECOND == 0 else _TICK_NS


def change_stamp(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes with the content of a file: size, mtime and ctime."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def fstat_settled(fd: int) -> tuple[os.stat_result, bool]:
    """Return the state of an open file, and whether every later change will give it another ctime.

    Otherwise a file could be torn although its timestamps are unchanged: with timestamps of whole seconds, one in
    twelve reads was torn. If the file was changed in the current tick of the clock, this waits for the next tick, up to
    6 s on file systems with whole seconds. It does not wait for a ctime further in the future, for example from a file
    server with another clock, and treats it as settled. Raises OSError.
    """
    status = os.fstat(fd)
    if time.clock_gettime_ns(_COARSE_CLOCK) - status.st_ctime_ns > _MAX_GRANULARITY_NS:
        return status, True
    for _ in range(_MAX_TICK_WAITS):
        if not _settling_ns(status.st_ctime_ns):
            return status, True
        while wait := _settling_ns(status.st_ctime_ns):
            time.sleep(wait / _SECOND)
        status = os.fstat(fd)
    return status, not _settling_ns(status.st_ctime_ns)


def _settling_ns(ctime_ns: int) -> int:
    """Return the nanoseconds until no change can get this timestamp any more; 0 if that is now, or too far ahead."""
    granularity = granularity_ns(ctime_ns)
    step = granularity if granularity > _TICK_NS else 1
    wait = ctime_ns + step - time.clock_gettime_ns(_COARSE_CLOCK)
    return wait if 0 < wait <= granularity + _TICK_NS else 0
