"""Tells what is done, how long it took, and how it ended; on a plain terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster.cluster import Lab


class Story:
    """Steps with their times."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: announced, timed, and kept for the summary."""
        began = time.monotonic()
        print(f"\n[{began - self._began:5.1f} s] {title}", flush=True)
        yield
        self._steps.append((title, time.monotonic() - began))

    def tell(self, text: str) -> None:
        """Something to know, indented below its step."""
        for line in text.rstrip().splitlines():
            print(f"          {line}", flush=True)

    def show(self, lab: Lab, *arguments: str) -> None:
        """Run kubectl in front of everybody."""
        print(f"          $ kubectl {' '.join(arguments)}", flush=True)
        self.tell(lab.kubectl(*arguments))

    def summary(self) -> str:
        """A table of the steps that were done."""
        width = max(len(title) for title, _ in self._steps)
        rows = [f"  {title:{width}}  {seconds:6.1f} s  ok" for title, seconds in self._steps]
        total = time.monotonic() - self._began
        return "\n".join(["", "Summary", *rows, f"  {'in all':{width}}  {total:6.1f} s"])
