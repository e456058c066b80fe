"""Settings of the C library's allocator, for movers and the operator, and of the garbage collector for movers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from cinderblock.volume.kernel.syscalls import set_allocator

_GC_ALLOCATIONS = 100_000
"""Allocations before a collection of the youngest generation; the default is 700. Entries, extents and chunks are
tuples without cycles, and a tree has millions of them: collections took 12 % of the time of an unchanged
incremental."""
_ARENAS_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -8, -1, -3
"""Parameters of mallopt(3)."""
_TRIM_BYTES = 128 << 20
"""Free bytes kept at the end of the heap. With the default of 128 KiB, freed memory soon causes page faults again."""
_MMAP_BYTES = 32 << 20
"""Bytes of the largest allocation from the heap: the largest that glibc allows."""
_RETURNED_BYTES = 128 << 10
"""Free bytes at the end of the heap that go back to the kernel, and size of an allocation that is mapped on its own.
These are glibc's defaults. Set explicitly, they stay: otherwise glibc raises them when a large block is freed."""


def use_single_arena() -> None:
    """Let all threads allocate from one heap, which keeps freed memory.

    By default each thread has a heap, and freed memory stays in its heap. Measured with a tree of 124,000 files: a
    restore took at most 178 MiB instead of 209 to 241, with a third of the page faults. Threads that share the
    interpreter's lock seldom allocate at the same moment.
    """
    set_allocator(_ARENAS_MAX, 1)
    set_allocator(_TRIM_THRESHOLD, _TRIM_BYTES)
    set_allocator(_MMAP_THRESHOLD, _MMAP_BYTES)


def return_freed_memory() -> None:
    """Let all threads allocate from one heap, which returns freed memory to the kernel.

    For the operator, which reads large lists when it starts and then rests for hours. Measured with 2,000 backups: 168
    MiB at rest instead of 183, and no more processor time. With one heap but glibc's changing limits it was 178 MiB.
    """
    set_allocator(_ARENAS_MAX, 1)
    set_allocator(_TRIM_THRESHOLD, _RETURNED_BYTES)
    set_allocator(_MMAP_THRESHOLD, _RETURNED_BYTES)


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Collect garbage less often until the block ends, and never among existing objects."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
