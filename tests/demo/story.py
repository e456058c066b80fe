"""Print what is done, how long it takes and how it ends, on a plain terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster.cluster import KubeCluster


class Story:
    """The steps of a demonstration, with their times."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, time it, and keep it for the summary."""
        began = time.monotonic()
        print(f"\n[{began - self._began:5.1f} s] {title}", flush=True)
        yield
        self._steps.append((title, time.monotonic() - began))

    def note(self, text: str) -> None:
        """Print a remark, indented below its step."""
        for line in text.rstrip().splitlines():
            print(f"          {line}", flush=True)

    def show(self, kube: KubeCluster, *arguments: str) -> None:
        """Run kubectl in front of everybody."""
        print(f"          $ kubectl {' '.join(arguments)}", flush=True)
        self.note(kube.kubectl(*arguments))

    def summary(self) -> str:
        """Return a table of the completed steps."""
        width = max(len(title) for title, _ in self._steps)
        rows = [f"  {title:{width}}  {seconds:6.1f} s  ok" for title, seconds in self._steps]
        total = time.monotonic() - self._began
        return "\n".join(["", "Summary", *rows, f"  {'in all':{width}}  {total:6.1f} s"])
