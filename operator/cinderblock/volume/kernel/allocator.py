"""Memory while a mover runs: when the garbage collector looks for some, and where the C library takes it from."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from cinderblock.volume.kernel.syscalls import set_allocator

_GC_ALLOCATIONS = 100_000
"""Objects that are made before the youngest are looked through; by default 700. Entries, extents and chunks are tuples
in no cycle, and a tree makes millions of them: looking took 12 % of an unchanged incremental's time."""
_ARENAS_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -8, -1, -3
"""Parameters of mallopt(3)."""
_TRIM_BYTES = 128 << 20
"""Bytes that may stay free at the end of the heap; by default 128 KiB, and page faults for all of it soon after."""
_MMAP_BYTES = 32 << 20
"""Bytes of the largest piece that comes from there: the largest that glibc allows."""


def use_single_arena() -> None:
    """Have all threads take their memory from one heap, which keeps what was freed.

    By default each thread has a heap, of which each keeps what was freed in it and gives the others nothing. Measured
    with a tree of 124,000 files: a restore took 209 to 241 MiB at most, since then 178, with a third of the page
    faults. Threads that hold the interpreter's lock seldom want memory at the same moment.
    """
    set_allocator(_ARENAS_MAX, 1)
    set_allocator(_TRIM_THRESHOLD, _TRIM_BYTES)
    set_allocator(_MMAP_THRESHOLD, _MMAP_BYTES)


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Look for cycles more seldom until the block ends, and never among what was there before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
