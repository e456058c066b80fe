"""The load of other processes on the measured processors: the bench waits for it to end, and counts the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_BUSY_COLUMNS: Final = (1, 2, 3, 6, 7, 8)
"""Time of users, also at low priority, of the kernel, of its interrupts of both kinds, and what the host took away."""
_CALM: Final = 0.15
"""Share of the processors' time that others may use."""


def busy_seconds(processors: Iterable[int]) -> float:
    """Return the seconds that the processors have been busy so far, including kernel work (proc(5), /proc/stat)."""
    names = {f"cpu{number}" for number in processors}
    with open("/proc/stat") as file:
        rows = [line.split() for line in file if line.split(" ", 1)[0] in names]
    return sum(int(row[column]) for row in rows for column in _BUSY_COLUMNS) / _TICKS


def await_calm(processors: tuple[int, ...], wait_seconds: int) -> None:
    """Wait for a second in which others hardly use the processors, for ``wait_seconds`` seconds at most.

    After that, the measurement runs anyway, and its results include the load.
    """
    for _ in range(wait_seconds):
        before = busy_seconds(processors)
        time.sleep(1)
        if busy_seconds(processors) - before < _CALM * len(processors):
            return
