"""What the time stamps of a file prove: whether a change from now on would show in them."""

from __future__ import annotations

import os
import time

_SECOND = 1_000_000_000
_COARSE_CLOCK = 5
"""CLOCK_REALTIME_COARSE (linux/time.h), which kernels stamp files with: it ticks every 1, 4 or 10 ms."""
_TICK_NS = 20_000_000
"""More than any tick."""
_LONG_AGO_NS = 3 * _SECOND
"""More than any granularity: of nearly all files nothing else need be asked."""
_WAITS = 3
"""How often the next tick is waited for. A file that is written 100 times a second has a pause after one of them; one
that is written without end has none."""


def granularity_ns(stamp_ns: int) -> int:
    """How far two changes under this stamp may lie apart, at most.

    A stamp of whole seconds means a file system that knows no less: ext4 with inodes of 128 bytes, or FAT, which counts
    in steps of two seconds.
    """
    return 2 * _SECOND if stamp_ns % _SECOND == 0 else _TICK_NS


def change_stamp(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes with the content of a file: size, mtime and ctime."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def fstat_settled(fd: int) -> tuple[os.stat_result, bool]:
    """The state of an open file, and whether any change after this moment would give it another ctime.

    Without that, a file that is read while it is written could be torn, and its stamps would not tell: with stamps of
    whole seconds one in twelve readings was. What has been stamped in this very tick of the clock is waited for, up to
    6 s where seconds are all there is. A ctime that lies further in the future, of a file server with another clock for
    example, cannot be waited for, and counts as settled. Raises OSError.
    """
    status = os.fstat(fd)
    if time.clock_gettime_ns(_COARSE_CLOCK) - status.st_ctime_ns > _LONG_AGO_NS:
        return status, True
    for _ in range(_WAITS):
        if not _until_settled(status.st_ctime_ns):
            return status, True
        while wait := _until_settled(status.st_ctime_ns):
            time.sleep(wait / _SECOND)
        status = os.fstat(fd)
    return status, not _until_settled(status.st_ctime_ns)


def _until_settled(ctime_ns: int) -> int:
    """Nanoseconds until the clock has passed every moment that bears this stamp; 0 if it has, or is far from it."""
    granularity = granularity_ns(ctime_ns)
    step = granularity if granularity > _TICK_NS else 1
    wait = ctime_ns + step - time.clock_gettime_ns(_COARSE_CLOCK)
    return wait if 0 < wait <= granularity + _TICK_NS else 0
