"""How far a run is: counted by the engine, told by whoever asked for it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from cinderblock.api.mover import MoverProgress
from cinderblock.repository.progress import Progress

_WINDOW_SECONDS = 15.0
"""Speed is the mean over so long: short enough to follow a change, long enough not to jump from pack to pack."""


class ProgressPrinter:
    """Writes progress as JSON lines, at most one a second, and one at the end.

    Args:
        out: where to.
        clock: seconds, monotonic.
        bounded: whether the total is known, at least about; else neither it nor the time left is written.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic, *, bounded: bool = True) -> None:
        self._out = out
        self._bounded = bounded
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._next = clock()
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note, and write a line if it is time for one."""
        self._last = progress
        now = self._clock()
        if now >= self._next:
            self._next = now + 1.0
            self._write(progress, now)

    def finish(self, *, succeeded: bool) -> None:
        """Write the last state that was noted; of a success, as complete: the total of a tree was an estimate."""
        if self._last is not None:
            last = self._last._replace(bytes_total=self._last.bytes_done) if succeeded else self._last
            self._write(last, self._clock())

    def _write(self, progress: Progress, now: float) -> None:
        self._seen.append((now, progress.bytes_done))
        while now - self._seen[0][0] > _WINDOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        since, before = self._seen[0]
        speed = int((progress.bytes_done - before) / (now - since)) if now > since else 0
        left = max(progress.bytes_total - progress.bytes_done, 0)
        line = MoverProgress(
            bytes_done=progress.bytes_done,
            bytes_total=max(progress.bytes_total, progress.bytes_done),
            bytes_stored=progress.bytes_stored,
            bytes_per_second=speed,
            seconds_left=left // speed if speed else None,
        )
        wire = line.to_wire()
        if not self._bounded:
            wire = {name: value for name, value in wire.items() if name not in ("bytesTotal", "secondsLeft")}
        self._out.write(json.dumps(wire) + "\n")
        self._out.flush()
