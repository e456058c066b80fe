"""Progress for a person at a terminal; for programs as JSON lines; for nobody nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from cinderblock.cli.output import duration, size
from cinderblock.mover.progress_log import ProgressPrinter
from cinderblock.repository.progress import Progress, ProgressCallback, ignore_progress

_REDRAW_SECONDS: Final = 0.2
_WIDTH: Final = 24


@contextmanager
def progress_for(title: str, *, as_json: bool, bounded: bool = True) -> Iterator[ProgressCallback]:
    """A callback that tells of progress on standard error in the way that fits.

    Args:
        title: what is going on.
        as_json: tell programs.
        bounded: whether the total is known; else no share is shown.
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
    """One line that is drawn again and again."""

    def __init__(
        self, out: TextIO, title: str, *, bounded: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._title = title
        self._bounded = bounded
        self._clock = clock
        self._began = clock()
        self._drawn = -1.0
        self._length = 0

    def __call__(self, progress: Progress) -> None:
        """Draw, unless that was done just now."""
        now = self._clock()
        if self._drawn >= 0 and now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        line = self._line(progress, now - self._began)
        self._out.write(f"\r{line:<{self._length}}")
        self._out.flush()
        self._length = len(line)

    def clear(self) -> None:
        """Leave an empty line."""
        self._out.write(f"\r{'':<{self._length}}\r")
        self._out.flush()

    def _line(self, progress: Progress, seconds: float) -> str:
        done, total, stored = progress
        speed = done / seconds if seconds > 0 else 0.0
        moved = f"{size(stored)} moved, {size(speed)}/s"
        if not self._bounded or total <= 0:
            return f"{self._title} {size(done)}, {moved}"
        share = min(done / total, 1.0)
        filled = int(share * _WIDTH)
        left = f", {duration((total - done) / speed)} left" if speed and done < total else ""
        bar = "#" * filled + "." * (_WIDTH - filled)
        return f"{self._title} [{bar}] {share:5.1%} of {size(total)}, {moved}{left}"
