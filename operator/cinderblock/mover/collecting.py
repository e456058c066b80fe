"""The garbage collector while a mover runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_ALLOCATIONS = 100_000
"""Objects that are made before the youngest are looked through; by default 700. Entries, extents and chunks are tuples
in no cycle, and a tree makes millions of them: looking took 12 % of an unchanged incremental's time."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Look for cycles more seldom until the block ends, and never among what was there before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
