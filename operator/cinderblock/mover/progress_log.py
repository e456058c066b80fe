"""Write the progress of a run as JSON lines."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from cinderblock.api.mover import MoverProgress
from cinderblock.repository.progress import Progress

_WINDOW_SECONDS = 15.0
"""Window of the mean speed: short enough to follow changes, long enough not to jump with every pack."""


class ProgressPrinter:
    """Write progress as JSON lines, at most one each second, and one at the end.

    Args:
        out: gets the lines.
        clock: seconds, monotonic.
        bounded: whether the total is known or estimated. If not, total and remaining time are left out.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic, *, bounded: bool = True) -> None:
        self._out = out
        self._bounded = bounded
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._next_write = clock()
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Record the progress, and write a line if one is due."""
        self._last = progress
        now = self._clock()
        if now >= self._next_write:
            self._next_write = now + 1.0
            self._write(progress, now)

    def finish(self, *, succeeded: bool) -> None:
        """Write the last progress; after a success as complete, because the total of a tree was an estimate."""
        if self._last is not None:
            last = self._last._replace(bytes_total=self._last.bytes_done) if succeeded else self._last
            self._write(last, self._clock(), is_last=succeeded)

    def _write(self, progress: Progress, now: float, *, is_last: bool = False) -> None:
        self._samples.append((now, progress.bytes_done))
        while now - self._samples[0][0] > _WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        start, bytes_before = self._samples[0]
        speed = int((progress.bytes_done - bytes_before) / (now - start)) if now > start else 0
        bytes_left = max(progress.bytes_total - progress.bytes_done, 0)
        line = MoverProgress(
            bytes_done=progress.bytes_done,
            bytes_total=max(progress.bytes_total, progress.bytes_done),
            bytes_stored=progress.bytes_stored,
            bytes_per_second=speed,
            seconds_left=_seconds_left(bytes_left, speed, is_last=is_last),
        )
        wire = line.to_wire()
        if not self._bounded:
            wire = {name: value for name, value in wire.items() if name not in ("bytesTotal", "secondsLeft")}
        self._out.write(json.dumps(wire) + "\n")
        self._out.flush()


def _seconds_left(bytes_left: int, speed: int, *, is_last: bool) -> int | None:
    """Return the remaining time; None if it is unknown. Only a run that has ended has none left.

    When all data is read, the last packs still travel to the store. With a slow network, that takes minutes.
    """
    if is_last:
        return 0
    return max(1, bytes_left // speed) if bytes_left and speed else None
