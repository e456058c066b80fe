"""Progress on standard error: a bar on a terminal, JSON lines for programs, otherwise nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from cinderblock.api.quantity import format_size
from cinderblock.cli.output import format_duration
from cinderblock.mover.progress_log import ProgressPrinter
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress

_REDRAW_SECONDS: Final = 0.2
_WIDTH: Final = 24


@contextmanager
def progress_for(title: str, *, as_json: bool, bounded: bool = True) -> Iterator[ProgressCallback]:
    """Yield a callback that reports progress on standard error.

    Args:
        title: name of the operation.
        as_json: write JSON lines.
        bounded: whether the total is known. Otherwise, no percentage is shown.
    """
    if as_json:
        yield ProgressPrinter(sys.stderr, bounded=bounded)
    elif sys.stderr.isatty():
        bar = ProgressBar(sys.stderr, title, bounded=bounded)
        try:
            yield bar
        finally:
            bar.clear()
    else:
        yield ignore_progress


class ProgressBar:
    """A line on a terminal that is redrawn."""

    def __init__(
        self, out: TextIO, title: str, *, bounded: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._title = title
        self._bounded = bounded
        self._clock = clock
        self._started = clock()
        self._drawn = -1.0
        self._length = 0

    def __call__(self, progress: Progress) -> None:
        """Redraw the line, at most every _REDRAW_SECONDS."""
        now = self._clock()
        if self._drawn >= 0 and now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        line = self._line(progress, now - self._started)
        self._out.write(f"\r{line:<{self._length}}")
        self._out.flush()
        self._length = len(line)

    def clear(self) -> None:
        """Clear the line."""
        self._out.write(f"\r{'':<{self._length}}\r")
        self._out.flush()

    def _line(self, progress: Progress, seconds: float) -> str:
        done, total, stored = progress
        speed = done / seconds if seconds > 0 else 0.0
        moved = f"{format_size(stored)} moved, {format_size(speed)}/s"
        if not self._bounded or total <= 0:
            return f"{self._title} {format_size(done)}, {moved}"
        fraction = min(done / total, 1.0)
        filled = int(fraction * _WIDTH)
        left = f", {format_duration((total - done) / speed)} left" if speed and done < total else ""
        bar = "#" * filled + "." * (_WIDTH - filled)
        return f"{self._title} [{bar}] {fraction:5.1%} of {format_size(total)}, {moved}{left}"
