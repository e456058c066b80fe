"""Call a function in several threads, with few results waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


def map_bounded(function: Callable[[A], R], items: Iterable[A], threads: int) -> Generator[tuple[A, R]]:
    """Yield each item with its result, in order. At most ``threads`` results exist that were not yielded.

    Items are taken from this thread, each only when a thread is free for it. An error ends the iteration, after the
    running calls have ended.
    """
    running: deque[tuple[A, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, "verify") as pool:
        try:
            for item in items:
                running.append((item, pool.submit(function, item)))
                if len(running) >= threads:
                    oldest, future = running.popleft()
                    yield oldest, future.result()
            while running:
                oldest, future = running.popleft()
                yield oldest, future.result()
        finally:
            for _, future in running:
                future.cancel()
